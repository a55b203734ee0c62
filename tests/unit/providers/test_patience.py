"""Timeouts that count only the time in which the process ran."""

from __future__ import annotations

import time

import anyio
import pytest
from anyio.lowlevel import checkpoint

from nous.providers import patience
from nous.providers.patience import Patience, within

pytestmark = pytest.mark.anyio

DEADLINE_S = 20


async def test_a_wait_that_ends_in_time() -> None:
    limit = Patience(DEADLINE_S)
    assert await limit.wait(anyio.sleep, 0.01)
    assert 0 < limit.take_used_s() < DEADLINE_S
    assert limit.take_used_s() == 0


async def test_waits_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SLICE_S", 0.01)
    limit = Patience(0.1)
    assert await limit.wait(anyio.sleep, 0.001)
    assert not await limit.wait(anyio.sleep_forever)
    assert not await limit.wait(anyio.sleep, 0)
    assert limit.left_s <= 0


async def test_a_process_that_stood_still_has_used_one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SLICE_S", 0.01)
    limit = Patience(0.2)
    event = anyio.Event()

    async def stand_still() -> None:
        time.sleep(0.5)  # noqa: ASYNC251 - the loop stands still, as in a process that is stopped
        event.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stand_still)
        assert await limit.wait(event.wait)
    assert limit.left_s > 0


async def test_within_returns_or_raises_what_the_function_does() -> None:
    async def discard(value: object) -> None:
        raise AssertionError(value)

    async def give(value: int) -> int:
        await checkpoint()
        return value

    async def fail() -> None:
        raise KeyError("mine")

    assert await within(DEADLINE_S, give, 7, discard=discard) == 7
    with pytest.raises(KeyError, match="mine"):
        await within(DEADLINE_S, fail, discard=discard)
    with pytest.raises(TimeoutError):
        await within(0.02, anyio.sleep_forever, discard=discard)
    with anyio.move_on_after(0.02) as scope:
        await within(DEADLINE_S, anyio.sleep_forever, discard=discard)
    assert scope.cancelled_caught


@pytest.mark.parametrize("turns", range(12))
async def test_what_a_cancelled_caller_does_not_get_is_discarded(turns: int) -> None:
    """Cancel at every turn of the loop: the result goes to exactly one of both."""
    given: list[int] = []
    taken: list[int] = []
    discarded: list[int] = []

    async def give() -> int:
        await checkpoint()
        given.append(1)
        return 1

    async def discard(value: int) -> None:
        await checkpoint()
        discarded.append(value)

    async def cancel() -> None:
        for _ in range(turns):
            await checkpoint()
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel)
        with anyio.CancelScope() as scope:
            taken.append(await within(DEADLINE_S, give, discard=discard))
    assert taken + discarded == given
