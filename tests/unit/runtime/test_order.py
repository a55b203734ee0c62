"""Changes take turns in the order they were read, whatever each of them waits for."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from nous.runtime.order import Order, Turn
from tests.support.home import bounded

pytestmark = pytest.mark.anyio


async def test_turns_are_taken_in_order_however_long_each_lasts() -> None:
    order, log = Order(), list[str]()

    async def change(number: int, turn: Turn) -> None:
        async with turn:
            log.append(f"{number} begins")
            for _ in range(5 - number):
                await checkpoint()
            log.append(f"{number} ends")

    with bounded():
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(change, number, order.ask())
    assert log == [f"{number} {what}" for number in range(5) for what in ("begins", "ends")]


async def test_it_is_busy_from_the_asking_to_the_last_turns_end() -> None:
    order = Order()
    busy = [order.busy]
    first, second = order.ask(), order.ask()
    busy.append(order.busy)
    async with first:
        busy.append(order.busy)
    busy.append(order.busy)
    async with second:
        pass
    assert [*busy, order.busy] == [False, True, True, True, False]


async def test_a_turn_may_be_given_up_early_and_once_only() -> None:
    order = Order()
    first, second = order.ask(), order.ask()
    released: list[str] = []
    first.on_release(lambda: released.append("first"))
    with bounded():
        async with first:
            first.release()
            async with second:
                first.release()
                assert order.busy
    assert (order.busy, released) == (False, ["first"])


async def test_a_turn_ends_with_an_error_too() -> None:
    order = Order()
    with pytest.raises(ZeroDivisionError):
        async with order.ask():
            raise ZeroDivisionError
    assert not order.busy


async def test_a_wait_that_is_cancelled_gives_up_its_place() -> None:
    order, log = Order(), list[int]()
    held, cut, last = order.ask(), order.ask(), order.ask()

    async def wait(number: int, turn: Turn) -> None:
        async with turn:
            log.append(number)

    with bounded():
        async with held, anyio.create_task_group() as others:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait, 1, cut)
                others.start_soon(wait, 2, last)
                await checkpoint()
                tasks.cancel_scope.cancel()
            assert log == []
            held.release()
    assert (log, order.busy) == ([2], False)


async def test_a_place_that_nobody_took_up_can_be_given_up() -> None:
    order = Order()
    first, second = order.ask(), order.ask()
    first.release()
    with bounded():
        async with second:
            assert order.busy
    assert not order.busy


async def test_a_turn_that_stands_aside_lets_others_go_ahead_but_not_its_owners() -> None:
    order, log = Order(), list[str]()
    mine, others = object(), object()
    is_heavy, is_over = anyio.Event(), anyio.Event()

    async def heavy(turn: Turn) -> None:
        async with turn:
            async with turn.aside():
                is_heavy.set()
                await is_over.wait()
            log.append("heavy")

    async def light(name: str, turn: Turn) -> None:
        async with turn:
            log.append(name)
            if name == "other":
                is_over.set()
                for _ in range(5):
                    await checkpoint()
                log.append("other ends")

    with bounded():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(heavy, order.ask(mine))
            await is_heavy.wait()
            tasks.start_soon(light, "mine", order.ask(mine))
            tasks.start_soon(light, "other", order.ask(others))
            tasks.start_soon(light, "last", order.ask(others))
    assert log == ["other", "other ends", "heavy", "mine", "last"]
    assert not order.busy


@pytest.mark.parametrize("ends_by", ["error", "cancellation"])
async def test_a_turn_that_fails_while_it_stands_aside_is_given_up(ends_by: str) -> None:
    order = Order()
    mine = object()
    with bounded(), anyio.CancelScope() as scope:
        try:
            async with order.ask(mine) as turn, turn.aside():
                async with order.ask(object()):
                    behind = order.ask(mine)
                if ends_by == "error":
                    raise ValueError
                scope.cancel()
                await checkpoint()
        except ValueError:
            pass
    with bounded():
        async with behind:
            pass
    assert not order.busy
