"""Comparing runs: what counts, how they are aligned, and where the first difference is."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings

from nous.ports.model import TextDelta, ThinkingDelta
from nous.replay.diff import CONTEXT_PARTS, Comparison, Difference, align, compare_runs
from nous.replay.show import KEPT_CHARACTERS, Timeline, make_timeline
from tests.support.engine import Bench, Json, make_spec, tool_call
from tests.support.engine_moves import Played, runs
from tests.support.event_script import good_run
from tests.support.traced import make_header


def timeline(bench: Bench) -> Timeline:
    run = make_timeline(bench.decoded())
    run.header = make_header(bench.machine.spec)
    return run


def compare(left: Bench, right: Bench) -> Comparison:
    return compare_runs(timeline(left), timeline(right))


def plain(*answers: str, prompt: str = "hello") -> Bench:
    """Return a run of one turn in which a tool is called between the answers."""
    bench = Bench(make_spec()).start(prompt)
    for number, answer in enumerate(answers[:-1]):
        bench.produce(TextDelta(answer)).call_tools(tool_call("read", f'{{"n":{number}}}', call_id=f"c{number}"))
        bench.run_tool(f"result {number}")
    return bench.say(answers[-1])


def told(found: Comparison) -> list[tuple[str, str, str]]:
    return [(change.kind, change.where, change.field) for change in found.changes]


# -- the same


def test_a_run_is_the_same_as_itself() -> None:
    found = compare(plain("a", "b", "c"), plain("a", "b", "c"))
    assert (found.is_same, found.changes) == (True, ())


@settings(max_examples=50)
@given(runs)
def test_any_run_is_the_same_as_itself(run: Played) -> None:
    assert compare(run.bench, run.bench).is_same


def test_ids_times_durations_and_pieces_do_not_count() -> None:
    events = good_run()
    other = json.loads(re.sub(r'"(m|t|r)(\d)', r'"\g<1>9\2', json.dumps(events)))
    for event in other:
        event["ts"] = "2027-01-01T00:00:00.000Z"
        event["payload"] |= {"duration_ms": 99} if event["type"] == "tool_execution_end" else {}
    assert compare_runs(make_timeline(events), make_timeline(other)).is_same
    one, two = Bench(make_spec()).start(), Bench(make_spec(run_id="run-2", session_id="s2")).start()
    one.produce(TextDelta("to"), TextDelta("gether"))
    two.produce(TextDelta("together"))
    assert compare(one.answer(), two.answer()).is_same


def test_what_one_file_does_not_tell_is_not_compared() -> None:
    def without(event: Json) -> Json:
        payload = {k: v for k, v in event["payload"].items() if k not in ("is_error", "usage", "stop_reason")}
        return {"type": event["type"], "payload": payload}

    bench = Bench(make_spec()).start().produce(ThinkingDelta("hm")).say("done")
    bare = make_timeline(without(e) for e in bench.decoded() if e["type"] != "thinking_update")
    assert compare_runs(timeline(bench), bare).is_same


# -- what differs


def test_a_changed_text_is_told_with_what_surrounds_it() -> None:
    text = "x" * 100 + "one" + "y" * 100
    found = compare(plain("a", text), plain("a", text.replace("one", "two")))
    [change] = found.changes
    assert change == Difference(
        kind="changed",
        where="turn 1, message 3 (assistant)",
        field="text",
        left="\u2026" + "x" * 40 + "one" + "y" * 37 + "\u2026",
        right="\u2026" + "x" * 40 + "two" + "y" * 37 + "\u2026",
        at=100,
    )
    assert found.before == (
        "turn 1, message 1 (user): hello",
        "turn 1, message 2 (assistant): a",
        'turn 1, tool 1 (read): {"n":0}',
    )
    assert len(found.before) == CONTEXT_PARTS


def test_texts_that_differ_behind_what_is_kept() -> None:
    long = "x" * (KEPT_CHARACTERS + 1)
    [change] = compare(plain(long), plain(long + "y")).changes
    assert (change.left, change.right, change.at) == (
        f"{KEPT_CHARACTERS + 1} bytes",
        f"{KEPT_CHARACTERS + 2} bytes",
        KEPT_CHARACTERS,
    )


def test_a_tool_call_with_other_arguments_is_changed() -> None:
    def run(arguments: str, result: str, outcome: str = "ok") -> Bench:
        bench = Bench(make_spec()).start().call_tools(tool_call("read", arguments)).allow()
        return bench.finish_tool(result, outcome).store().say("done")

    where = "turn 1, tool 1 (read)"
    found = compare(run('{"a":1,"b":2}', "x"), run('{"b":3,"a":1}', "y"))
    assert told(found) == [("changed", where, "arguments"), ("changed", where, "result")]
    assert (found.changes[0].left, found.changes[0].right) == ('{"a":1,"b":2}', '{"a":1,"b":3}')
    assert compare(run('{"a":1,"b":2}', "x"), run('{"b":2,"a":1}', "x")).is_same
    found = compare(run("{}", "x"), run("{}", "x", "error"))
    assert told(found) == [
        ("changed", where, "is_error"),
        ("added", "turn 1, warning 1 (tool_execution_error)", ""),
    ]


def test_a_call_more_moves_nothing_else() -> None:
    found = compare(plain("a", "b", "d"), plain("a", "b", "c", "d"))
    assert told(found) == [
        ("added", "turn 1, message 4 (assistant)", ""),
        ("added", "turn 1, tool 3 (read)", ""),
    ]
    assert (found.changes[1].left, found.changes[1].right) == (None, '{"n":2}')
    back = compare(plain("a", "b", "c", "d"), plain("a", "b", "d"))
    assert [kind for kind, _, _ in told(back)] == ["removed", "removed"]
    assert (back.count("removed"), back.count("added"), back.count("changed")) == (2, 0, 0)


def test_another_tool_is_no_changed_call() -> None:
    def run(name: str) -> Bench:
        return Bench(make_spec()).start().call_tools(tool_call(name)).run_tool().say("done")

    assert told(compare(run("read"), run("write"))) == [
        ("removed", "turn 1, tool 1 (read)", ""),
        ("added", "turn 1, tool 1 (write)", ""),
    ]


def test_turns_are_aligned_by_what_was_asked() -> None:
    def run(*texts: str) -> Bench:
        bench = Bench(make_spec()).start(texts[0])
        for text in texts[1:]:
            bench.follow_up(text)
        for text in texts:
            bench.say(f"to {text}")
            if not bench.machine.ended:
                bench.store()
        return bench

    found = compare(run("a", "b", "c"), run("a", "x", "b", "c"))
    assert told(found) == [("added", "turn 2", "")]
    assert found.changes[0].right == "x"
    found = compare(run("a", "b", "c"), run("a", "B", "c"))
    assert told(found) == [
        ("changed", "turn 2, message 1 (user)", "text"),
        ("changed", "turn 2, message 2 (assistant)", "text"),
    ]


def test_how_a_run_began_and_ended_counts() -> None:
    left, right = plain("a"), Bench(make_spec(model="mock-2")).start().produce(TextDelta("a"))
    right.steer("late").fail_model("provider_error", "x")
    found = compare(left, right)
    assert told(found) == [
        ("changed", "run", "model"),
        ("changed", "turn 1, message 2 (assistant)", "stop_reason"),
        ("added", "turn 1, error 1 (provider_error)", ""),
        ("changed", "run", "discarded"),
        ("changed", "run", "status"),
        ("changed", "run", "stop_reason"),
    ]


def test_a_run_that_was_cut_differs_in_its_end() -> None:
    events = plain("a").decoded()
    found = compare_runs(make_timeline(events), make_timeline(events[:-1]))
    assert told(found) == [("changed", "run", "status")]


def test_thinking_counts_between_traces() -> None:
    one, two = (Bench(make_spec()).start().produce(ThinkingDelta(t)).say("done") for t in ("hm", "ha"))
    assert told(compare(one, two)) == [("changed", "turn 1, message 2 (assistant)", "thinking")]


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("tool_execution_end", "result", "z"),
        ("tool_execution_end", "truncated", True),
        ("tool_execution_start", "arguments", {"z": 1}),
        ("message_end", "stop_reason", "length"),
        ("warning", "message", "z"),
        ("warning", "cause", "z"),
        ("status", "message", "z"),
        ("turn_start", "turn_kind", "steer"),
        ("agent_end", "status", "aborted"),
    ],
)
def test_every_field_that_counts_is_found(kind: str, field: str, value: Any) -> None:
    events = good_run()
    other = copy.deepcopy(events)
    next(e for e in reversed(other) if e["type"] == kind)["payload"][field] = value
    found = compare_runs(make_timeline(events), make_timeline(other))
    assert [change.field for change in found.changes] == [field]


# -- alignment


def test_what_is_left_is_paired_by_the_next_key() -> None:
    pairs = align(["a1", "b1", "c1", "d"], ["b2", "c2", "x", "d"], lambda s: s, lambda s: s[0])
    assert list(pairs) == [("a1", None), ("b1", "b2"), ("c1", "c2"), (None, "x"), ("d", "d")]
    assert list(align([], ["a"], str)) == [(None, "a")]
