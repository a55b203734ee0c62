"""A recording taken apart: what was asked for, what was answered, what a client can send again."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from nous.engine.inputs import (
    AbortRequested,
    FollowedUp,
    Input,
    ModelDone,
    ModelProduced,
    PolicyAnswered,
    RunStarted,
    Stamp,
    Steered,
    ToolDone,
    ToolProgressed,
    ToolsSet,
)
from nous.ports.model import TextDelta, ThinkingDelta
from nous.replay.recording import Recorded, read_header
from nous.replay.replayed_run import ReplayedRun, client_commands, merge_deltas
from nous.runtime.seams import Admitted
from nous.store.trace_lines import BrokenTraceError
from tests.support import recordings
from tests.support.recordings import Json, edited, fixture, position, write_sealed

LIMIT = 1 << 25


def delta(text: str, ts: str, *, line: bytes | None = None, call: int = 1) -> Recorded:
    return Recorded(Stamp(ts, 0), ModelProduced(call, [TextDelta(text)]), line)


def merged(*given: Recorded, limit: int = LIMIT) -> list[list[str]]:
    return [
        [item.text for item in admitted.item.items if isinstance(item, TextDelta)]
        for admitted in merge_deltas(given, limit)
        if isinstance(admitted.item, ModelProduced)
    ]


def test_deltas_of_the_same_time_that_were_left_out_become_one() -> None:
    assert merged(delta("a", "t1"), delta("b", "t1"), delta("c", "t2")) == [["a", "b"], ["c"]]
    assert merged(delta("a", "t1", line=b"x"), delta("b", "t1"), delta("c", "t1")) == [["a"], ["b", "c"]]
    assert merged(delta("a", "t1"), delta("b", "t1", line=b"x"), delta("c", "t1")) == [["a"], ["b"], ["c"]]
    between = Recorded(Stamp("t1", 0), Steered("s1", "x"), b"x")
    assert merged(delta("a", "t1"), between, delta("b", "t1")) == [["a"], ["b"]]


def test_near_the_limit_of_a_message_none_is_merged() -> None:
    # As JSON a character may take six bytes: three of them fit below 19, four do not.
    three = [delta(text, "t1") for text in "abc"]
    assert merged(*three, limit=19) == [["a", "b", "c"]]
    assert merged(*three, limit=18) == [["a", "b"], ["c"]]
    assert merged(*three, delta("d", "t1", call=2), delta("e", "t1", call=2), limit=13) == [
        ["a", "b"],
        ["c"],
        ["d", "e"],
    ]
    thinking = Recorded(Stamp("t0", 0), ModelProduced(1, [ThinkingDelta("hm")]), b"x")
    assert merged(thinking, *three, limit=1000) == [[], ["a"], ["b"], ["c"]]


def test_nothing_of_the_recording_is_changed_by_merging() -> None:
    path = fixture("long-answer")
    run = ReplayedRun(path)
    deltas = sum(b'"type":"message_update"' in line for line in recordings.read_lines(path))
    items = [i for a in run.inputs if isinstance(a.item, ModelProduced) for i in a.item.items]
    assert sum(isinstance(item, TextDelta) for item in items) == deltas == 20_000
    assert len(run.inputs) < 2000


def test_a_run_knows_what_it_asked_for_and_what_was_answered() -> None:
    run = ReplayedRun(fixture("two-tools"))
    calls = {value for name, value in run.asked if name == "call"}
    tools = {value for name, value in run.asked if name == "tool_call_id"}
    assert calls == set(run.model) == {1, 2}
    assert tools == set(run.tools) == set(run.policy)
    assert all(answer.allow for answer in run.policy.values())
    assert all(type(tool[-1].item) is ToolDone for tool in run.tools.values())


def test_a_pause_is_what_passed_since_the_input_before(tmp_path: Path) -> None:
    lines = recordings.read_lines(fixture("two-tools"))
    stamps = iter(range(100))

    def restamped(line: bytes) -> bytes:
        if b'"type":"trace.input"' not in line:
            return line
        return edited(line, lambda data: data.update(ts=f"2026-11-21T10:00:{next(stamps):02d}.500Z"))

    run = ReplayedRun(write_sealed(tmp_path / "x", map(restamped, lines)))
    # A delta that was left out stands at its event's own time, which is another here.
    assert {paced.pause_s for tool in run.tools.values() for paced in tool} == {1.0}


def restamp(ts: str, data: Json) -> None:
    data["ts"] = ts


def test_a_command_takes_nothing_from_the_pause_behind_it(tmp_path: Path) -> None:
    """It comes by itself, at once: what comes next must not come earlier for that."""
    lines = recordings.read_lines(fixture("steer-between-tools"))
    for kind, nth, second in (("tool_progressed", 0, 1), ("steered", 0, 30), ("tool_progressed", 1, 31)):
        at = position(lines, kind, nth)
        lines[at] = edited(lines[at], partial(restamp, f"2026-11-21T10:00:{second:02d}.000Z"))
    run = ReplayedRun(write_sealed(tmp_path / "x", lines))
    [paced] = [tool[1] for tool in run.tools.values()][:1]
    assert paced.pause_s == 30.0


def test_time_that_goes_back_is_no_pause(tmp_path: Path) -> None:
    lines = recordings.read_lines(fixture("two-tools"))
    at = position(lines, "tool_done")
    lines[at] = edited(lines[at], lambda data: data.update(ts="2001-01-01T00:00:00.000Z"))
    run = ReplayedRun(write_sealed(tmp_path / "x", lines))
    assert all(paced.pause_s >= 0 for tool in run.tools.values() for paced in tool)


def test_what_a_stopped_model_call_still_delivered_is_late(tmp_path: Path) -> None:
    """Of one read some pieces may come up behind the one at which the call was stopped."""
    lines = recordings.read_lines(fixture("compaction"))
    at = position(lines, "model_produced", 1)
    stop = b'{"type":"trace.effect","n":9,"kind":"stop_model","digest":""}'
    run = ReplayedRun(write_sealed(tmp_path / "x", [*lines[:at], stop, *lines[at:]]))
    late = [admitted.item for admitted in run.inputs if id(admitted.item) in run.late]
    assert (
        late == [admitted.item for admitted in run.inputs if isinstance(admitted.item, ModelProduced | ModelDone)][1:]
    )
    assert len(late) > 1
    assert not ReplayedRun(fixture("compaction")).late


def test_stamps_of_another_clock_are_not_waited_for(tmp_path: Path) -> None:
    lines = recordings.read_lines(fixture("two-tools"))
    for at in range(len(lines)):
        if b'"type":"trace.input"' in lines[at]:
            lines[at] = edited(lines[at], partial(restamp, "yesterday"))
    run = ReplayedRun(write_sealed(tmp_path / "x", lines))
    assert {paced.pause_s for tool in run.tools.values() for paced in tool} == {0.0}


def test_an_effect_that_says_nothing_is_broken(tmp_path: Path) -> None:
    lines = recordings.read_lines(fixture("two-tools"))
    lines[position(lines, "run_tool")] = b'{"type":"trace.effect","data":7}'
    with pytest.raises(BrokenTraceError, match="effect: "):
        ReplayedRun(write_sealed(tmp_path / "x", lines))


def test_another_run_id_is_another_run_through_and_through() -> None:
    path = fixture("abort-in-tool")
    old = read_header(path).run_id
    run = ReplayedRun(path, "run-other")
    assert run.header.spec.run_id == "run-other"
    assert old not in repr(run.inputs) + repr(run.asked) + repr(run.header)


# -- what a client can send again


def admitted(*items: Input) -> list[Admitted]:
    return [Admitted(Stamp("", 0), item) for item in items]


def test_commands_of_a_client_are_those_it_could_have_sent() -> None:
    commands: list[Input] = [Steered("s1", "x"), FollowedUp("f1", "y"), ToolsSet(("read",)), AbortRequested("a1")]
    others: list[Input] = [
        AbortRequested("", "eof"),
        AbortRequested("", "signal"),
        Steered("c1", "with the prompt's id"),
        Steered("s1", "with an id that was used"),
        PolicyAnswered("t1", allow=True),
        ToolProgressed("t1", "x"),
    ]
    found = client_commands(admitted(RunStarted("c1", "hello"), *commands, *others))
    assert [each.item for each in found] == commands
