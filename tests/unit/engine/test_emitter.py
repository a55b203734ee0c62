"""Numbering: frozen events count from 1 without a hole, feature events hang behind them."""

from __future__ import annotations

import json

import msgspec
import pytest

from nous.engine.emitter import Emitter
from nous.protocol.events import (
    EVENTS,
    FEATURE_EVENTS,
    AgentStart,
    DeltaTemplate,
    MessageUpdate,
    ThinkingUpdate,
    WarningEvent,
)
from tests.unit.protocol.samples import as_json, sample


def test_numbers_and_lines() -> None:
    emitter = Emitter("run-1")
    emitter.ts = b"2026-01-02T03:04:05.000Z"
    template = DeltaTemplate("run-1", "1", "m1")
    thought = ThinkingUpdate(run_id="run-1", turn_id="1", message_id="m1", delta="hm")
    emitter.emit(AgentStart(run_id="run-1"))
    emitter.emit_feature("thinking", thought)
    emitter.emit_feature("thinking", thought)
    emitter.emit_delta(MessageUpdate, template, "x")
    emitter.emit_feature("thinking", thought)
    emitter.emit(WarningEvent(code="tool_blocked", message="m"))
    lines = [json.loads(e.line) for e in emitter.out]
    assert [line["id"] for line in lines] == ["run-1.1", "run-1.1.1", "run-1.1.2", "run-1.2", "run-1.2.1", "run-1.3"]
    assert [e.seq for e in emitter.out] == [1, 1, 1, 2, 2, 3]
    assert [e.feature for e in emitter.out] == [None, "thinking", "thinking", None, "thinking", None]
    assert [e.type for e in emitter.out][3] is MessageUpdate


def test_a_delta_is_measured_as_json() -> None:
    emitter = Emitter("run-1")
    template = DeltaTemplate("run-1", "1", "m1")
    sizes = [emitter.emit_delta(MessageUpdate, template, text) for text in ("", "abc", '"', "\x01", "\u00e9")]
    assert sizes == [0, 3, 2, 6, 2]


PAYLOADS = {**EVENTS, **{name: cls for name, (_, cls) in FEATURE_EVENTS.items()}}


@pytest.mark.parametrize("kind", PAYLOADS)
def test_no_line_of_an_event_is_longer_than_its_bound(kind: str) -> None:
    """Each text field in turn is made too long; what is cut is named, and the rest stays."""
    whole = sample(PAYLOADS[kind], full=True)
    for field in msgspec.structs.fields(whole):
        if not isinstance(getattr(whole, field.name), str) or field.name == "truncated_fields":
            continue
        payload = msgspec.structs.replace(
            whole, **{field.name: "\x01long" * 200_000, "truncated_fields": msgspec.UNSET}
        )
        emitter = Emitter("run-1", 1 << 16)
        if kind in EVENTS:
            emitter.emit(payload)
        else:
            emitter.emit_feature(FEATURE_EVENTS[kind][0], payload)
        [event] = emitter.out
        assert len(event.line) <= 1 << 16
        line = json.loads(event.line)
        assert line["payload"].pop("truncated_fields") == [field.encode_name]
        assert line["payload"] | {field.encode_name: ""} == as_json(payload) | {field.encode_name: ""}
        assert len(line["payload"][field.encode_name]) > 1000


def test_events_of_a_run_from_before_the_bound_are_whole() -> None:
    emitter = Emitter("run-1")
    emitter.emit(WarningEvent(code="tool_blocked", message="m" * (3 << 20)))
    assert len(emitter.out[0].line) > 3 << 20
