"""The outbox: whole lines in order, at once while the peer keeps up, bounded waiting when it does not."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from nous.runtime.outbox import Outbox
from nous.transport.memory import memory_pair
from tests.support.home import bounded

pytestmark = pytest.mark.anyio

CAPACITY = 64


async def test_a_line_is_with_a_peer_that_keeps_up_at_once() -> None:
    mine, theirs = memory_pair(CAPACITY)
    outbox = Outbox(theirs)
    outbox.put(b"one\n")
    outbox.put(b"two\n")
    assert outbox.queued_bytes == 0
    assert await mine.receive() == b"one\ntwo\n"


async def test_what_does_not_fit_waits_and_order_is_kept() -> None:
    mine, theirs = memory_pair(CAPACITY)
    outbox = Outbox(theirs)
    lines = [b"%d" % n * 30 + b"\n" for n in range(10)]
    for line in lines:
        outbox.put(line)
    assert outbox.queued_bytes == sum(map(len, lines)) - CAPACITY
    with bounded():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outbox.run)
            heard = b""
            while len(heard) < sum(map(len, lines)):
                heard += await mine.receive()
            assert heard == b"".join(lines)
            await outbox.room(0)
            assert outbox.queued_bytes == 0
            outbox.close()


async def test_room_is_there_when_enough_was_taken() -> None:
    mine, theirs = memory_pair(CAPACITY)
    outbox = Outbox(theirs)
    outbox.put(b"x" * 3 * CAPACITY)
    there = anyio.Event()

    async def wait() -> None:
        await outbox.room(0)
        there.set()

    with bounded():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outbox.run)
            tasks.start_soon(wait)
            for _ in range(10):
                await checkpoint()
            assert not there.is_set()
            heard = 0
            while heard < 3 * CAPACITY:
                heard += len(await mine.receive())
            await there.wait()
            outbox.close()


async def test_a_peer_that_is_gone_costs_nothing_more() -> None:
    mine, theirs = memory_pair(CAPACITY)
    outbox = Outbox(theirs)
    outbox.put(b"x" * 3 * CAPACITY)
    with bounded():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outbox.run)
            await mine.aclose()
            await outbox.room(0)
        assert outbox.broken
        outbox.put(b"more\n")
        assert outbox.queued_bytes == 0


async def test_dropping_lets_go_of_who_waits_for_room() -> None:
    _, theirs = memory_pair(CAPACITY)
    outbox = Outbox(theirs)
    outbox.put(b"x" * 3 * CAPACITY)
    with bounded():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outbox.room, 0)
            await checkpoint()
            outbox.drop()
    assert (outbox.broken, outbox.queued_bytes) == (True, 0)


@given(st.lists(st.binary(min_size=1, max_size=3 * CAPACITY), max_size=20), st.integers(1, 3 * CAPACITY))
def test_any_lines_through_any_pipe_arrive_whole(lines: list[bytes], capacity: int) -> None:
    async def go() -> bytes:
        mine, theirs = memory_pair(capacity)
        outbox = Outbox(theirs)
        heard = b""
        with bounded():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(outbox.run)
                for line in lines:
                    outbox.put(line)
                while len(heard) < sum(map(len, lines)):
                    heard += await mine.receive()
                outbox.close()
        return heard

    assert anyio.run(go) == b"".join(lines)
