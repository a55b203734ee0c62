"""How a daemon is: figures for ``get_state``, taken when they are asked for, and the event loop's lag.

The lag is the one figure that cannot be taken when asked: whoever asks waits for the loop too.  So one task sleeps for
a second, again and again, and looks how late it woke up.  That is all that health costs while nobody asks.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import anyio
from msgspec import UNSET

from nous.ports.system import Clock
from nous.protocol.responses import Health, PendingCounts
from nous.system.procfs import resident_bytes

SAMPLE_EVERY_S: Final = 1.0
SAMPLES: Final = 60
"""The lag that is told is the worst of the last minute."""

_NS_PER_MS: Final = 1_000_000


class LoopWatch:
    """Knows how late the event loop was, at worst, within the last minute."""

    def __init__(self, clock: Clock, sleep: Callable[[float], Awaitable[None]] = anyio.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._lags_ns: deque[int] = deque(maxlen=SAMPLES)

    @property
    def worst_lag_ms(self) -> int | None:
        """The longest that a task was kept waiting; None before the first second is over."""
        return max(self._lags_ns) // _NS_PER_MS if self._lags_ns else None

    async def run(self) -> None:
        """Take samples until cancelled."""
        expected_ns = int(SAMPLE_EVERY_S * 1e9)
        while True:
            started_ns = self._clock.mono_ns()
            await self._sleep(SAMPLE_EVERY_S)
            self._lags_ns.append(max(0, self._clock.mono_ns() - started_ns - expected_ns))


def measure(watch: LoopWatch, *, uptime_ns: int, pending: Iterable[PendingCounts], queued_bytes: int) -> Health:
    """Return how the daemon is now.  ``pending`` has the queued inputs of each run that is on.

    Costs one small read of /proc; without one (macOS) there is no ``rss_bytes``.
    """
    counts = list(pending)
    lag_ms = watch.worst_lag_ms
    return Health(
        uptime_ms=uptime_ns // _NS_PER_MS,
        rss_bytes=resident_bytes(os.getpid()) or UNSET,
        open_runs=len(counts),
        queued_inputs=sum(each.steer + each.follow_up for each in counts),
        queued_output_bytes=queued_bytes,
        loop_lag_ms=UNSET if lag_ms is None else lag_ms,
    )
