"""A watchdog for the event loop: fails a test when one callback keeps a daemon's loop to itself for too long.

    async with open_watched(home, setup) as watched:
        await watched.peer.run("warm up")        # what is imported by the first run does not count
        watched.arm()
        await watched.peer.run("read the big file")

The daemon is a real process.  In it every callback of the loop is timed by the CPU time of the loop's thread, so that a
busy machine makes no callback look slow.  A sampling thread adds two things: the stack of a callback while it is still
running, and callbacks that sleep in a system call (other than a lock) and so use no CPU time; for those wall time
counts, with a wider bound.  Leaving the block fails with every callback that was over a bound.
"""

from __future__ import annotations

import asyncio
import json
import platform
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.harness import Peer, open_process
from tests.support.home import TEST_SECONDS, Home, Setup, Spawned

CPU_LIMIT_S: Final = 0.05
SLEEP_LIMIT_S: Final = 0.5
SAMPLE_S: Final = 0.005
MAX_SAMPLE_S: Final = 0.02
"""A sample counts for no more than this: the sampling thread may have been the one that had to wait."""

_FUTEX: Final = {"x86_64": b"202", "aarch64": b"98"}.get(platform.machine())


class _Watch:
    """Within the daemon: the callback that runs now, what it used so far, and the file of those that were too slow."""

    def __init__(self, report: Path, armed: Path) -> None:
        self._report = report
        self._armed = armed
        self._loop_thread = threading.get_ident()
        self._clock = time.pthread_getcpuclockid(self._loop_thread)
        self._syscall = f"/proc/self/task/{threading.get_native_id()}/syscall"
        self._running: object | None = None
        self._started_s = 0.0
        self._slept_s = 0.0
        self._stack: list[str] = []

    def install(self) -> None:
        original = asyncio.Handle._run

        def run(handle: asyncio.Handle) -> None:
            if threading.get_ident() != self._loop_thread:
                return original(handle)
            self._slept_s, self._stack = 0.0, []
            self._started_s = time.clock_gettime(self._clock)
            self._running = handle
            try:
                return original(handle)
            finally:
                self._running = None
                self._end(handle)

        setattr(asyncio.Handle, "_run", run)  # noqa: B010 - typeshed has another signature
        threading.Thread(target=self._sample, name="loop-watchdog", daemon=True).start()

    def _end(self, handle: object) -> None:
        used_s = time.clock_gettime(self._clock) - self._started_s
        if (used_s > CPU_LIMIT_S or self._slept_s > SLEEP_LIMIT_S) and self._armed.exists():
            record = {
                "cpu_ms": round(used_s * 1000),
                "slept_ms": round(self._slept_s * 1000),
                "callback": repr(handle)[:500],
                "stack": self._stack,
            }
            with self._report.open("a") as file:
                file.write(json.dumps(record) + "\n")

    def _sample(self) -> None:
        before = time.monotonic()
        while True:
            time.sleep(SAMPLE_S)
            now = time.monotonic()
            passed_s, before = min(now - before, MAX_SAMPLE_S), now
            running = self._running
            if running is None:
                continue
            if self._is_asleep():
                self._slept_s += passed_s
            used_s = time.clock_gettime(self._clock) - self._started_s
            if not self._stack and (used_s > CPU_LIMIT_S or self._slept_s > SLEEP_LIMIT_S):
                frame = sys._current_frames().get(self._loop_thread)
                stack = traceback.format_stack(frame)[-12:]
                if self._running is running:
                    self._stack = stack

    def _is_asleep(self) -> bool:
        """Whether the loop's thread waits in a system call; waiting for a lock may be waiting for the interpreter's."""
        try:
            with open(self._syscall, "rb", buffering=0) as file:  # noqa: PTH123 - two hundred times a second
                number = file.read(32).split()[0]
        except OSError:
            return False
        return _FUTEX is not None and number not in (b"running", b"-1", _FUTEX)


def install(report: str, armed: str) -> None:
    """Watch the loop of this process's main thread.  To be called before the loop begins, in the main thread."""
    _Watch(Path(report), Path(armed)).install()


@dataclass(frozen=True)
class Watched:
    """A daemon with a watchdog: its peer, its process, and the callbacks that were too slow."""

    peer: Peer
    spawned: Spawned
    report: Path
    armed: Path

    def arm(self) -> None:
        """Count from now on."""
        self.armed.touch()

    def slow(self) -> list[dict[str, Any]]:
        """Return the callbacks that were over a bound since the watchdog was armed."""
        if not self.report.exists():
            return []
        return [json.loads(line) for line in self.report.read_text(encoding="utf-8").splitlines()]

    def check(self) -> None:
        """Fail if the loop was blocked."""
        told = [
            f"{r['cpu_ms']} ms CPU, {r['slept_ms']} ms asleep: {r['callback']}\n{''.join(r['stack'])}"
            for r in self.slow()
        ]
        assert not told, "the event loop was blocked:\n" + "\n".join(told)


@asynccontextmanager
async def open_watched(
    home: Home, setup: Setup | None = None, *, program: str = "", seconds: float = TEST_SECONDS
) -> AsyncIterator[Watched]:
    """Start a daemon on stdio with a watchdog; at the end it must stop in order and never have blocked its loop.

    ``program``: Python code to run in the daemon's process before anything else.
    """
    report, armed = home.root / f"loop-{time.monotonic_ns()}", home.root / f"armed-{time.monotonic_ns()}"
    first = f"{program}\nfrom tests.support.loop_watchdog import install; install({str(report)!r}, {str(armed)!r})"
    async with open_process(home, setup, seconds, program=first) as (peer, spawned):
        watched = Watched(peer, spawned, report, armed)
        yield watched
        await peer.end()
        await peer.rest()
        peer.check_ended()
        assert await spawned.wait() == 0
        watched.check()
