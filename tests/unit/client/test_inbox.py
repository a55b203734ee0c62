from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.client.errors import ClientClosedError
from nous.client.inbox import MAX_ENDED, EventStream, Inbox
from nous.client.lines import Event, decode_line
from tests.unit.client.links import event_line

pytestmark = pytest.mark.anyio


def make_event(run_id: str, seq: int, kind: str = "message_update") -> Event:
    found = decode_line(event_line(run_id, seq, kind).rstrip(b"\n"))
    assert isinstance(found, Event)
    return found


RUNS = ["", "a", "b"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.sampled_from(RUNS), max_size=4)),
        st.tuples(st.just("take"), st.sampled_from([None, *RUNS])),
    )
)


@given(STEPS)
def test_every_event_is_given_out_once_and_in_order(steps: list[tuple[str, list[str] | str | None]]) -> None:
    """Whatever is put and taken in between: a run's events keep their order, all events that of their arrival."""
    inbox = Inbox()
    waiting: dict[str, list[int]] = defaultdict(list)
    count = 0
    for what, value in steps:
        if what == "put":
            assert isinstance(value, list)
            numbers = range(count + 1, count + 1 + len(value))
            inbox.put([make_event(run_id, seq) for run_id, seq in zip(value, numbers, strict=True)])
            for run_id, seq in zip(value, numbers, strict=True):
                waiting[run_id].append(seq)
            count += len(value)
        else:
            assert not isinstance(value, list)
            event = inbox.take(value)
            candidates = [seqs[0] for run_id, seqs in waiting.items() if seqs and value in (None, run_id)]
            if event is None:
                assert not candidates
            else:
                assert event.seq == min(candidates)
                waiting[event.run_id].remove(event.seq)
        left = [make_event(run_id, seq) for run_id, seqs in waiting.items() for seq in seqs]
        assert inbox.queued_bytes == sum(len(event.line) for event in left)


async def test_a_runs_stream_ends_with_its_agent_end_and_once_more_at_once() -> None:
    inbox = Inbox()
    inbox.put([make_event("a", 1, "agent_start"), make_event("b", 1), make_event("a", 2, "agent_end")])
    assert [event.type async for event in EventStream(inbox, "a")] == ["agent_start", "agent_end"]
    assert [event.type async for event in EventStream(inbox, "a")] == []
    event = inbox.take(None)
    assert event is not None
    assert event.run_id == "b"


async def test_what_an_iterator_left_is_there_for_the_next() -> None:
    inbox = Inbox()
    inbox.put([make_event("a", seq) for seq in (1, 2, 3)])
    inbox.end(None)
    async for event in EventStream(inbox, "a"):
        assert event.seq == 1
        break
    assert [event.seq async for event in EventStream(inbox, "a")] == [2, 3]


async def test_an_end_with_an_error_comes_behind_the_events() -> None:
    inbox = Inbox()
    inbox.put([make_event("a", 1)])
    inbox.end(ClientClosedError())
    inbox.end(None)
    stream = EventStream(inbox, "a")
    assert (await anext(stream)).seq == 1
    with pytest.raises(ClientClosedError):
        await anext(stream)


async def test_what_comes_after_the_end_is_let_go() -> None:
    inbox = Inbox()
    inbox.end(None)
    inbox.put([make_event("a", 1)])
    assert inbox.queued_bytes == 0
    assert [event async for event in EventStream(inbox, None)] == []


def test_what_is_remembered_of_ended_runs_is_bounded() -> None:
    inbox = Inbox()
    for number in range(MAX_ENDED + 10):
        inbox.put([make_event(f"r{number}", 1, "agent_end")])
        inbox.take(f"r{number}")
    assert len(inbox._ended_runs) == MAX_ENDED
