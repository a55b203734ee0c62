from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.cli.transcript import (
    MAX_ARGUMENTS_CHARACTERS,
    MAX_VALUE_CHARACTERS,
    complaint,
    short_arguments,
    short_of_end,
    tool_end,
)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({}, ""),
        (None, ""),
        ({"path": "a b.txt", "limit": 20, "all": True, "names": ["x"]}, 'path=a b.txt limit=20 all=true names=["x"]'),
        ("{not json", "{not json"),
    ],
)
def test_arguments_are_names_and_values(arguments: object, shown: str) -> None:
    assert short_arguments(arguments) == shown


@given(st.dictionaries(st.text(), st.recursive(st.text() | st.integers(), st.lists)) | st.text())
def test_arguments_are_short_whatever_they_are(arguments: object) -> None:
    assert len(short_arguments(arguments)) <= MAX_ARGUMENTS_CHARACTERS


def test_a_long_value_is_cut_for_itself() -> None:
    shown = short_arguments({"content": "x" * 1000, "path": "a.txt"})
    assert shown == f"content={'x' * (MAX_VALUE_CHARACTERS - 1)}… path=a.txt"


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        ({"result": "a\nb", "is_error": False, "duration_ms": 3}, "read ok 3 ms"),
        ({"result": "no file\nmore", "is_error": True, "duration_ms": 3}, "read error 3 ms: no file"),
        ({"result": "from an older v1"}, "read ok"),
    ],
)
def test_a_call_ends_well_or_says_why_not(payload: dict[str, Any], shown: str) -> None:
    assert tool_end({"tool_name": "read", **payload}) == shown


def test_a_complaint_has_its_cause() -> None:
    assert complaint({"code": "c", "message": "M."}) == "c: M."
    assert complaint(json.loads('{"code":"c","message":"M.","cause":"why"}')) == "c: M. (why)"
    assert complaint(json.loads('{"code":"c","message":"M. (why)","cause":"why"}')) == "c: M. (why)"


@pytest.mark.parametrize(
    ("payload", "note"),
    [
        ({"stop_reason": "stop"}, ""),
        ({}, ""),
        ({"stop_reason": "length"}, "length: the answer was cut by the limit of output tokens"),
        ({"stop_reason": "other", "finish_reason": "pause_turn"}, "other: the answer ended for the reason pause_turn"),
    ],
)
def test_an_answer_that_did_not_end_by_itself_is_told(payload: dict[str, Any], note: str) -> None:
    assert short_of_end(payload) == note
