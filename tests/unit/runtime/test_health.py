"""The lag of the event loop: on a clock of the test's own, so that nothing is waited for."""

from __future__ import annotations

import anyio
import pytest

from nous.runtime.health import SAMPLE_EVERY_S, SAMPLES, LoopWatch
from nous.runtime.hub import Hub

pytestmark = pytest.mark.anyio


class LateClock:
    """Each sleep takes as long as it was told to, and one of ``late_ms`` longer."""

    def __init__(self, late_ms: list[int]) -> None:
        self._late_ms = late_ms
        self._now_ns = 0

    def now(self) -> str:
        return "2026-11-21T10:00:00.000Z"

    def mono_ns(self) -> int:
        return self._now_ns

    async def sleep(self, seconds: float) -> None:
        if not self._late_ms:
            await anyio.sleep_forever()
        self._now_ns += int(seconds * 1e9) + self._late_ms.pop(0) * 1_000_000


async def watch(late_ms: list[int]) -> LoopWatch:
    clock = LateClock(late_ms)
    found = LoopWatch(clock, clock.sleep)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(found.run)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    return found


async def test_nothing_is_known_before_the_first_sample() -> None:
    assert (await watch([])).worst_lag_ms is None


async def test_the_worst_of_the_last_minute_is_told() -> None:
    assert SAMPLE_EVERY_S * SAMPLES == 60
    assert (await watch([0, 7, 2])).worst_lag_ms == 7
    assert (await watch([900, *[3] * (SAMPLES - 1)])).worst_lag_ms == 900
    assert (await watch([900, *[3] * SAMPLES])).worst_lag_ms == 3


async def test_a_clock_that_is_early_is_no_lag() -> None:
    assert (await watch([-1])).worst_lag_ms == 0


def test_a_hub_without_listeners_has_nothing_queued() -> None:
    assert Hub().queued_bytes == 0
