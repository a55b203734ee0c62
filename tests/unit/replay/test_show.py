"""Timelines: what they say of a run, from whatever wrote its events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nous.errors import NousError
from nous.ports.model import TextDelta, ThinkingDelta, UsageReport
from nous.protocol.messages import Usage
from nous.replay.export import export_trace
from nous.replay.show import (
    KEPT_CHARACTERS,
    MessagePart,
    Notice,
    Text,
    Timeline,
    ToolPart,
    make_timeline,
    read_timeline,
)
from tests.support.engine import Bench, tool_call
from tests.support.event_script import good_run
from tests.support.traced import TracedState

Json = dict[str, Any]


@pytest.fixture
def home(tmp_path: Path) -> TracedState:
    return TracedState(tmp_path / "state")


def rich(home: TracedState) -> Bench:
    """Return a run with a tool that works, one that fails, a follow-up and one input too many."""
    bench = Bench(home.spec()).start("do it")
    bench.produce(ThinkingDelta("hm")).produce(TextDelta("I ")).produce(TextDelta("will"))
    bench.call_tools(tool_call("read", '{"path":"a"}'), tool_call("write", '{"path":"b"}', index=1))
    bench.run_tool("it says so").allow().progress("1").progress("2").finish_tool("no", "error", truncated=True).store()
    bench.follow_up("and then?").say("done").store()
    bench.produce(TextDelta("more"), UsageReport(Usage(input_tokens=5, output_tokens=7)))
    return bench.steer("too late").fail_model("provider_error", "bad")


def turns_of(run: Timeline) -> Iterator[tuple[str, str, list[tuple[str, ...]]]]:
    for turn in run.turns:
        yield turn.turn_id, turn.kind, [outline(part) for part in turn.parts]


def outline(part: MessagePart | ToolPart | Notice) -> tuple[str, ...]:
    match part:
        case MessagePart():
            return part.role, part.text.beginning, part.stop_reason
        case ToolPart():
            return part.name, str(part.arguments), part.result.beginning, str(part.is_error)
        case Notice():
            return part.kind, part.code


def test_a_run_is_told_by_turns_messages_and_tools(home: TracedState) -> None:
    run = read_timeline(home.record(rich(home)))
    assert list(turns_of(run)) == [
        (
            "1",
            "prompt",
            [
                ("user", "do it", ""),
                ("assistant", "I will", "tool_use"),
                ("read", "{'path': 'a'}", "it says so", "False"),
                ("write", "{'path': 'b'}", "no", "True"),
                ("warning", "tool_execution_error"),
                ("assistant", "done", "stop"),
            ],
        ),
        ("2", "follow_up", [("user", "and then?", ""), ("assistant", "more", "error"), ("error", "provider_error")]),
    ]
    assert (run.run_id, run.session_id, run.provider, run.model) == ("run-1", "session-1", "mock", "mock-1")
    assert (run.status, run.stop_reason, run.usage and run.usage["output_tokens"]) == ("failed", "error", 7)
    assert [d["text"] for d in run.discarded] == ["too late"]


def test_times_count_from_the_first_event(home: TracedState) -> None:
    run = read_timeline(home.record(rich(home)))
    first, second, _, write, *_ = run.turns[0].parts
    assert isinstance(first, MessagePart)
    assert isinstance(second, MessagePart)
    assert isinstance(write, ToolPart)
    assert (run.turns[0].at_ms, first.at_ms, first.end_ms) == (0, 0, 1)
    assert (second.deltas, second.thinking.beginning, second.text_bytes) == (2, "hm", 6)
    assert second.at_ms is not None
    assert second.first_ms is not None
    assert second.end_ms is not None
    assert 0 < second.at_ms < second.first_ms < second.end_ms
    assert (write.updates, write.truncated, write.duration_ms) == (2, True, 6)
    assert run.end_ms is not None
    assert run.duration_ms in (run.end_ms, run.end_ms + 1)


def test_events_are_counted_as_seq_counts_them(home: TracedState) -> None:
    trace = home.record(rich(home))
    run = read_timeline(trace)
    assert run.events == trace.read_bytes().count(b'"seq":')


def test_an_event_list_tells_the_same(home: TracedState) -> None:
    trace = home.record(rich(home))
    listed = read_timeline(export_trace(home.root, "run-1", "events"))
    assert listed.header is None
    whole = read_timeline(trace)
    assert list(turns_of(listed)) == list(turns_of(whole))
    assert (listed.run_id, listed.provider) == (whole.run_id, whole.provider)


def test_a_run_without_an_end_has_no_status(home: TracedState) -> None:
    run = read_timeline(home.record(Bench(home.spec()).start().produce(TextDelta("half")), end=None))
    assert (run.status, run.duration_ms, run.end_ms) == ("", None, None)
    assert next(turns_of(run))[2] == [("user", "hello", ""), ("assistant", "half", "")]


def test_lines_that_are_no_events_are_passed_over(tmp_path: Path) -> None:
    events = [msgspec.json.encode(event) for event in good_run()]
    path = tmp_path / "list"
    path.write_bytes(b"\r\n".join([*events[:3], b"", b"garbage", b"[1]", b'{"type":7}', *events[3:]]))
    assert list(turns_of(read_timeline(path))) == list(turns_of(make_timeline(good_run())))


def test_a_bare_list_of_another_implementation_is_shown() -> None:
    begin = ("agent_start", "turn_start", "message_start", "message_update", "tool_execution_start")
    end = ("tool_execution_end", "message_end", "status", "turn_end", "agent_end")
    run = make_timeline({"type": kind} for kind in (*begin, *end))
    assert list(turns_of(run)) == [("1", "", [("assistant", "", ""), ("", "None", "", "None"), ("status", "")])]
    assert (run.status, run.started_at, run.end_ms) == ("ended", "", None)


def test_ends_without_starts_are_shown_too() -> None:
    events: list[Json] = [
        {"type": "message_update", "delta": "a"},
        {"type": "message_end"},
        {"type": "tool_execution_end", "tool_name": "x", "result": "r", "duration_ms": 3},
        {"type": "error", "code": "internal_error", "ts": "nonsense"},
        {"type": "message_end", "text": "whole", "usage": {"input_tokens": 1, "note": "x"}},
    ]
    [turn] = make_timeline(events).turns
    message, tool, notice, last = turn.parts
    assert isinstance(message, MessagePart)
    assert isinstance(tool, ToolPart)
    assert isinstance(notice, Notice)
    assert isinstance(last, MessagePart)
    assert (message.text.beginning, tool.duration_ms, notice.at_ms, last.text.beginning) == ("a", 3, None, "whole")
    assert last.usage == {"input_tokens": 1}


def test_notices_between_turns_stand_between_them() -> None:
    run = make_timeline([{"type": "status", "message": "hello"}, {"type": "turn_start"}, {"type": "turn_end"}])
    assert [type(part).__name__ for part in run.parts] == ["Notice", "ShownTurn"]


def test_times_with_and_without_a_zone_are_not_mixed() -> None:
    stamps = ("2026-01-02T03:04:05.250Z", "2026-01-02T03:04:06Z", "2026-01-02T03:04:07", 7, "2026-01-02T03:04:05+02:00")
    run = make_timeline({"type": "status", "ts": ts} for ts in stamps)
    assert [part.at_ms for part in run.parts] == [0, 750, None, None, -7_200_250]


def test_of_a_long_text_the_beginning_is_kept() -> None:
    text = Text()
    for _ in range(3):
        text.add("\u00e9" * KEPT_CHARACTERS)
    assert len(text.beginning) == KEPT_CHARACTERS
    assert text.size_bytes == 6 * KEPT_CHARACTERS
    assert text != Text(text.beginning)
    assert Text("ab") == Text("ab") != Text("abc")


def test_what_is_neither_trace_nor_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello\n", encoding="utf-8")
    for path, code in ((tmp_path / "x", "invalid_usage"), (tmp_path / "none", "run_not_found")):
        with pytest.raises(NousError) as caught:
            read_timeline(path)
        assert caught.value.code == code
