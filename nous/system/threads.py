"""Threads for what blocks, begun at once.

anyio's ``to_thread`` asks for a thread after several turns of the event loop: it can be cancelled at each of them.
What stands between a message and its next event, a sync or a look into a file, begins here instead.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

import anyio

T = TypeVar("T")

MAX_THREADS: Final = 64
"""So many calls may block at once; the others wait.  More than files that hang at the same time."""


class WorkThreads:
    """Calls what blocks in threads, as many as are needed at once.  Belongs to a loop's thread.

    They are kept for the next calls, and never keep the process alive: a disk that hangs may.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._count = 0
        self._under_way = 0

    def start(self, work: Callable[[], None], on_done: Callable[[], None]) -> None:
        """Call ``work``, which raises nothing, in a thread, from now on; then ``on_done`` in the loop."""
        loop = asyncio.get_running_loop()

        def note() -> None:
            self._under_way -= 1
            on_done()

        def run() -> None:
            work()
            # The loop may have ended meanwhile: then nobody wants to know any more.
            with suppress(RuntimeError):
                # Not by way of anyio.from_thread, which has the thread wait until the loop has done it.
                loop.call_soon_threadsafe(note)

        self._under_way += 1
        self._queue.put(run)
        if self._count < min(self._under_way, MAX_THREADS):
            try:
                threading.Thread(target=self._serve, name="nous-work", daemon=True).start()
            except RuntimeError:
                # The system has no thread left.  Those there are will come to it; without any, better slow than never.
                if not self._count:
                    self._serve_one()
                return
            self._count += 1

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

    def _serve(self) -> None:
        while self._serve_one():
            pass

    def _serve_one(self) -> bool:
        work = self._queue.get()
        if work is not None:
            work()
        return work is not None


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
