"""The table of transitions: nothing happens that is not in it, and nothing in it is out of reach."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple, get_args

import msgspec
import pytest

from nous.engine.inputs import AbortRequested, FollowUpModeSet, Input, RunStarted, SteeringModeSet, ToolsSet
from nous.engine.machine import RunMachine
from nous.engine.spec import EngineLimits
from nous.engine.transitions import AFTER_HOOK, TRANSITIONS, Phase, Transition
from nous.ports.model import TextDelta
from nous.protocol.entries import Compaction
from nous.protocol.grammar import EventGrammar
from nous.protocol.messages import Message
from tests.support.engine import Bench, make_spec, replay, tool_call

LIMITS = EngineLimits(max_model_calls=2, max_message_bytes=512, compact_at_tokens=25, max_retries=1)
TINY = make_spec(limits=LIMITS)
STRUCTURED = msgspec.structs.replace(TINY, output_schema={"type": "object"})
HOOKED = make_spec(
    limits=EngineLimits(max_model_calls=1, max_message_bytes=512, compact_at_tokens=25, max_retries=1),
    hooks=("input", "tool_call", "tool_result", "before_compact"),
)
OPENED = msgspec.structs.replace(HOOKED, hooks=("input", "run_start", "turn_start"))
GUARDED = msgspec.structs.replace(HOOKED, hooks=("before_compact",))


class Move(NamedTuple):
    """Something that can happen to a run that waits for ``needs``."""

    needs: str | None
    do: Callable[[Bench], Any]


MOVES = (
    Move("entry", Bench.store),
    Move("entry", Bench.fail_store),
    Move("call", lambda b: b.produce(TextDelta("some"))),
    Move("call", lambda b: b.produce(TextDelta("x" * 513))),
    Move("call", lambda b: b.answer(TextDelta("done"))),
    Move("call", lambda b: b.answer(tool_call("read"), tool_call("write", index=1))),
    Move("call", lambda b: b.answer(tool_call("nothing"))),
    Move("call", Bench.done),
    Move("call", lambda b: b.fail_model("provider_unavailable")),
    Move("call", lambda b: b.fail_model("context_overflow")),
    Move("call", lambda b: b.refuse_images("m1")),
    Move("plan", Bench.plan),
    Move("plan", lambda b: b.plan("deterministic")),
    Move("plan", Bench.refuse_plan),
    Move("entry", lambda b: b.store_compaction(100) if isinstance(b.waiting.entry, Compaction) else b.store()),
    Move("question", Bench.allow),
    Move("question", lambda b: b.allow(allow=False)),
    Move("hook", Bench.hook),
    Move("hook", lambda b: b.hook(block="not now")),
    Move("hook", lambda b: b.hook(handled=True)),
    Move("tool", lambda b: b.progress("...")),
    Move("tool", Bench.finish_tool),
    Move("output", Bench.check_output),
    Move("output", lambda b: b.check_output("$: not JSON")),
    Move(None, Bench.abort),
    Move(None, Bench.fire),
    Move("timer", Bench.retry),
    Move(None, lambda b: b.steer("stop that")),
    Move(None, lambda b: b.follow_up("and then")),
    Move(None, lambda b: b.give(SteeringModeSet("all"))),
    Move(None, lambda b: b.give(FollowUpModeSet("all"))),
    Move(None, lambda b: b.give(ToolsSet(("read", "write")))),
)


def outline(bench: Bench) -> tuple[object, ...]:
    """Return what decides how a run can go on, roughly: benches that agree in it need not all be followed."""
    machine = bench.machine
    return (
        machine.state,
        machine.run.is_structured,
        machine.run.aborting,
        machine.run.queues.count("steer") > 0,
        machine.run.queues.count("follow_up") > 0,
        machine.run.calls_in_turn,
        machine.run.turn_id in ("", "1"),
        (machine.compaction._trigger, machine.calls._has_overflowed, machine.run.is_compaction),
        machine.run.context_tokens >= TINY.limits.compact_at_tokens,
        sum(len(m.tool_calls) - (m.role == "tool_result") for m in bench.stored),
        tuple(c.name for c in bench.waiting.entry.tool_calls) if isinstance(bench.waiting.entry, Message) else (),
        bench.waiting.hook.hook if bench.waiting.hook is not None else "",
        machine.spec.hooks,
        machine.calls.retries._made,
    )


@pytest.fixture(scope="module")
def benches() -> list[Bench]:
    """Every way a run can go, to all outlines: a breadth-first search."""
    frontier = [Bench(spec) for spec in (TINY, STRUCTURED, HOOKED, OPENED, GUARDED)]
    for bench in frontier:
        bench.give(RunStarted("c1", "hello"))
    frontier += [Bench(TINY).compact(), Bench(HOOKED).compact()]
    found, seen = [*frontier], set(map(outline, frontier))
    while frontier:
        bench = frontier.pop(0)
        for move in MOVES:
            if move.needs is not None and getattr(bench.waiting, move.needs) is None:
                continue
            after = replay(bench.machine.spec, bench.inputs)
            move.do(after)
            found.append(after)
            if outline(after) not in seen:
                seen.add(outline(after))
                frontier.append(after)
    return found


def test_every_edge_of_the_table_is_passed_and_no_other(benches: list[Bench]) -> None:
    drawn = {(row.state, row.input, to) for row in TRANSITIONS.values() for to in row.to}
    assert set().union(*(b.edges for b in benches)) == drawn


def test_every_hook_leads_where_its_table_says_and_nowhere_else(benches: list[Bench]) -> None:
    drawn = {(then, to) for then, after in AFTER_HOOK.items() for to in after}
    assert set().union(*(b.hook_edges for b in benches)) == drawn


@pytest.mark.full
def test_every_way_keeps_the_grammar_and_can_be_brought_to_its_end(benches: list[Bench]) -> None:
    for bench in benches:
        grammar = EventGrammar()
        whole = replay(bench.machine.spec, bench.inputs).run_to_end()
        violations = [grammar.feed(line) for line in whole.lines()]
        assert set(violations) == {None}
        assert grammar.finish() == []


@pytest.mark.full
def test_every_state_but_the_first_and_the_last_can_be_aborted(benches: list[Bench]) -> None:
    active = {b.state for b in benches if not b.machine.ended}
    assert active == set(Phase) - {Phase.READY, Phase.ENDED}
    for bench in benches:
        after = replay(bench.machine.spec, bench.inputs).abort()
        if not after.machine.ended:
            after.fire()
        assert after.machine.ended


@pytest.mark.parametrize("row", TRANSITIONS.values(), ids=lambda row: f"{row.state.value}-{row.input.__name__}")
def test_every_row_has_a_handler(row: Transition) -> None:
    assert callable(attrgetter(row.handler)(RunMachine(make_spec())))


def test_every_input_has_a_row() -> None:
    assert {kind for _, kind in TRANSITIONS} == set(get_args(Input))


def test_nothing_happens_before_the_prompt_or_after_the_end() -> None:
    early = Bench()
    early.steer("hello").abort().fire()
    assert (early.state, early.events, early.accepted) == (Phase.READY, [], [])
    late = Bench().start().say()
    count = len(late.events)
    late.steer("hello").abort().fire().give(RunStarted("c2", "again"), AbortRequested("a2"))
    assert (late.state, len(late.events)) == (Phase.ENDED, count)
