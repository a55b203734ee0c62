"""Whatever order things come up in, they are stepped in the recorded one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.engine.inputs import (
    AbortRequested,
    CompactionPlanned,
    CompactionRefused,
    CompactionStarted,
    EntryFailed,
    EntryStored,
    FollowedUp,
    Input,
    ModelDone,
    ModelProduced,
    PolicyAnswered,
    RunStarted,
    Stamp,
    Steered,
    SteeringModeSet,
    TimerFired,
    ToolDone,
    ToolProgressed,
    ToolsSet,
)
from nous.errors import NousError
from nous.ports.model import TextDelta
from nous.replay.sequencer import Sequencer, identity, is_command, subject
from nous.runtime.seams import Admitted
from nous.system.clock import SystemClock

PROMPT = RunStarted("c1", "hello")
STORED = EntryStored("m1")
DELTA = ModelProduced(1, [TextDelta("a")])
DONE = ModelDone(1)
STEER = Steered("s1", "wait")
ABORT = AbortRequested("a1")
ASKED = {("call", 1), ("entry_id", "m1"), ("tool_call_id", "t1")}


def recorded(*items: Input) -> list[Admitted]:
    return [Admitted(Stamp(f"t{n}", n), item) for n, item in enumerate(items)]


def make(*items: Input, comes_by_itself: Callable[[Input], bool] = lambda item: False) -> Sequencer:
    return Sequencer(recorded(*items), ASKED, comes_by_itself, SystemClock())


def items_of(admitted: Any) -> list[Input]:
    return [each.item for each in admitted]


INPUTS: list[Input] = [
    PROMPT,
    STORED,
    DELTA,
    ModelProduced(1, [TextDelta("b")]),
    STEER,
    FollowedUp("f1", "and"),
    SteeringModeSet("all"),
    ToolsSet(("read",)),
    DONE,
    PolicyAnswered("t1", allow=True),
    ToolProgressed("t1", "x"),
    ToolDone("t1", "y", "ok", truncated=False),
    TimerFired("abort_grace"),
    ABORT,
]


@given(
    st.lists(st.sampled_from(INPUTS), max_size=12).flatmap(
        lambda items: st.tuples(st.just(items), st.permutations(items))
    )
)
def test_any_order_of_arrival_gives_the_recorded_order(given_items: tuple[list[Input], list[Input]]) -> None:
    items, arrivals = given_items
    sequencer = make(*items)
    out: list[Admitted] = []
    for count, arrival in enumerate(arrivals, 1):
        out += sequencer.admit(arrival)
        # Never more than has come up.
        assert len(out) <= count
    assert out == recorded(*items)


@given(st.permutations(INPUTS), st.data())
def test_what_comes_by_itself_is_never_waited_for(items: list[Input], data: st.DataObject) -> None:
    arrivals = data.draw(st.permutations([item for item in items if not is_command(item)]))
    sequencer = make(*items, comes_by_itself=is_command)
    out = [admitted for arrival in arrivals for admitted in sequencer.admit(arrival)]
    assert out == recorded(*items)


def test_what_is_stepped_is_what_was_recorded_not_what_came() -> None:
    sequencer = make(DELTA, ToolDone("t1", "recorded", "ok", truncated=False))
    [admitted] = sequencer.admit(ModelProduced(1, [TextDelta("another")]))
    assert admitted == Admitted(Stamp("t0", 0), DELTA)
    [admitted] = sequencer.admit(ToolDone("t1", "aborted", "error", truncated=False))
    assert admitted.item == ToolDone("t1", "recorded", "ok", truncated=False)


def test_an_early_one_is_held_until_its_turn() -> None:
    sequencer = make(PROMPT, STORED, STEER, DELTA)
    assert sequencer.admit(STEER) == []
    assert items_of(sequencer.admit(PROMPT)) == [PROMPT]
    assert items_of(sequencer.admit(STORED)) == [STORED, STEER]


@pytest.mark.parametrize(
    "late", [TimerFired("abort_grace"), ModelDone(1), EntryStored("m1"), ToolDone("t1", "", "error", truncated=False)]
)
def test_news_of_what_was_asked_for_but_never_came_is_dropped(late: Input) -> None:
    sequencer = make(PROMPT, DELTA)
    assert items_of(sequencer.admit(PROMPT)) == [PROMPT]
    assert list(sequencer.admit(late)) == []
    assert items_of(sequencer.admit(DELTA)) == [DELTA]


@pytest.mark.parametrize("queued", [Steered("x", "new"), FollowedUp("x", "new"), Steered("s1", "another text")])
def test_a_queued_input_that_was_not_recorded_is_refused(queued: Input) -> None:
    sequencer = make(PROMPT, STEER)
    with pytest.raises(NousError) as caught:
        sequencer.admit(queued)
    assert (caught.value.code, caught.value.cause) == ("command_rejected", "this run replays a recording")
    assert items_of(sequencer.admit(PROMPT)) == [PROMPT]


@pytest.mark.parametrize("stranger", [EntryStored("other"), ModelDone(9), AbortRequested("", "signal"), PROMPT])
def test_behind_anything_else_that_was_not_recorded_all_passes_as_it_comes(stranger: Input) -> None:
    sequencer = make(STORED, DELTA)
    assert list(sequencer.admit(DELTA)) == []
    assert items_of(sequencer.admit(stranger)) == [DELTA, stranger]
    live = ModelProduced(1, [TextDelta("live")])
    [admitted] = sequencer.admit(live)
    assert admitted.item is live
    assert admitted.stamp.ts.endswith("Z")
    assert items_of(sequencer.admit(Steered("x", "new"))) == [Steered("x", "new")]


def test_the_same_is_what_concerns_the_same() -> None:
    assert identity(RunStarted("c1", "a")) == identity(RunStarted("c2", "b"))
    assert identity(CompactionStarted("c1", "")) == identity(CompactionStarted("c2", "x"))
    assert identity(DELTA) == identity(ModelProduced(1, []))
    assert identity(DELTA) != identity(ModelProduced(2, []))
    assert identity(DELTA) != identity(DONE)
    assert identity(STORED) != identity(EntryFailed("m1", "io_failure"))
    planned = CompactionPlanned(entry_id="k", first_kept_entry_id="", tokens_before=1, by="model", fallback="")
    assert identity(planned) == identity(CompactionRefused("k"))
    assert identity(STEER) != identity(Steered("s2", "wait"))


def test_what_an_input_is_about() -> None:
    assert subject(DELTA) == ("call", 1)
    assert subject(STORED) == ("entry_id", "m1")
    assert subject(PolicyAnswered("t1", allow=True)) == ("tool_call_id", "t1")
    assert [subject(item) for item in (PROMPT, STEER, ABORT, TimerFired("abort_grace"))] == [None] * 4
    assert [item for item in INPUTS if is_command(item)] == [
        STEER,
        FollowedUp("f1", "and"),
        SteeringModeSet("all"),
        ToolsSet(("read",)),
        ABORT,
    ]
