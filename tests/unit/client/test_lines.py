from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.client.errors import CommandError, NotTheProtocolError
from nous.client.lines import Event, Response, decode_line, encode_command
from nous.errors import WIRE_CODES, NousError
from nous.protocol.codec import Refused, decode_command
from nous.protocol.responses import error_line
from tests.unit.client.links import event_line, response_line


def decode_error(**error: Any) -> CommandError:
    found = decode_line(response_line("c1", "error", error=error))
    assert isinstance(found, Response)
    assert not found.ok
    assert found.error is not None
    return found.error


def test_a_line_with_ok_is_a_response_and_one_without_is_an_event() -> None:
    response = decode_line(response_line("c1"))
    assert isinstance(response, Response)
    assert (response.id, response.type, response.ok, response.error) == ("c1", "pong", True, None)
    event = decode_line(event_line("r", 7, delta="x"))
    assert isinstance(event, Event)
    assert (event.run_id, event.seq, event.payload["delta"]) == ("r", 7, "x")


def test_an_event_outside_any_run_has_no_run_id() -> None:
    found = decode_line(b'{"v":"1","id":"evt-1","type":"status","payload":{"message":"ready"}}')
    assert isinstance(found, Event)
    assert (found.run_id, found.seq, found.after_seq) == ("", None, None)


@pytest.mark.parametrize("code", WIRE_CODES)
def test_an_error_is_what_the_daemon_raised(code: str) -> None:
    raised = NousError(code, "why", retry_after_ms=5, data={"run_id": "r"})
    found = decode_line(error_line("c1", raised))
    assert isinstance(found, Response)
    error = found.error
    assert error is not None
    assert (error.code, error.category, error.retryable) == (raised.code, raised.category, raised.retryable)
    assert (error.hint, error.cause, error.retry_after_ms) == (raised.hint, raised.cause, raised.retry_after_ms)
    assert error.payload == {"run_id": "r"}
    assert error.exit_code == raised.exit_code
    assert str(error) == str(raised)


def test_an_error_of_a_later_version_keeps_its_words() -> None:
    error = decode_error(code="out_of_paper", message="No paper.", category="dependency_missing", retryable=False)
    assert (error.code, error.message, error.category, error.exit_code) == (
        "out_of_paper",
        "No paper.",
        "dependency_missing",
        7,
    )
    assert decode_error(code="out_of_paper", category="stationery").category == "internal_failure"


@given(st.binary(max_size=60))
def test_any_bytes_are_a_line_or_the_named_error(line: bytes) -> None:
    with suppress(NotTheProtocolError):
        assert isinstance(decode_line(line), Event | Response)


def test_deep_nesting_is_the_named_error_too() -> None:
    with pytest.raises(NotTheProtocolError):
        decode_line(b'{"id":"a","type":"b","payload":{"x":' + b"[" * 100_000)


@given(st.text(min_size=1), st.text(min_size=1).filter(lambda text: not text.isspace()))
def test_a_command_is_read_as_it_was_meant(command_id: str, text: str) -> None:
    line = encode_command(command_id, "prompt", {"text": text})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    command = decode_command(line[:-1])
    assert not isinstance(command, Refused)
    assert command.id == command_id
    assert command.type == "prompt"
