"""Response lines: their envelope, their errors, and the mark of a repeated answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nous.errors import WIRE_CODES, NousError
from nous.protocol.responses import (
    ANSWERS,
    Accepted,
    ExtensionResult,
    PendingCounts,
    Pong,
    RunInfo,
    encode_answer,
    error_line,
    mark_duplicate,
    success_line,
)
from tests.unit.protocol.samples import as_json, sample

AWKWARD_ID = 'quote " backslash \\ lf \n ls \u2028 nul \x00 \U0001f600'


def read(line: bytes) -> dict[str, Any]:
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert not [byte for byte in line[:-1] if byte < 0x20]
    decoded = json.loads(line.decode("utf-8"))
    assert isinstance(decoded, dict)
    return decoded


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("full", [False, True])
def test_a_line_of_every_type(kind: str, full: bool) -> None:
    answer = sample(ANSWERS[kind], full=full)
    line = read(success_line("c1", *encode_answer(answer)))
    assert list(line) == ["v", "id", "type", "payload", "ok"]
    payload = as_json(answer)
    if isinstance(answer, ExtensionResult) and isinstance(answer.result, dict):
        # An extension's object is the payload itself, as in the original v1.
        payload = {"result": answer.result, **answer.result}
    assert line == {"v": "1", "id": "c1", "type": kind, "payload": payload, "ok": True}


@pytest.mark.parametrize("code", WIRE_CODES)
def test_an_error_of_every_code(code: str) -> None:
    error = NousError(code)
    line = read(error_line("c1", error))
    assert list(line) == ["v", "id", "type", "payload", "ok", "error"]
    assert {**line, "error": None} == {
        "v": "1",
        "id": "c1",
        "type": "error",
        "payload": {},
        "ok": False,
        "error": None,
    }
    hint = {} if error.hint is None else {"hint": error.hint}
    assert line["error"] == {
        "code": code,
        "message": str(error),
        "category": error.category,
        "retryable": error.retryable,
        **hint,
    }


def test_an_error_carries_what_it_was_given() -> None:
    error = NousError("timeout", "30 s", hint="Wait.", retry_after_ms=100, data={"run_id": "r1"})
    line = read(error_line("c1", error))
    assert line["payload"] == {"run_id": "r1"}
    assert line["error"]["cause"] == "30 s"
    assert line["error"]["hint"] == "Wait."
    assert line["error"]["retry_after_ms"] == 100


def test_an_error_without_a_readable_id() -> None:
    assert read(error_line("", NousError("line_too_long")))["id"] == ""


def test_any_id_and_any_text_stay_on_their_line() -> None:
    assert read(success_line(AWKWARD_ID, *encode_answer(Pong())))["id"] == AWKWARD_ID
    line = read(error_line(AWKWARD_ID, NousError("io_failure", AWKWARD_ID, data={"path": AWKWARD_ID})))
    assert (line["id"], line["error"]["cause"], line["payload"]["path"]) == (AWKWARD_ID, AWKWARD_ID, AWKWARD_ID)


def test_a_cause_with_half_a_pair_can_be_written() -> None:
    assert read(error_line("c1", NousError("io_failure", "name \udcff")))["error"]["cause"] == "name ?"


def test_what_is_unset_is_not_written() -> None:
    assert as_json(Accepted(command="abort", run_id="r")) == {"command": "abort", "run_id": "r"}
    assert set(as_json(sample(ANSWERS["messages"], full=False))) == {"session_id", "messages"}


def test_counts_of_nothing_are_written() -> None:
    info = RunInfo(
        run_id="r", session_id="s", run_state="running", started_at="t", seq=0, pending_counts=PendingCounts()
    )
    assert as_json(info)["pending_counts"] == {"steer": 0, "follow_up": 0}


@pytest.mark.parametrize(
    ("payload", "marked"),
    [
        (b"{}", b'{"duplicate":true}'),
        (b'{"command":"abort"}', b'{"duplicate":true,"command":"abort"}'),
        (b'{"a":{},"b":[]}', b'{"duplicate":true,"a":{},"b":[]}'),
    ],
)
def test_a_repeated_answer_says_so(payload: bytes, marked: bytes) -> None:
    assert mark_duplicate(payload) == marked
    assert json.loads(marked) == {"duplicate": True, **json.loads(payload)}


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_answer_can_be_marked(kind: str) -> None:
    name, payload = encode_answer(sample(ANSWERS[kind], full=True))
    assert json.loads(mark_duplicate(payload)) == {"duplicate": True, **json.loads(payload)}
    assert name == kind
