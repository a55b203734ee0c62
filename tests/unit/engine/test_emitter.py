"""Numbering: frozen events count from 1 without a hole, feature events hang behind them."""

from __future__ import annotations

import json

from nous.engine.emitter import Emitter
from nous.protocol.events import AgentStart, DeltaTemplate, MessageUpdate, ThinkingUpdate, WarningEvent


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
    emitter.emit(WarningEvent(code="c", message="m"))
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
