"""The grammar where less is known: streams of which a connection asked for a part, runs of other implementations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from nous.protocol.events import FEATURE_EVENTS
from nous.protocol.grammar import EventGrammar
from tests.support.event_script import Json, Script, good_run

GOOD = good_run()
PLAIN = [event for event in GOOD if event["type"] not in FEATURE_EVENTS]


def rules(events: Iterable[Json], **options: bool) -> list[str]:
    grammar = EventGrammar(**options)
    found = [violation for event in events if (violation := grammar.feed(event)) is not None]
    return [violation.rule for violation in found + grammar.finish()]


# -- a connection that asked only for a part


def test_a_filtered_stream_may_lack_feature_events_but_not_repeat_them() -> None:
    thoughts = [event for event in GOOD if event["type"] != "tool_arguments_update"]
    arguments = [event for event in GOOD if event["type"] != "thinking_update"]
    streams = (thoughts, arguments, PLAIN)
    assert [rules(stream) for stream in streams] == [[], ["event.feature_order"], []]
    assert [rules(stream, filtered=True) for stream in streams] == [[], [], []]
    n = next(n for n, event in enumerate(GOOD) if event["type"] == "thinking_update")
    assert rules([*GOOD[: n + 1], *GOOD[n:]], filtered=True) == ["event.feature_order"]


# -- other implementations of v1

RUN = (
    "agent_start",
    "turn_start",
    "message_start",
    "message_update",
    "message_end",
    "tool_execution_start",
    "tool_execution_update",
    "tool_execution_end",
    "status",
    "turn_end",
    "agent_end",
)
MESSAGE, TOOL = RUN[2:5], RUN[5:8]


def bare(*kinds: str) -> list[Json]:
    return [{"type": kind, "payload": {}} for kind in kinds]


def in_turn(*kinds: str) -> list[str]:
    return ["agent_start", "turn_start", *kinds, "turn_end", "agent_end"]


def test_a_bare_run_passes_only_leniently() -> None:
    assert rules(bare(*RUN), lenient=True) == []
    assert rules(bare(*RUN)) != []


def test_flat_events_pass() -> None:
    flat: list[Json] = [{"type": event["type"], "turn": 1, **event["payload"]} for event in GOOD]
    assert rules(flat, lenient=True) == []
    assert rules([{"type": kind} for kind in RUN], lenient=True) == []
    assert set(rules(flat)) == {"event.malformed", "run.start_missing", "run.end_missing"}


def test_a_tool_may_run_inside_an_open_message() -> None:
    inside = in_turn("message_start", *TOOL, "message_update", *TOOL, "message_end")
    assert rules(bare(*inside), lenient=True) == []


def test_types_of_others_are_passed_over() -> None:
    assert rules(bare("agent_start", "novelty", "turn_start", "turn_end", "agent_end"), lenient=True) == []


@pytest.mark.parametrize(
    ("rule", "kinds"),
    [
        ("run.start_missing", RUN[1:]),
        ("run.end_missing", RUN[:-1]),
        ("run.after_end", [*RUN, "status"]),
        ("run.after_end", [*RUN, "novelty"]),
        ("run.start_repeated", ["agent_start", *RUN]),
        ("turn.already_open", in_turn("turn_start")),
        ("turn.not_open", ["agent_start", "turn_end", "agent_end"]),
        ("turn.not_open", ["agent_start", *MESSAGE, "agent_end"]),
        ("turn.not_open", ["agent_start", *TOOL, "agent_end"]),
        ("turn.not_closed", ["agent_start", "turn_start", "agent_end"]),
        ("message.not_open", in_turn("message_update")),
        ("message.not_open", in_turn(*MESSAGE, "message_end")),
        ("message.not_closed", in_turn("message_start")),
        ("message.already_open", in_turn("message_start", *MESSAGE)),
        ("tool.not_open", in_turn("tool_execution_update")),
        ("tool.not_open", in_turn("tool_execution_end")),
        ("tool.not_closed", in_turn("tool_execution_start")),
        ("tool.not_closed", in_turn("message_start", "tool_execution_start", "message_end", "tool_execution_end")),
        ("tool.not_closed", in_turn("tool_execution_start", *MESSAGE, "tool_execution_end")),
        ("tool.already_open", in_turn("tool_execution_start", *TOOL)),
    ],
)
def test_what_holds_for_every_implementation(rule: str, kinds: Iterable[str]) -> None:
    assert rule in rules(bare(*kinds), lenient=True)


def changed(kind: str, envelope: Json, **payload: Any) -> list[Json]:
    """Return the good run with fields of the last event of a type replaced."""
    events = [*GOOD]
    n = max(n for n, event in enumerate(events) if event["type"] == kind)
    events[n] = events[n] | envelope | {"payload": events[n]["payload"] | payload}
    return events


@pytest.mark.parametrize(
    ("rule", "events"),
    [
        ("event.malformed", [GOOD[0], {"type": 1}, *GOOD[1:]]),
        ("event.payload", changed("message_update", {}, delta=1)),
        ("event.run_id", changed("message_update", {}, run_id="r2")),
        ("event.seq", changed("message_start", {"seq": 7})),
        ("event.feature_order", changed("thinking_update", {"after_seq": 3})),
        ("turn.id", changed("turn_end", {}, turn_id="1")),
        ("turn.id", changed("turn_start", {}, turn_id="two")),
        ("message.id", changed("message_update", {}, message_id="m1")),
        ("message.text", changed("message_update", {}, delta="other")),
        ("tool.id", changed("tool_execution_end", {}, tool_call_id="t1")),
    ],
)
def test_what_is_there_is_checked(rule: str, events: list[Json]) -> None:
    assert rule in rules(events, lenient=True)


def test_turn_ids_need_not_grow() -> None:
    script = Script().say("agent_start")
    for turn_id in ("0", "0"):
        script.say("turn_start", turn_id=turn_id).say("turn_end", turn_id=turn_id)
    assert rules(script.say("agent_end").events, lenient=True) == []
