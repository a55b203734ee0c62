"""Ids: unique for ever, sortable by when they were made, safe as file names.

    run-01m7xwn30000-b15hrmh7ftfg8v
        |         | |
        |         | 70 random bits, fresh for every id
        |         counts the ids this process made in the same millisecond
        milliseconds since 1970

The digits are base 32 in lower case (without i, l, o, u), whose order as text is their order as numbers, also
where file names do not tell upper from lower case.  The random part is what keeps the ids of processes apart that
started in the same millisecond; the counter only keeps the ids of one process in order.
"""

from __future__ import annotations

import os
import re
import time
from typing import Final

_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_BITS_PER_DIGIT: Final = 5
_TIME_DIGITS: Final = 10
_COUNT_DIGITS: Final = 2
_RANDOM_DIGITS: Final = 14
_EPOCH_DIGITS: Final = 16
_COUNT_LIMIT: Final = 1 << (_BITS_PER_DIGIT * _COUNT_DIGITS)

_SAFE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


def is_safe_id(text: str) -> bool:
    """Whether an id that came from outside may name something on disk."""
    return _SAFE_ID.fullmatch(text) is not None


def new_epoch() -> str:
    """Return a random id for this daemon process: 80 bits, never the same twice."""
    return _random_digits(_EPOCH_DIGITS)


class RandomIds:
    """Makes ids (:class:`nous.ports.system.Ids`).

    Ids of one instance come in ascending order, also when the wall clock is set back or more than a thousand are
    made in a millisecond.  Not for use by several threads at once.
    """

    __slots__ = ("_count", "_last_ms")

    def __init__(self) -> None:
        self._last_ms = -1
        self._count = 0

    def run_id(self) -> str:
        """Return an id for a run."""
        return f"run-{self._next()}"

    def session_id(self) -> str:
        """Return an id for a session."""
        return f"sess-{self._next()}"

    def entry_id(self) -> str:
        """Return an id for an entry."""
        return f"ent-{self._next()}"

    def _next(self) -> str:
        now_ms = time.time_ns() // 1_000_000
        if now_ms > self._last_ms:
            self._last_ms, self._count = now_ms, 0
        elif self._count + 1 < _COUNT_LIMIT:
            self._count += 1
        else:
            self._last_ms, self._count = self._last_ms + 1, 0
        stamp = _encode(self._last_ms, _TIME_DIGITS) + _encode(self._count, _COUNT_DIGITS)
        return f"{stamp}-{_random_digits(_RANDOM_DIGITS)}"


def _random_digits(count: int) -> str:
    bits = count * _BITS_PER_DIGIT
    data = os.urandom((bits + 7) // 8)
    return _encode(int.from_bytes(data, "big"), count)


def _encode(number: int, digits: int) -> str:
    """Return the lowest ``digits`` base 32 digits of ``number``."""
    shifts = range((digits - 1) * _BITS_PER_DIGIT, -1, -_BITS_PER_DIGIT)
    return "".join(_DIGITS[(number >> shift) & 31] for shift in shifts)
