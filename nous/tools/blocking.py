"""File work off the event loop: bounded in time, and left behind if it hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import anyio

from nous.system.threads import WorkThreads
from nous.tools.failure import ToolFailure

T = TypeVar("T")

FILE_WORK_S: Final = 60.0
"""A file tool that takes longer stands before a dead disk or an endless file."""

_threads: Final = WorkThreads()


class Stop:
    """Tells blocking work, at the points where it asks, that nobody waits for it any more."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._is_set = threading.Event()

    def set(self) -> None:
        """Ask the work to stop."""
        self._is_set.set()

    def check(self) -> None:
        """Raise :class:`ToolFailure` if it is time to stop: nothing may be changed on disk after that."""
        if self._is_set.is_set() or time.monotonic() > self._deadline:
            raise ToolFailure("The file took too long to read or write.")


async def off_the_loop(work: Callable[[Stop], T], seconds: float = FILE_WORK_S) -> T:
    """Run ``work`` in a thread.  On cancellation or past ``seconds`` the thread is left behind, told to stop."""
    stop = Stop(seconds)
    try:
        with anyio.fail_after(seconds):
            return await _threads.run(partial(work, stop))
    except TimeoutError:
        raise ToolFailure("The file took too long to read or write.") from None
    finally:
        stop.set()
