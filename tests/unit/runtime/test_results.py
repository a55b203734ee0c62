"""Events as v1's first clients know them."""

from __future__ import annotations

from nous.protocol.events import AgentStart, MessageUpdate, TurnStart, event_line
from nous.runtime.results import flatten_event

TS = b"2026-11-21T10:00:00.000Z"


def test_the_payloads_fields_stand_at_the_top() -> None:
    update = MessageUpdate(run_id="r", turn_id="3", message_id="m", delta="\u2028")
    assert flatten_event(event_line(b"r", 7, TS, update)) == {
        "type": "message_update",
        "ts": TS.decode(),
        "turn": 3,
        "run_id": "r",
        "turn_id": "3",
        "message_id": "m",
        "delta": "\u2028",
    }


def test_outside_of_a_turn_it_is_zero() -> None:
    assert flatten_event(event_line(b"r", 1, TS, AgentStart(run_id="r")))["turn"] == 0


def test_what_a_payload_calls_its_fields_hides_nothing() -> None:
    start = TurnStart(run_id="r", turn_id="1", turn_kind="prompt", command_id="c")
    flat = flatten_event(event_line(b"r", 1, TS, start))
    assert (flat["type"], flat["turn_kind"]) == ("turn_start", "prompt")
