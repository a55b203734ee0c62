"""Finding a place in a trace without reading all of it, a window at a time.

``window_bytes`` is how much one look takes; what is found does not depend on it.
"""

from __future__ import annotations

import os
import re
from typing import Final

from nous.store.trace_lines import EVENT_PREFIX, event_head

_WINDOW_BYTES: Final = 64 * 1024
_EVENT_START: Final = re.compile(rb'\n\{"v":"1","id":"[^".\n]+\.\d{1,18}(?:\.\d{1,18})?","type":"[a-z_]{1,64}"')
_MAX_HEAD_BYTES: Final = 512
"""More than the part of an event line that tells its seq and type can take: windows overlap by this."""


def find_start(fd: int, after_seq: int, end: int, window_bytes: int = _WINDOW_BYTES) -> int:
    """Return an offset where a line begins, before which nothing stands that one who has seen ``after_seq`` lacks.

    Events stand in the order of their seq, so half of what is left is ruled out by looking at one of them.
    """
    low, high = 0, end
    while after_seq > 0 and high - low > 2 * window_bytes:
        middle = (low + high) // 2
        found = _next_event(fd, middle, high, window_bytes)
        if found is None or found[1] >= after_seq:
            high = middle
        else:
            low = found[0]
    return low


def last_seq(fd: int, end: int, window_bytes: int = _WINDOW_BYTES) -> int:
    """Return the seq of the last event line before ``end``, which follows an LF; 0 if there is none."""
    high = end
    while high > 0:
        low = max(0, high - window_bytes)
        window = os.pread(fd, min(high - low + _MAX_HEAD_BYTES, end - low), low)
        at = len(window)
        while (at := window.rfind(b"\n" + EVENT_PREFIX, 0, at)) >= 0:
            head = event_head(window[at + 1 : at + 1 + _MAX_HEAD_BYTES])
            if head is not None:
                return head.seq
        high = low
    return 0


def whole_lines_end(fd: int, size: int, window_bytes: int = _WINDOW_BYTES) -> int:
    """Return the offset behind the last LF, 0 if there is none: what follows it was cut or is being written."""
    high = size
    while high > 0:
        low = max(0, high - window_bytes)
        at = os.pread(fd, high - low, low).rfind(b"\n")
        if at >= 0:
            return low + at + 1
        high = low
    return 0


def _next_event(fd: int, start: int, end: int, window_bytes: int) -> tuple[int, int] | None:
    """Return offset and seq of the first event line that begins after ``start``."""
    at = start
    while at < end:
        window = os.pread(fd, min(window_bytes + _MAX_HEAD_BYTES, end - at), at)
        match = _EVENT_START.search(window)
        if match is not None:
            head = event_head(match[0][1:])
            return None if head is None else (at + match.start() + 1, head.seq)
        at += window_bytes
    return None
