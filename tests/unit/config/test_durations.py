"""Durations: a whole number and a unit, nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.config.durations import parse_duration_ms
from nous.errors import NousError

MS_BY_UNIT = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("500ms", 500),
        ("30s", 30_000),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("0s", 0),
        ("0ms", 0),
        ("007s", 7000),
        ("999999999h", 999_999_999 * 3_600_000),
    ],
)
def test_known(text: str, ms: int) -> None:
    assert parse_duration_ms(text) == ms


@given(st.integers(min_value=0, max_value=999_999_999), st.sampled_from(sorted(MS_BY_UNIT)))
def test_every_number_with_every_unit(number: int, unit: str) -> None:
    assert parse_duration_ms(f"{number}{unit}") == number * MS_BY_UNIT[unit]


REFUSED = [
    "", " ", "s", "ms", "30", "0", "-1s", "+1s", "1.5s", "1,5s", "1e3s", "30 s", " 30s", "30s ", "30s\n", "\n30s",
    "30S", "30MS", "30sec", "30d", "1h30m", "0x10s", "1_000s", "٣s", "1000000000s", "30s30s", "30us",
    "infs", "30\x00s", "\uff13\uff10s",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text: str) -> None:
    with pytest.raises(NousError) as caught:
        parse_duration_ms(text)
    assert (caught.value.code, caught.value.exit_code) == ("invalid_usage", 6)
    assert caught.value.cause == f"{text!a} is not a duration"
    assert "30s" in str(caught.value.hint)


@given(st.one_of(st.text(max_size=12), st.from_regex(r"[0-9]{0,12}.?[a-z]{0,3}", fullmatch=True)))
def test_any_text_is_a_duration_or_one_named_error(text: str) -> None:
    match = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h)", text, re.ASCII)
    if match:
        assert parse_duration_ms(text) == int(match[1]) * MS_BY_UNIT[match[2]]
        return
    with pytest.raises(NousError):
        parse_duration_ms(text)


def test_a_long_text_is_not_repeated_whole() -> None:
    with pytest.raises(NousError) as caught:
        parse_duration_ms("9" * 100_000)
    assert len(str(caught.value.cause)) < 100
