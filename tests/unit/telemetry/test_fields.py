"""Log fields: plain, bounded, and without secrets, whatever is thrown at them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.errors import NousError
from nous.telemetry.fields import (
    MAX_ITEMS,
    MAX_RECORD_BYTES,
    MAX_VALUE_BYTES,
    REDACTED,
    plain_fields,
    suggests_secret,
)


class Strange:
    """An object a log knows nothing about; its text would be content."""

    def __repr__(self) -> str:
        raise RuntimeError("never asked for")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (-(2**63), -(2**63)),
        (2**63, "<64 bits>"),
        (1.5, 1.5),
        (math.inf, "inf"),
        (math.nan, "nan"),
        ("text", "text"),
        ("é\u2028", "é\u2028"),
        ("half \ud800 pair", "half ? pair"),
        (Path("/a/b"), "/a/b"),
        (b"abc", "<3 bytes>"),
        (bytearray(5), "<5 bytes>"),
        ((1, "a"), [1, "a"]),
        ({"a": {"b": [None]}}, {"a": {"b": [None]}}),
        ({1: 2}, {"1": 2}),
        (frozenset({3}), [3]),
        (Strange(), "<Strange>"),
        (Strange, "<type>"),
        ([Strange()], ["<Strange>"]),
    ],
)
def test_plain(value: object, plain: object) -> None:
    assert plain_fields({"x": value}) == {"x": plain}


def test_a_record_does_not_follow_its_objects() -> None:
    inner = [1]
    plain = plain_fields({"x": inner})
    inner.append(2)
    assert plain == {"x": [1]}


# Bounds


def test_a_long_value_is_cut() -> None:
    text = plain_fields({"x": "é" * 100_000})["x"]
    assert text.endswith("...")
    assert MAX_VALUE_BYTES - 4 <= len(text.encode()) <= MAX_VALUE_BYTES


def test_many_long_values_share_one_budget() -> None:
    plain = plain_fields({f"x{n}": "a" * 5000 for n in range(20)})
    assert len(msgspec.json.encode(plain)) < MAX_RECORD_BYTES + 20 * 32
    assert plain["x19"] == "..."


def test_many_entries_are_counted() -> None:
    plain = plain_fields({f"x{n}": n for n in range(100)})
    assert len(plain) == MAX_ITEMS + 1
    assert plain["fields_omitted"] == 100 - MAX_ITEMS
    assert plain_fields({"x": range(3), "y": list(range(100))})["y"] == list(range(MAX_ITEMS))


def test_a_container_that_holds_itself_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert b"<list>" in msgspec.json.encode(plain_fields({"x": loop}))


def test_a_wide_and_deep_container_ends() -> None:
    tree: object = 1
    for _ in range(8):
        tree = [tree] * 30
    assert len(msgspec.json.encode(plain_fields({"x": tree}))) < 16 * 1024


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=50),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=15,
)


@given(st.dictionaries(st.text(), PLAIN))
def test_any_fields_become_strict_json_of_bounded_size(fields: dict[str, object]) -> None:
    line = msgspec.json.encode(plain_fields(fields))
    assert len(line) < 8 * (MAX_RECORD_BYTES + MAX_VALUE_BYTES)
    assert b"\n" not in line
    msgspec.json.decode(line)


# Secrets


@pytest.mark.parametrize(
    "name",
    ["api_key", "API-KEY", "x-api-key", "token", "access_token", "client_secret", "password", "passwd", "passphrase",
     "Authorization", "proxy-authorization", "cookie", "credentials", "bearer"],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert suggests_secret(name)
    assert plain_fields({name: "sk-1"}) == {name: REDACTED}
    assert plain_fields({"headers": {name: ["sk-1"]}}) == {"headers": {name: REDACTED}}
    assert plain_fields({"list": [{name: b"sk-1"}]}) == {"list": [{name: REDACTED}]}


@pytest.mark.parametrize(
    ("name", "value"),
    [("output_tokens", 12), ("max_tokens", 1.5), ("has_key", True), ("token", None), ("api_key_env", "OPENAI_API_KEY"),
     ("model", "m"), ("path", "/a")],
)  # fmt: skip
def test_what_only_looks_like_one(name: str, value: object) -> None:
    assert plain_fields({name: value}) == {name: value}


def test_known_secrets_go_wherever_they_stand() -> None:
    secrets = ("sk-verysecret-long", "sk-verysecret")
    plain = plain_fields(
        {
            "url": "https://h/?k=sk-verysecret-long&b",
            "in": ["sk-verysecret", {"sk-verysecret": 1}],
            "path": Path("/sk-verysecret"),
            "error": NousError("provider_error", "said sk-verysecret"),
        },
        secrets,
    )
    assert b"verysecret" not in msgspec.json.encode(plain)
    assert plain["url"] == f"https://h/?k={REDACTED}&b"


@given(st.integers(0, 2 * MAX_VALUE_BYTES))
def test_no_part_of_a_known_secret_is_left_at_a_cut(offset: int) -> None:
    secret = "S3CR3T" * 20
    plain = plain_fields({"x": "a" * offset + secret + "b" * 5000}, (secret,))
    assert "S3" not in plain["x"]


# Exceptions


def raise_with_content() -> None:
    raise KeyError("what the user said")


def test_an_exception_is_its_type_and_place() -> None:
    try:
        raise_with_content()
    except KeyError as error:
        plain = plain_fields({"error": error})["error"]
    assert plain["type"] == "KeyError"
    assert [place.partition(":")[0] for place in plain["where"]] == ["telemetry/test_fields.py"] * 2
    assert plain["where"][-1].endswith(" raise_with_content")
    assert "said" not in str(plain)


def test_a_failure_of_ours_shows_code_and_cause() -> None:
    plain = plain_fields({"error": NousError("io_failure", "no space left")})
    assert plain == {"error": {"type": "NousError", "code": "io_failure", "cause": "no space left", "where": []}}


def test_groups_and_causes_are_followed() -> None:
    inner = ValueError("said")
    inner.__cause__ = OSError("said")
    plain = plain_fields({"error": BaseExceptionGroup("said", [inner, KeyboardInterrupt()])})["error"]
    assert plain["type"] == "BaseExceptionGroup"
    assert [error["type"] for error in plain["errors"]] == ["ValueError", "KeyboardInterrupt"]
    assert plain["errors"][0]["caused_by"]["type"] == "OSError"
    assert "said" not in str(plain)


def test_an_exception_that_causes_itself_ends() -> None:
    error = ValueError()
    error.__cause__ = error
    assert plain_fields({"error": error})["error"]["caused_by"]["type"] == "ValueError"
