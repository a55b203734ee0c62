"""The end of the process: signals that ask for it, and a deadline after which nothing can hold it up.

Signals are handled by plain handlers in the main thread, not by the event loop: they are counted, and the second one
obeyed, also while something blocks the loop.  The deadline is kept by a daemon thread.  Should C code hold the
interpreter's lock, so that no thread runs, a kernel timer (``ITIMER_PROF``) kills the process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Final, Literal

from nous.runtime.stop import StopRequest
from nous.system.process import kill_every_child
from nous.telemetry.log import flush, get_log

log = get_log("transport")

TICK_S: Final = 0.1
MAX_TICK_S: Final = 0.3
"""A tick counts for no more than this: time in which the process was stopped (SIGSTOP) is not held against it."""

KERNEL_MARGIN_S: Final = 0.4
"""CPU time beyond the deadline after which the kernel ends a process in which no thread runs any more."""

LAST_LOG_MS: Final = 300

_EXIT_SIGNAL_BASE: Final = 128


class ProcessEnding:
    """Ends this process in order when it is told to, and at once when that takes too long.

    ``grace_s``: how long the orderly end may take once it has begun.  ``is_interactive``: stdin is a person's
    terminal, so SIGINT is meant for this process.
    """

    def __init__(self, *, grace_s: float, is_interactive: bool = False) -> None:
        self._grace_s = grace_s
        self._is_interactive = is_interactive
        self._exit_code = _EXIT_SIGNAL_BASE + signal.SIGTERM
        self._demands = 0
        self._has_begun = False
        self._has_thread = False
        # A SimpleQueue, because a signal handler may interrupt another one within ``put``.
        self._orders: SimpleQueue[Literal["begin", "now"]] = SimpleQueue()

    def watch(self, stop: StopRequest) -> None:
        """Pass signals on to ``stop`` from now on, and start the deadline once it is urgent.

        To be called in the main thread, within the running loop.  The handlers stay for the life of the process.
        """
        loop = asyncio.get_running_loop()

        def ask(number: int, _frame: FrameType | None) -> None:
            if self._is_second_demand(number):
                self._end_now(_EXIT_SIGNAL_BASE + number)
                return
            self.begin()
            with suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(partial(stop.request, "signal", abort=True))

        with suppress(RuntimeError):  # no thread is left: the kernel's timer has to do
            threading.Thread(target=self._keep_deadline, name="nous-ending", daemon=True).start()
            self._has_thread = True
        stop.on_urgent = self.begin
        # Has every signal wake the loop, whichever thread it reaches; the handlers below do not do so themselves.
        loop.add_signal_handler(signal.SIGCONT, lambda: None)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, ask)
        # Ctrl-C reaches the whole group: without a terminal of our own, what it means is for the client to say.
        signal.signal(signal.SIGINT, ask if self._is_interactive else _ignore)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            signal.signal(signal.SIGHUP, ask)

    def begin(self) -> None:
        """Start the deadline, unless it runs already."""
        if not self._has_begun:
            self._has_begun = True
            self._arm_kernel(self._grace_s)
            self._orders.put("begin")

    def settle(self) -> None:
        """The orderly end is complete: whatever still holds the process up, its exit code is 0."""
        self._exit_code = 0
        self.begin()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _is_second_demand(self, number: int) -> bool:
        """Count SIGTERM and SIGINT.  SIGHUP is not counted: terminals and service managers send it beside others."""
        if number == signal.SIGHUP:
            return False
        self._demands += 1
        return self._demands > 1

    def _end_now(self, exit_code: int) -> None:
        """End without the rest of the orderly end: this is called in the main thread and does not return."""
        self._exit_code = exit_code
        if self._has_thread:
            self._orders.put("now")
            threading.Event().wait()
        self._exit()

    def _keep_deadline(self) -> None:
        order = self._orders.get()
        left_s = self._grace_s
        while order != "now" and left_s > 0:
            before = time.monotonic()
            with suppress(Empty):
                order = self._orders.get(timeout=min(TICK_S, left_s))
            left_s -= min(time.monotonic() - before, MAX_TICK_S)
            self._arm_kernel(left_s)
        if order != "now":
            log.last("end_forced", exit_code=self._exit_code)
        self._exit()

    def _exit(self) -> None:
        kill_every_child()
        flush(LAST_LOG_MS)
        os._exit(self._exit_code)

    @staticmethod
    def _arm_kernel(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_PROF, max(seconds, 0) + KERNEL_MARGIN_S)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Take a signal without doing anything.  Children do not inherit this, as they would ``SIG_IGN``."""
