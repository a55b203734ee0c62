"""Answers in the order of their commands, and those that wait for no other."""

from __future__ import annotations

import anyio
import pytest

from nous.runtime.answer_order import AnswerOrder
from nous.runtime.outbox import Outbox
from nous.transport.memory import MemoryEndpoint, memory_pair

pytestmark = pytest.mark.anyio


def make() -> tuple[AnswerOrder, MemoryEndpoint]:
    mine, theirs = memory_pair()
    return AnswerOrder(Outbox(theirs)), mine


async def test_answers_wait_for_those_before_them() -> None:
    order, peer = make()
    first, second, third = (order.place(in_order=True) for _ in range(3))
    third.put(b"3")
    second.put(b"2")
    assert order.held_bytes == 2
    first.put(b"1")
    assert order.held_bytes == 0
    assert await peer.receive() == b"123"
    order.place(in_order=True).put(b"4")
    assert await peer.receive() == b"4"


async def test_an_answer_out_of_order_waits_for_none() -> None:
    order, peer = make()
    waiting = order.place(in_order=True)
    free = order.place(in_order=False)
    with anyio.fail_after(60):
        await free.until_next()
    free.put(b"free")
    assert await peer.receive() == b"free"
    waiting.put(b"waited")
    assert await peer.receive() == b"waited"


async def test_a_place_is_next_once_all_before_it_are_answered() -> None:
    order, _ = make()
    places = [order.place(in_order=True) for _ in range(3)]
    reached: list[int] = []

    async def wait(number: int) -> None:
        await places[number].until_next()
        reached.append(number)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in (2, 1, 0):
                tasks.start_soon(wait, number)
            await anyio.wait_all_tasks_blocked()
            assert reached == [0]
            places[1].put(b"b")
            await anyio.wait_all_tasks_blocked()
            assert reached == [0]
            places[0].put(b"a")
            await anyio.wait_all_tasks_blocked()
            assert reached == [0, 2]
            places[2].put(b"c")
            tasks.cancel_scope.cancel()
