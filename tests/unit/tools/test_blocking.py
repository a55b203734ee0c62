"""File work in a thread: results, failures, time, and being left behind."""

from __future__ import annotations

import threading

import anyio
import pytest

from nous.tools.blocking import Stop, off_the_loop
from nous.tools.failure import ToolFailure
from tests.unit.tools.toolroom import DEADLINE_S

pytestmark = pytest.mark.anyio


async def test_the_result_comes_back_from_another_thread() -> None:
    def work(stop: Stop) -> int:
        stop.check()
        return threading.get_ident()

    assert await off_the_loop(work) != threading.get_ident()


async def test_what_goes_wrong_comes_back_too() -> None:
    def work(stop: Stop) -> None:
        raise ToolFailure("wrong")

    with pytest.raises(ToolFailure, match="wrong"):
        await off_the_loop(work)


def stubborn(stops: list[Stop], release: threading.Event, told: threading.Event) -> None:
    """Work that does not ask before it is released."""
    release.wait(DEADLINE_S)
    try:
        stops[0].check()
    except ToolFailure:
        told.set()


@pytest.mark.parametrize("way", ["time", "cancelled"])
async def test_work_that_hangs_is_left_behind_and_told_to_stop(way: str) -> None:
    stops: list[Stop] = []
    release, told = threading.Event(), threading.Event()

    def work(stop: Stop) -> None:
        stops.append(stop)
        stubborn(stops, release, told)

    if way == "time":
        with pytest.raises(ToolFailure, match="too long"):
            await off_the_loop(work, seconds=0.05)
    else:
        with anyio.move_on_after(0.05) as scope:
            await off_the_loop(work)
        assert scope.cancelled_caught
    release.set()
    assert await anyio.to_thread.run_sync(told.wait, DEADLINE_S)


async def test_work_that_asks_stops_by_itself_past_its_time() -> None:
    stop = Stop(0)
    with pytest.raises(ToolFailure, match="too long"):
        stop.check()
