"""Changes take turns in the order they were read, whatever each of them waits for."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from nous.runtime.order import Order
from tests.support.home import bounded

pytestmark = pytest.mark.anyio


async def test_turns_are_taken_in_order_however_long_each_lasts() -> None:
    order, log = Order(), list[str]()

    async def change(number: int) -> None:
        async with order.turn():
            log.append(f"{number} begins")
            for _ in range(5 - number):
                await checkpoint()
            log.append(f"{number} ends")

    with bounded():
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                order.ask()
                tasks.start_soon(change, number)
    assert log == [f"{number} {what}" for number in range(5) for what in ("begins", "ends")]


async def test_it_is_busy_from_the_asking_to_the_last_turns_end() -> None:
    order = Order()
    busy = [order.busy]
    order.ask()
    order.ask()
    busy.append(order.busy)
    async with order.turn():
        busy.append(order.busy)
    busy.append(order.busy)
    async with order.turn():
        pass
    assert [*busy, order.busy] == [False, True, True, True, False]


async def test_a_turn_may_be_given_up_early_and_once_only() -> None:
    order = Order()
    order.ask()
    order.ask()
    with bounded():
        async with order.turn() as first:
            first.release()
            async with order.turn():
                first.release()
                assert order.busy
        await order.settled()
    assert not order.busy


async def test_a_turn_ends_with_an_error_too() -> None:
    order = Order()
    order.ask()
    with pytest.raises(ZeroDivisionError):
        async with order.turn():
            raise ZeroDivisionError
    assert not order.busy


async def test_settled_waits_for_all_that_were_asked_for() -> None:
    order, settled = Order(), anyio.Event()
    order.ask()
    order.ask()

    async def wait() -> None:
        await order.settled()
        settled.set()

    with bounded():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            async with order.turn():
                await checkpoint()
            await checkpoint()
            assert not settled.is_set()
            async with order.turn():
                pass
            await settled.wait()
