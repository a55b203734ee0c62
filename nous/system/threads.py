"""Daemon threads for calls that block: started at once, left behind when nobody waits, never joined at exit.

Everything that may block (files, name resolution, /proc) runs through this module or in a process of its own.
``anyio.to_thread`` and the loop's default executor are not used: their threads are joined when the interpreter exits,
so one call that never returns would keep the process alive (the linter refuses both).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Final, Generic, ParamSpec, TypeVar

import anyio

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS: Final = 64
"""So many calls of one pool may block at once; the others wait.  More than files that hang at the same time."""


class WorkThreads:
    """A pool of daemon threads, grown on demand up to ``MAX_THREADS`` and kept for the next calls.

    One pool serves one kind of call, so that calls that hang exhaust no other kind's threads.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._count = 0
        self._under_way = 0

    def start(self, work: Callable[[], None], on_done: Callable[[], None]) -> None:
        """Call ``work``, which raises nothing, in a thread, from now on; then ``on_done`` in the running loop."""
        loop = asyncio.get_running_loop()

        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._under_way -= 1
            # The loop may have ended meanwhile: then nobody wants to know any more.
            with suppress(RuntimeError):
                # Not by way of anyio.from_thread, which has the thread wait until the loop has done it.
                loop.call_soon_threadsafe(on_done)

        with self._lock:
            self._under_way += 1
            needs_thread = self._count < min(self._under_way, MAX_THREADS)
            self._count += needs_thread
        self._queue.put(run)
        if needs_thread:
            self._add_thread()

    async def run(self, work: Callable[[], T]) -> T:
        """Call ``work`` in a thread and return what it returns, or raise what it raises.

        Cancelled, this leaves the thread behind.
        """
        call = _Call(work)
        self.start(call.run, call.ended.set)
        await call.ended.wait()
        return call.result()

    def close(self) -> None:
        """Let the threads end that have nothing to do.  Nothing may be started any more."""
        for _ in range(self._count):
            self._queue.put(None)

    def _add_thread(self) -> None:
        try:
            threading.Thread(target=self._serve, name="nous-work", daemon=True).start()
        except RuntimeError:
            # The system has no thread left.  Those there are will come to it; without any, better slow than never.
            with self._lock:
                self._count -= 1
                is_alone = not self._count
            if is_alone:
                self._serve_one()

    def _serve(self) -> None:
        while self._serve_one():
            pass

    def _serve_one(self) -> bool:
        work = self._queue.get()
        if work is not None:
            work()
        return work is not None


_shared: Final = WorkThreads()


async def run_in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``work`` in a daemon thread of the shared pool; return what it returns, or raise what it raises.

    Cancelled, this leaves the thread behind: ``work`` goes on to its end or until the process exits, and its result
    is dropped.  Work that must not be stopped half-way has to leave a state on disk that the next start can repair.
    """
    return await _shared.run(partial(work, *args, **kwargs))


async def run_alone(work: Callable[[], T]) -> T:
    """Call ``work``, which may block as long as it likes, in a daemon thread of its own.  Otherwise as above."""
    threads = WorkThreads()
    try:
        return await threads.run(work)
    finally:
        threads.close()


class _Call(Generic[T]):
    """One call, and what came of it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.ended = anyio.Event()
        self._work = work
        self._returned: list[T] = []
        self._raised: BaseException | None = None

    def run(self) -> None:
        try:
            self._returned.append(self._work())
        except BaseException as error:
            self._raised = error

    def result(self) -> T:
        if self._raised is not None:
            raise self._raised
        return self._returned[0]
