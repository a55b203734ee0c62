from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.protocol.events import DeltaTemplate, MessageUpdate, StatusEvent, ThinkingUpdate, event_line, feature_line
from nous.protocol.events import ToolArgumentsUpdate as ArgumentsUpdate
from nous.store.trace_lines import EventHead, event_head, kind_of
from tests.unit.store.helpers import NOW, effect_line, header_line, input_line

TS = NOW.encode()
UPDATE = MessageUpdate(run_id="r-1", turn_id="1", message_id="m", delta='{"v":"1","id":"x.99","type":"y"')


def test_kinds() -> None:
    assert kind_of(header_line("r")) == "header"
    assert kind_of(input_line(1, 0)) == "input"
    assert kind_of(effect_line(1)) == "effect"
    assert kind_of(b'{"type":"trace.end","status":"completed"') == "end"
    assert kind_of(event_line(b"r", 1, TS, UPDATE)) == "event"
    for other in (b"", b"{}", b'{"type":"trace.inputs"}', b' {"type":"trace.input"', b'{"type":"session"'):
        assert kind_of(other) == "unknown"


@given(st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True), st.integers(0, 10**17), st.integers(0, 10**17))
def test_event_lines_tell_their_place(run_id: str, seq: int, k: int) -> None:
    run = run_id.encode()
    assert event_head(event_line(run, seq, TS, UPDATE)) == EventHead(seq, "")
    assert event_head(event_line(run, seq, TS, StatusEvent(message="x"))) == EventHead(seq, "")
    assert event_head(DeltaTemplate(run_id, "1", "m").line(seq, TS, b'"delta"')) == EventHead(seq, "")
    thinking = ThinkingUpdate(run_id=run_id, turn_id="1", message_id="m", delta="hm")
    assert event_head(feature_line(run, seq, k, TS, thinking)) == EventHead(seq, "thinking")
    arguments = ArgumentsUpdate(run_id=run_id, turn_id="1", message_id="m", tool_call_id="c", delta="{")
    assert event_head(feature_line(run, seq, k, TS, arguments)) == EventHead(seq, "tool_arguments")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b'{"v":"1","id":"evt-3","type":"status"',
        b'{"v":"1","id":"r.x","type":"status"',
        b'{"v":"1","id":"r.1","type":',
        b'{"v":"1","id":"r.1.2.3","type":"status"',
        b'{"type":"status","v":"1","id":"r.1"}',
        b'x{"v":"1","id":"r.1","type":"status"',
        header_line("r"),
    ],
)
def test_other_lines_have_no_place(line: bytes) -> None:
    assert event_head(line) is None


@pytest.mark.parametrize(
    ("head", "after_seq", "wanted"),
    [
        (EventHead(5, ""), 4, True),
        (EventHead(5, ""), 5, False),
        (EventHead(5, "thinking"), 5, True),
        (EventHead(5, "thinking"), 6, False),
        (EventHead(5, "tool_arguments"), 5, False),
        (EventHead(5, "unknown"), 5, False),
    ],
)
def test_who_asked_for_what(head: EventHead, after_seq: int, wanted: bool) -> None:
    assert head.is_wanted(after_seq, frozenset({"thinking"})) is wanted
    assert head.is_wanted(after_seq, frozenset()) is (wanted and not head.feature)
