"""Threads for what blocks: side by side, kept, left behind when nobody waits any more."""

from __future__ import annotations

import threading

import anyio
import pytest
from anyio.lowlevel import checkpoint

from nous.system.threads import MAX_THREADS, WorkThreads
from tests.support.home import bounded

pytestmark = pytest.mark.anyio


async def test_what_a_call_returns_and_raises_comes_back() -> None:
    threads = WorkThreads()

    def fail() -> None:
        raise LookupError("no")

    with bounded():
        assert await threads.run(lambda: threading.current_thread().name) == "nous-work"
        with pytest.raises(LookupError, match="no"):
            await threads.run(fail)
        assert await threads.run(threading.get_ident) != threading.get_ident()
    threads.close()


async def test_calls_run_side_by_side_and_no_more_than_there_are_threads() -> None:
    threads = WorkThreads()
    all_of_them = threading.Barrier(MAX_THREADS, timeout=20)
    left: list[int] = []

    async def call(number: int) -> None:
        await threads.run(all_of_them.wait)
        left.append(number)

    with bounded():
        async with anyio.create_task_group() as tasks:
            for number in range(2 * MAX_THREADS):
                tasks.start_soon(call, number)
    assert sorted(left) == list(range(2 * MAX_THREADS))
    assert threads._count == MAX_THREADS
    threads.close()


async def test_without_any_thread_a_call_is_made_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = WorkThreads()
    with bounded():
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for _ in range(2 * MAX_THREADS):
                assert await threads.run(threading.get_ident) == threading.get_ident()
        assert await threads.run(threading.get_ident) != threading.get_ident()
    threads.close()


async def test_a_thread_is_kept_for_the_next_call() -> None:
    threads = WorkThreads()
    with bounded():
        assert len({await threads.run(threading.get_ident) for _ in range(20)}) == 1
    threads.close()


async def test_who_is_cancelled_leaves_the_thread_behind() -> None:
    threads = WorkThreads()
    go, ended = threading.Event(), threading.Event()

    def work() -> None:
        assert go.wait(20)
        ended.set()

    with bounded():
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(threads.run, work)
                await checkpoint()
                scope.cancel()
        assert not ended.is_set()
        go.set()
        assert await threads.run(lambda: ended.wait(20))
    threads.close()


async def test_idle_threads_end_when_they_are_closed() -> None:
    threads = WorkThreads()
    with bounded():
        thread = await threads.run(threading.current_thread)
        threads.close()
        await anyio.to_thread.run_sync(thread.join)
    assert not thread.is_alive()


def test_a_loop_that_has_ended_is_not_told_and_the_thread_goes_on() -> None:
    threads = WorkThreads()
    go = threading.Event()

    def work() -> None:
        assert go.wait(20)

    async def begin() -> None:
        threads.start(work, lambda: None)

    async def go_on() -> threading.Thread:
        go.set()
        with bounded():
            return await threads.run(threading.current_thread)

    anyio.run(begin)
    assert anyio.run(go_on).name == "nous-work"
    threads.close()
