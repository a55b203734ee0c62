"""The grammar of events: good runs pass; each rule, broken, is named with its line; nothing that is fed raises."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.protocol.events import EVENTS, FEATURE_EVENTS
from nous.protocol.grammar import RULES, EventGrammar, Violation
from tests.support.event_script import Json, Script, good_run

GOOD = good_run()
LAST = len(GOOD)


def index_of(kind: str, nth: int = 0) -> int:
    return [n for n, event in enumerate(GOOD) if event["type"] == kind][nth]


def check(events: Iterable[Any], **options: bool) -> list[Violation]:
    grammar = EventGrammar(**options)
    found = [violation for event in events if (violation := grammar.feed(event)) is not None]
    return found + grammar.finish()


def rules(events: Iterable[Any], **options: bool) -> list[str]:
    return [violation.rule for violation in check(events, **options)]


def as_line(event: Json) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"


# -- good runs


def test_a_good_run_passes() -> None:
    for options in ({}, {"lenient": True}, {"filtered": True}):
        assert check(GOOD, **options) == []


def test_lines_and_decoded_events_are_the_same() -> None:
    assert check(map(as_line, GOOD)) == []
    bad = [*GOOD[:3], *GOOD[4:]]
    assert check(map(as_line, bad)) == check(bad) != []


def test_the_example_covers_every_event_type_but_the_error() -> None:
    assert {event["type"] for event in GOOD} == {*EVENTS, *FEATURE_EVENTS} - {"error"}


def test_a_failed_run_passes() -> None:
    s = Script().say("agent_start").user("1", "m1", "hello").deltas("1", "m2", "half")
    s.say("message_end", turn_id="1", message_id="m2", role="assistant", text="half", stop_reason="error")
    s.say("error", turn_id="1", code="provider_error", message="The provider refused the request.")
    assert check(s.say("turn_end", turn_id="1").say("agent_end", status="failed").events) == []


def test_a_run_without_turns_passes() -> None:
    assert check(Script().say("agent_start").say("agent_end", status="completed").events) == []


def test_a_text_that_was_left_out_is_measured() -> None:
    for size, expected in ((4, []), (5, ["message.text"])):
        s = Script().say("agent_start").user("1", "m1", "hello").deltas("1", "m2", "\u00e9", "ab")
        left_out = {"text_bytes": size, "text_omitted": True}
        s.say("message_end", turn_id="1", message_id="m2", role="assistant", **left_out)
        assert rules(s.say("turn_end", turn_id="1").say("agent_end").events) == expected


def test_a_run_whose_trace_broke_ends_without_seq_and_closes_nothing() -> None:
    events = good_run()[: index_of("message_update") + 1]
    time = "2026-01-02T03:04:05Z"
    cause: Json = {"run_id": "r1", "code": "io_failure", "message": "Reading or writing failed."}
    end: Json = {"run_id": "r1", "status": "failed", "untraced": True}
    tail: list[Json] = [
        {"v": "1", "id": "r1.untraced.1", "type": "error", "ts": time, "payload": cause},
        {"v": "1", "id": "r1.untraced.2", "type": "agent_end", "ts": time, "payload": end},
    ]
    assert check([*events, *tail]) == []
    assert rules([*events, *tail, events[-1]]) == ["run.after_end"]
    tail[1]["id"] = "r1.2"
    assert rules([*events, *tail]) == ["event.seq"]


# -- every rule


def change(kind: str, nth: int = 0, **fields: Any) -> list[Json]:
    """Return the good run with fields of one event replaced; ``payload`` is merged."""
    events = deepcopy(GOOD)
    event = events[index_of(kind, nth)]
    event["payload"] |= fields.pop("payload", {})
    event |= fields
    return events


def without(kind: str, nth: int, *fields: str, inside: str | None = "payload") -> list[Json]:
    events = deepcopy(GOOD)
    event = events[index_of(kind, nth)]
    for field in fields:
        del (event if inside is None else event[inside])[field]
    return events


def renumbered(edit: Callable[[Script], Any]) -> list[Json]:
    """Return a run of its own, with seq as it should be, that ``edit`` fills between its first and last event."""
    script = Script().say("agent_start")
    edit(script)
    return script.say("agent_end", status="completed").events


def turn(*says: tuple[str, Json]) -> list[Json]:
    """Return a run of one turn that holds these events."""

    def edit(script: Script) -> None:
        script.say("turn_start", turn_id="1")
        for kind, payload in says:
            script.say(kind, turn_id="1", **payload)
        script.say("turn_end", turn_id="1")

    return renumbered(edit)


def feature_in_a_turn_alone(script: Script) -> None:
    script.say("turn_start", turn_id="1").feature("thinking_update", turn_id="1", message_id="m1", delta="x")
    script.say("turn_end", turn_id="1")


M1: Json = {"message_id": "m1"}
M2: Json = {"message_id": "m2"}
T1: Json = {"tool_call_id": "t1", "tool_name": "read"}
T2: Json = {"tool_call_id": "t2", "tool_name": "read"}
START, UPDATE, END = (
    ("message_start", {**M1, "role": "assistant"}),
    ("message_update", {**M1, "delta": "x"}),
    ("message_end", {**M1, "role": "assistant", "text": "x"}),
)
TOOL, TOOL_UPDATE, TOOL_END = (
    ("tool_execution_start", T1),
    ("tool_execution_update", {**T1, "delta": "x"}),
    ("tool_execution_end", {**T1, "result": "x"}),
)

BROKEN: list[tuple[str, int, list[Any]]] = [
    ("event.malformed", 2, [GOOD[0], b"{nonsense", *GOOD[1:]]),
    ("event.malformed", 2, [GOOD[0], b"\xff", *GOOD[1:]]),
    ("event.malformed", 2, [GOOD[0], b"[" * 100_000, *GOOD[1:]]),
    ("event.malformed", 2, [GOOD[0], b"[]", *GOOD[1:]]),
    ("event.malformed", 2, [GOOD[0], {"type": "status"}, *GOOD[1:]]),
    ("event.malformed", 2, [GOOD[0], {"type": 1, "payload": {}}, *GOOD[1:]]),
    ("event.malformed", 2, [GOOD[0], {"type": "status", "payload": []}, *GOOD[1:]]),
    ("event.unknown", 2, [GOOD[0], {**GOOD[1], "type": "novelty"}, *GOOD[1:]]),
    ("event.envelope", 1, change("agent_start", v="2")),
    ("event.envelope", 1, change("agent_start", id="r1.2")),
    ("event.envelope", 1, change("agent_start", ts="yesterday")),
    ("event.envelope", 1, change("agent_start", ts=None)),
    ("event.envelope", 1, [dict(reversed(GOOD[0].items())), *GOOD[1:]]),
    ("event.envelope", 7, change("thinking_update", id="r2.6.1")),
    ("event.payload", 3, without("message_start", 0, "role")),
    ("event.payload", 6, change("message_update", payload={"delta": 1})),
    ("event.payload", 4, without("message_end", 0, "text")),
    ("event.payload", LAST, change("agent_end", payload={"status": "fine"})),
    ("event.run_id", 6, change("message_update", payload={"run_id": "r2"})),
    ("event.run_id", 21, without("status", 0, "run_id")),
    ("event.seq", 1, change("agent_start", seq=0, id="r1.0")),
    ("event.seq", 5, change("message_start", 1, seq="5")),
    ("event.seq", 5, change("message_start", 1, seq=None)),
    ("event.seq", 5, without("message_start", 1, "seq", inside=None)),
    ("event.feature_order", 7, change("thinking_update", after_seq=5, id="r1.5.1")),
    ("event.feature_order", 8, change("thinking_update", 1, id="r1.6.3")),
    ("event.feature_order", 8, change("thinking_update", 1, id="r1.6.1")),
    ("event.feature_order", 7, change("thinking_update", id="r1.6.x")),
    ("run.start_missing", 1, GOOD[1:]),
    ("run.start_missing", 0, []),
    ("run.start_repeated", 2, Script().say("agent_start").say("agent_start").say("agent_end").events),
    ("run.end_missing", LAST - 1, GOOD[:-1]),
    ("run.after_end", LAST + 1, [*GOOD, GOOD[-1]]),
    ("run.after_end", LAST + 1, [*GOOD, {"type": "novelty", "payload": {}}]),
    ("turn.already_open", 3, renumbered(lambda s: s.say("turn_start", turn_id="1").say("turn_start", turn_id="2"))),
    ("turn.not_open", 2, renumbered(lambda s: s.say("turn_end", turn_id="1"))),
    ("turn.not_open", 2, renumbered(lambda s: s.deltas("1", "m1"))),
    ("turn.not_open", 2, renumbered(lambda s: s.say("tool_execution_start", turn_id="1", **T1))),
    ("turn.not_open", 2, renumbered(lambda s: s.say("tool_execution_update", turn_id="1", **T1, delta="x"))),
    ("turn.not_closed", 3, renumbered(lambda s: s.say("turn_start", turn_id="1"))),
    ("turn.id", 2, change("turn_start", payload={"turn_id": "one"})),
    ("turn.id", 2, change("turn_start", payload={"turn_id": "-1"})),
    ("turn.id", 2, change("turn_start", payload={"turn_id": "0"})),
    ("turn.id", 22, change("turn_start", 1, payload={"turn_id": "1"})),
    ("turn.id", 6, change("message_update", payload={"turn_id": "2"})),
    ("turn.id", 13, change("warning", payload={"turn_id": "2"})),
    ("turn.id", 20, change("turn_end", payload={"turn_id": "2"})),
    ("turn.id", 21, change("status", payload={"turn_id": "1"})),
    ("message.already_open", 4, turn(START, START, UPDATE, END)),
    ("message.not_open", 3, turn(UPDATE, START, UPDATE, END)),
    ("message.not_open", 6, turn(START, UPDATE, END, UPDATE)),
    ("message.not_open", 6, turn(START, UPDATE, END, END)),
    ("message.not_open", 3, renumbered(feature_in_a_turn_alone)),
    ("message.not_closed", 5, turn(START, UPDATE)),
    ("message.not_closed", 5, turn(START, UPDATE, TOOL, TOOL_END, END)),
    ("message.not_closed", 4, renumbered(lambda s: s.say("turn_start", turn_id="1").deltas("1", "m1"))),
    ("message.id", 6, change("message_update", payload=M1)),
    ("message.id", 11, change("message_end", 1, payload=M1)),
    ("message.id", 11, change("message_end", 1, payload={"role": "user"})),
    ("message.id", 8, change("thinking_update", 1, payload=M1)),
    ("message.text", 11, change("message_end", 1, payload={"text": "one \u2028two"})),
    ("message.text", 11, change("message_end", 1, payload={"text": "two\u2028one\U0001f600 "})),
    ("message.text", 11, change("message_update", payload={"delta": ""})),
    ("message.text", 27, change("message_end", 3, payload={"text": "x"})),
    ("tool.already_open", 4, turn(TOOL, ("tool_execution_start", T2), ("tool_execution_end", {**T2, "result": ""}))),
    ("tool.not_open", 3, turn(TOOL_UPDATE)),
    ("tool.not_open", 3, turn(TOOL_END)),
    ("tool.not_open", 5, turn(TOOL, TOOL_END, TOOL_UPDATE)),
    ("tool.not_closed", 4, turn(TOOL)),
    ("tool.not_closed", 4, turn(TOOL, START, UPDATE, END, TOOL_END)),
    ("tool.not_closed", 4, renumbered(lambda s: s.say("turn_start", turn_id="1").say("tool_execution_start", **T1))),
    ("tool.id", 14, change("tool_execution_update", payload={"tool_call_id": "t2"})),
    ("tool.id", 15, change("tool_execution_end", payload={"tool_call_id": "t2"})),
    ("tool.id", 15, change("tool_execution_end", payload={"tool_name": "bash"})),
]


@pytest.mark.parametrize(
    ("rule", "line", "events"), BROKEN, ids=[f"{n}-{rule}" for n, (rule, _, _) in enumerate(BROKEN)]
)
def test_a_broken_rule_is_named_with_its_line(rule: str, line: int, events: list[Any]) -> None:
    assert (line, rule) in [(v.line, v.rule) for v in check(events)]


def test_every_rule_is_broken_once() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(RULES)


@pytest.mark.parametrize("n", [index_of(kind) for kind in ("agent_start", "turn_start", "message_start", "status")])
def test_one_fault_is_reported_once(n: int) -> None:
    events = deepcopy(GOOD)
    events[n]["ts"] = "never"
    assert [(v.line, v.rule) for v in check(events)] == [(n + 1, "event.envelope")]


def test_a_fault_that_has_consequences_is_reported_once() -> None:
    assert [(v.line, v.rule) for v in check(GOOD[1:])] == [(1, "run.start_missing")]
    assert [(v.line, v.rule) for v in check(change("message_start", 1, seq="5"))] == [(5, "event.seq")]


def test_how_a_text_differs_is_said_without_quoting_it() -> None:
    said = [check(change("message_end", 1, payload={"text": text}))[0].detail for text in ("x", "y" * 14)]
    assert said == ["the deltas are 14 bytes, the text is 1", "the deltas are 14 bytes, the text is another"]


def test_a_violation_reads_as_a_sentence() -> None:
    [violation] = check(change("message_update", seq=9, id="r1.9"))[:1]
    assert str(violation) == "line 6: event.seq: 9 follows 5"


def test_lines_are_counted_as_the_caller_says() -> None:
    grammar = EventGrammar()
    assert grammar.feed(GOOD[0], 10) is None
    assert grammar.feed(GOOD[2], 20) == Violation(20, "event.seq", "3 follows 1")
    assert [v.line for v in grammar.finish()] == [20, 20]


# -- any two events out of order, any one missing, any one doubled


def first_line(events: list[Json]) -> int:
    return check(events)[0].line


def test_any_two_events_that_change_places_are_found_at_the_first() -> None:
    for a, b in combinations(range(LAST), 2):
        events = [*GOOD]
        events[a], events[b] = events[b], events[a]
        # What stands where the last feature event stood may look as if it had only not been asked for.
        late = GOOD[a]["type"] in FEATURE_EVENTS and GOOD[b].get("seq") == GOOD[a]["after_seq"] + 1
        assert first_line(events) == a + (2 if late else 1), (a, b)


@pytest.mark.parametrize("n", range(LAST))
def test_any_doubled_event_is_found_at_once(n: int) -> None:
    assert first_line([*GOOD[: n + 1], *GOOD[n:]]) == n + 2


@pytest.mark.parametrize("n", range(LAST))
def test_any_missing_event_is_found_at_the_next(n: int) -> None:
    if GOOD[n]["type"] in FEATURE_EVENTS and GOOD[n + 1]["type"] not in FEATURE_EVENTS:
        return  # a connection that did not ask for it looks the same
    assert first_line([*GOOD[:n], *GOOD[n + 1 :]]) == min(n + 1, LAST - 1)


# -- whatever is fed


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["1", "m1", "t1", "user"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
field_names = st.sampled_from(
    ["run_id", "turn_id", "message_id", "tool_call_id", "delta", "text", "text_bytes", "role"]
)
any_events = st.fixed_dictionaries(
    {"type": st.sampled_from([*EVENTS, *FEATURE_EVENTS]) | json_values},
    optional={
        "payload": st.dictionaries(field_names, json_values, max_size=5) | json_values,
        "seq": json_values,
        "after_seq": json_values,
        "id": json_values,
        "untraced": json_values,
    },
)


@given(st.lists(any_events | st.sampled_from(GOOD) | st.binary(max_size=8), max_size=12), st.booleans())
def test_nothing_raises_and_every_violation_names_a_rule(events: list[Any], lenient: bool) -> None:
    for violation in check(events, lenient=lenient):
        assert violation.rule in RULES
        assert len(violation.detail) < 600


def test_memory_does_not_grow_with_the_run() -> None:
    def feed(grammar: EventGrammar, first: int, last: int) -> None:
        for seq in range(first, last):
            event = Script().say("message_update", turn_id="1", message_id="m2", delta="x" * 100).events[0]
            assert grammar.feed(event | {"seq": seq, "id": f"r1.{seq}"}) is None

    grammar = EventGrammar()
    for event in Script().say("agent_start").user("1", "m1", "hello").deltas("1", "m2").events:
        grammar.feed(event)
    feed(grammar, 6, 100)
    tracemalloc.start()
    try:
        feed(grammar, 100, 5_000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 4096
