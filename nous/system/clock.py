"""Wall time and monotonic time.

``now`` is asked for every event, so the date is formatted once per second and only the milliseconds each time.
"""

from __future__ import annotations

import time
from typing import Final

_NS_PER_S: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000


def format_time(time_ns: int) -> str:
    """Return nanoseconds since the epoch as RFC 3339 UTC, cut (not rounded) to milliseconds."""
    second, rest_ns = divmod(time_ns, _NS_PER_S)
    return f"{_format_second(second)}{rest_ns // _NS_PER_MS:03d}Z"


class SystemClock:
    """The machine's clock (:class:`nous.ports.system.Clock`).

    ``now`` follows the wall clock, also when somebody sets it back: durations come from ``mono_ns``, which never
    goes back.  Both may be called from any thread.
    """

    __slots__ = ("_cached",)

    def __init__(self) -> None:
        # One tuple, replaced as a whole: a thread never sees the second of one call with the text of another.
        self._cached = (-1, "")

    def now(self) -> str:
        """Return the wall clock's time in UTC, as it stands in events."""
        second, rest_ns = divmod(time.time_ns(), _NS_PER_S)
        cached = self._cached
        if cached[0] != second:
            cached = self._cached = (second, _format_second(second))
        return f"{cached[1]}{rest_ns // _NS_PER_MS:03d}Z"

    def mono_ns(self) -> int:
        """Return the monotonic clock's nanoseconds."""
        return time.monotonic_ns()


def _format_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
