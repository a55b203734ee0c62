"""The clock's text is RFC 3339 UTC with milliseconds, whatever the second."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.system.clock import SystemClock, format_time

NS_PER_MS = 1_000_000
YEAR_2200_NS = 7_258_118_400 * 1_000_000_000


@given(st.integers(min_value=0, max_value=YEAR_2200_NS))
def test_format_agrees_with_datetime(time_ns: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ns // NS_PER_MS)
    assert format_time(time_ns) == moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def test_milliseconds_are_cut_not_rounded() -> None:
    assert format_time(1_795_255_200_123_999_999) == "2026-11-21T10:00:00.123Z"
    assert format_time(1_795_255_200_999_999_999) == "2026-11-21T10:00:00.999Z"


@given(st.lists(st.integers(min_value=0, max_value=YEAR_2200_NS), min_size=1, max_size=20))
def test_cached_second_never_shows(times_ns: list[int]) -> None:
    """Forwards, backwards, within a second or across it: now() is what formatting anew would give."""
    clock = SystemClock()
    remaining = iter(times_ns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: next(remaining))
        assert [clock.now() for _ in times_ns] == [format_time(time_ns) for time_ns in times_ns]


def test_now_is_the_present() -> None:
    before = datetime.now(UTC)
    text = SystemClock().now()
    after = datetime.now(UTC)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert before - timedelta(milliseconds=1) <= datetime.fromisoformat(text) <= after


def test_monotonic_time_never_goes_back() -> None:
    clock = SystemClock()
    readings = [clock.mono_ns() for _ in range(1000)]
    assert readings == sorted(readings)
