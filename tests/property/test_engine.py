"""Any sequence of inputs, timely, late, doubled or about something else: the promises that a run keeps.

The bench itself asserts at each step that the machine follows its table, ignores late news, and has asked for at most
one thing of each kind.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from nous.engine.effects import AppendCompaction, AppendEntry
from nous.engine.inputs import FollowedUp, Input, ModelProduced, Stamp, Steered
from nous.engine.record import effect_line, input_line, read_input
from nous.engine.spec import RunSpec
from nous.errors import WIRE_CODES
from nous.ports.model import ModelItem, TextDelta, ThinkingDelta, ToolCallDelta
from nous.protocol.grammar import EventGrammar
from nous.protocol.messages import ToolResultBlock
from tests.support.engine import Bench, Json, make_spec, replay
from tests.support.engine_moves import Move, Played, batches, firsts, modes, play, plays, runs, specs


def whole(run: Played) -> Bench:
    bench = run.bench.run_to_end()
    event(f"ended {bench.machine.status}")
    event(f"turn {bench.machine.run.turn_id}")
    return bench


# -- what it promises


@given(runs)
def test_events_keep_the_grammar(run: Played) -> None:
    grammar = EventGrammar()
    assert [v for line in run.bench.lines() if (v := grammar.feed(line))] == []
    before = len(run.bench.events)
    rest = whole(run).lines()[before:]
    assert [v for line in rest if (v := grammar.feed(line))] == []
    assert grammar.finish() == []


@given(runs)
def test_the_end_says_how_it_ended(run: Played) -> None:
    bench = whole(run)
    end = bench.payload("agent_end")
    assert end["status"] == bench.machine.status
    assert (end["status"] == "failed") == (bench.machine.failure is not None) == bool(bench.payloads("error"))
    assert all(e["code"] in WIRE_CODES for e in bench.payloads("error"))
    assert bench.decoded()[-1]["type"] == "agent_end"


@given(runs)
def test_the_same_inputs_give_the_same_bytes(run: Played) -> None:
    bench = whole(run)
    again = replay(run.spec, bench.inputs)
    assert again.lines() == bench.lines()
    assert effect_lines(again) == effect_lines(bench)


@given(runs)
def test_inputs_read_back_from_a_trace_give_the_same_bytes(run: Played) -> None:
    bench = whole(run)
    read = [read_input(input_line(n, 0, stamp, item))[1:] for n, (stamp, item) in enumerate(bench.inputs)]
    assert read == bench.inputs
    assert replay(run.spec, read).lines() == bench.lines()


@given(runs, st.data())
def test_how_items_are_batched_makes_no_difference(run: Played, data: st.DataObject) -> None:
    bench = whole(run)
    cut: list[tuple[Stamp, Input]] = []
    for stamp, item in bench.inputs:
        pieces: list[Input] = [item]
        if isinstance(item, ModelProduced):
            places = data.draw(st.lists(st.integers(0, len(item.items)), max_size=4).map(sorted))
            bounds = pairwise([0, *places, len(item.items)])
            pieces = [ModelProduced(item.call, item.items[a:b]) for a, b in bounds]
        cut += [(stamp, piece) for piece in pieces]
    other = replay(run.spec, cut)
    assert other.lines() == bench.lines()
    assert effect_lines(other) == effect_lines(bench)


def effect_lines(bench: Bench) -> list[bytes]:
    return [effect_line(n, effect) for n, effect in enumerate(bench.effects)]


def command_ids_of(said: dict[str, Any]) -> list[str]:
    return list(said.get("command_ids", [said["command_id"]]))


@given(runs)
def test_no_steer_or_follow_up_is_lost(run: Played) -> None:
    bench = whole(run)
    began: list[tuple[str, str]] = []
    for line in bench.decoded():
        said = line["payload"]
        if line["type"] == "turn_start" and said["turn_kind"] != "prompt":
            began += [(said["turn_kind"], command_id) for command_id in command_ids_of(said)]
        elif said.get("code") == "input_handled":
            # An extension has answered it; the status says what it was.
            began += [(said["reason"], command_id) for command_id in command_ids_of(said)]
    gone = [(d["kind"], d["command_id"]) for d in bench.payload("agent_end")["discarded"]]
    for kind, cls in (("steer", Steered), ("follow_up", FollowedUp)):
        given_ids = [item.command_id for item in bench.accepted if isinstance(item, cls)]
        assert [command_id for k, command_id in began + gone if k == kind] == given_ids
    is_plain = not (bench.machine.run.is_compaction or bench.machine.run.is_structured)
    if bench.machine.status == "completed" and is_plain:
        assert gone == []


@given(runs)
def test_what_was_queued_is_what_the_turns_say(run: Played) -> None:
    assume("input" not in run.spec.hooks)  # an extension may change it
    bench = whole(run)
    queues = {
        "steer": [i.text for i in bench.accepted if isinstance(i, Steered)],
        "follow_up": [i.text for i in bench.accepted if isinstance(i, FollowedUp)],
    }
    asked = [e.message for e in bench.effects if isinstance(e, AppendEntry) and e.message.role == "user"]
    for turn, message in zip(bench.payloads("turn_start")[1:], asked[1:], strict=True):
        queue = queues[turn["turn_kind"]]
        count = len(turn.get("command_ids", [""]))
        assert message.text == "\n".join(queue[:count])
        del queue[:count]


@given(runs)
def test_every_stored_tool_call_has_its_stored_result_unless_the_run_was_cut_short(run: Played) -> None:
    bench = whole(run)
    calls = [c.id for m in bench.stored for c in m.tool_calls]
    results = [b.tool_call_id for m in bench.stored for b in m.blocks if isinstance(b, ToolResultBlock)]
    assert len(set(calls)) == len(calls)
    assert results == calls[: len(results)]
    if bench.machine.status in ("completed", "max_steps"):
        assert results == calls


@given(runs)
def test_the_entries_form_one_path_to_the_leaf(run: Played) -> None:
    bench = whole(run)
    parents = ["", *[m.id for m in bench.stored]]
    assert [m.parent_id for m in bench.stored] == parents[:-1]
    assert bench.payload("agent_end")["leaf_id"] == parents[-1]
    kept = [e.entry for e in bench.effects if isinstance(e, AppendCompaction)]
    assert {entry.parent_id for entry in kept} <= set(parents)
    announced = [
        e["message_id"]
        for e in bench.payloads("message_end", "tool_execution_end")
        if e.get("stop_reason") not in ("error", "aborted") and "message_id" in e
    ]
    assert announced == parents[1:]


@given(runs)
def test_a_compaction_that_began_ends_unless_the_run_was_cut_short(run: Played) -> None:
    bench = whole(run)
    codes = [status["code"] for status in bench.payloads("status") if status["code"] != "input_handled"]
    pairs, rest = divmod(len(codes), 2)
    assert codes == ["compaction_start", "compaction_end"] * pairs + ["compaction_start"] * rest
    if bench.machine.status in ("completed", "max_steps"):
        assert rest == 0
    event("compacted" if codes else "not compacted")


@given(runs)
def test_no_more_model_calls_than_the_limit_in_a_turn(run: Played) -> None:
    bench = whole(run)
    limit, made = run.spec.limits.max_model_calls, 0
    for kind in bench.types():
        made = 0 if kind == "turn_start" else made + (kind == "message_start")
        assert made <= limit + 1  # and the user's own message
    last = bench.payloads("warning")[-1:]
    hit = [w["limit"] for w in last if w["code"] == "tool_loop_limit_exceeded"]
    assert hit == ([limit] if bench.machine.status == "max_steps" else [])


@given(specs, firsts, plays, st.lists(batches, min_size=1, max_size=6))
def test_an_elided_batch_can_be_made_again_from_its_events(
    spec: RunSpec, first: Input, steps: list[Move], said: list[list[ModelItem]]
) -> None:
    bench = play(spec, first, steps).bench
    for batch in said:
        while bench.waiting.call is None and not bench.machine.ended:
            bench.go_on()
        if bench.machine.ended:
            return
        call = bench.waiting.call
        assert call is not None
        elided = bench.machine.elides(batch)
        effects = len(bench.effects)
        again = replay(spec, bench.inputs)
        events = bench.give(ModelProduced(call, batch))
        if not elided:
            continue
        event("elided")
        assert len(bench.effects) == effects
        decoded: list[Json] = [msgspec.json.decode(e.line) for e in events]
        assert [(e["type"], e["payload"]["delta"]) for e in decoded] == [
            ("message_update", item.text) for item in batch if isinstance(item, TextDelta)
        ]
        assert len(decoded) == len(batch)
        for e in decoded:
            again.step(Stamp(e["ts"], 0), ModelProduced(call, [TextDelta(e["payload"]["delta"])]))
        assert again.lines() == bench.lines()


# -- nothing is too long for a line

MAX_EVENT_BYTES = 1024 * 1024
characters = st.sampled_from(["\x01", '"', "a", "\u00e9", "\u2028", "\U0001f600"])
delta_sizes = st.sampled_from([1, 128 * 1024])
big_sizes = st.sampled_from([1, 256 * 1024, 300 * 1024, 1 << 21])


def of_bytes(character: str, size: int) -> str:
    return character * max(1, size // len(character.encode()))


deltas = st.builds(of_bytes, characters, delta_sizes)
big_texts = st.builds(of_bytes, characters, big_sizes)


@settings(max_examples=30)
@given(deltas, deltas, big_texts, big_texts, st.lists(big_texts, max_size=4), st.data())
def test_no_event_line_is_too_long(
    delta: str, name: str, result: str, steer: str, more: list[str], data: st.DataObject
) -> None:
    bench = Bench(make_spec(steering_mode=data.draw(modes)))
    bench.start(steer)
    arguments = msgspec.json.encode({"text": result}).decode()
    bench.produce(TextDelta(delta), ThinkingDelta(delta), *[TextDelta(delta)] * 3)
    bench.produce(ToolCallDelta(index=0, id="t0", name="read", arguments=arguments[: len(delta)]))
    bench.produce(ToolCallDelta(index=0, arguments=arguments[len(delta) :][:100]))
    bench.produce(ToolCallDelta(index=1, id="\x01" * 128, name=name, arguments=delta))
    for start in range(0, len(arguments), 20_000):
        piece = ToolCallDelta(index=2, id="t2", name="read", arguments=arguments[start : start + 20_000])
        bench.produce(piece)
    bench.answer(TextDelta(delta), finish="tool_use").store()
    while bench.waiting.call is None:
        if bench.waiting.question is not None:
            bench.allow(allow=data.draw(st.booleans()), reason=result)
        elif bench.waiting.tool is not None:
            bench.progress(of_bytes(delta[0], 64 * 1024)).finish_tool(result)
        else:
            bench.store()
    for n, text in enumerate(more):
        bench.steer(text, f"s{n}").follow_up(text, f"f{n}")
    bench.fail_model("provider_error", result)
    assert bench.machine.ended
    assert max(len(line) for line in bench.lines()) <= MAX_EVENT_BYTES
    grammar = EventGrammar()
    assert [v for line in bench.lines() if (v := grammar.feed(line))] == []
