"""No payload is longer than a line has room for, whatever stands in it; what was cut is named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Struct

from nous.errors import NousError
from nous.protocol.bounds import ENVELOPE_BYTES, bound_event, bound_payload
from nous.protocol.events import EVENTS, FEATURE_EVENTS, ErrorEvent, untraced_line
from nous.protocol.responses import ANSWERS, error_line

MAX_BYTES = 64 * 1024

long_texts = st.builds(lambda piece, count: piece * count, st.text(min_size=1, max_size=8), st.sampled_from([1, 9_000]))
values = st.recursive(
    st.none() | st.integers() | st.booleans() | long_texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)

PAYLOADS: list[type[Struct]] = [*EVENTS.values(), *(cls for _, cls in FEATURE_EVENTS.values()), *ANSWERS.values()]


def encoded(value: object) -> bytes:
    return msgspec.json.encode(value)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(PAYLOADS), data=st.data())
def test_every_payload_fits_its_line(kind: type[Struct], data: st.DataObject) -> None:
    # Nothing but the bound itself fills truncated_fields.
    names = [field.encode_name for field in msgspec.structs.fields(kind) if field.encode_name != "truncated_fields"]
    payload = {name: data.draw(values) for name in names}
    whole = encoded(payload)
    bounded = bound_payload(whole, MAX_BYTES)
    assert len(bounded) <= MAX_BYTES - ENVELOPE_BYTES
    if len(whole) <= MAX_BYTES - ENVELOPE_BYTES:
        assert bounded == whole
        return
    out: dict[str, Any] = msgspec.json.decode(bounded)
    cut = out.pop("truncated_fields")
    assert cut
    assert {name: value for name, value in out.items() if name not in cut} == {
        name: value for name, value in payload.items() if name not in cut
    }
    for name in cut:
        assert out[name] is None or type(out[name]) is type(payload[name])


def test_a_long_text_keeps_its_beginning_and_a_long_list_its_first_items() -> None:
    text = "é" * 100_000
    payload = {"run_id": "r", "message": text, "items": list(range(50_000))}
    out = msgspec.json.decode(bound_payload(encoded(payload), MAX_BYTES))
    assert out["truncated_fields"] == ["items", "message"]
    assert (out["run_id"], out["items"]) == ("r", list(range(len(out["items"]))))
    assert text.startswith(out["message"])


def test_an_event_keeps_its_envelope() -> None:
    line = b'{"v":"1","id":"r.7","type":"status","seq":7,"ts":"t","payload":%b}\n' % encoded({"message": "x" * 70_000})
    bounded = bound_event(line, MAX_BYTES)
    assert len(bounded) <= MAX_BYTES
    event = msgspec.json.decode(bounded)
    assert (event["id"], event["seq"], event["payload"]["truncated_fields"]) == ("r.7", 7, ["message"])
    assert bound_event(b"{}\n", MAX_BYTES) == b"{}\n"


@pytest.mark.parametrize("kind", [*EVENTS, *FEATURE_EVENTS, *ANSWERS])
def test_the_schema_knows_what_was_cut(kind: str) -> None:
    cls = {**EVENTS, **{name: cls for name, (_, cls) in FEATURE_EVENTS.items()}, **ANSWERS}[kind]
    [field] = [field for field in msgspec.structs.fields(cls) if field.name == "truncated_fields"]
    assert field.default is UNSET


@given(cause=long_texts, hint=long_texts, run_id=long_texts, command_id=st.text(max_size=256))
def test_an_error_response_fits_the_least_line(cause: str, hint: str, run_id: str, command_id: str) -> None:
    error = NousError("internal_error", cause, hint=hint * 4, data={"run_id": run_id * 4})
    line = error_line(command_id, error, "c" * 128)
    assert len(line) <= MAX_BYTES
    answer = msgspec.json.decode(line)
    assert (answer["id"], answer["error"]["code"]) == (command_id, "internal_error")


@pytest.mark.parametrize("text", ["x", "\x00", "\U0001f600"])
def test_an_event_that_no_trace_holds_fits_the_least_line(text: str) -> None:
    event = ErrorEvent(
        run_id="r", code="io_failure", message=text * 90_000, category="io", retryable=False, cause=text * 90_000
    )
    line = untraced_line("r", 1, "2026-01-01T00:00:00.000Z", event)
    assert len(line) <= MAX_BYTES
    payload = msgspec.json.decode(line)["payload"]
    assert payload["code"] == "io_failure"
    assert set(payload["truncated_fields"]) <= {"message", "cause"}
