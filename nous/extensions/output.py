"""What an extension writes without being asked: its stderr into the daemon's log, line by line, all of it bounded."""

from __future__ import annotations

from typing import Final

import anyio

from nous.protocol.codec import LineDecoder, TooLong
from nous.system.pipes import ReadPipe
from nous.telemetry.log import get_log

log = get_log("extensions")

MAX_STDERR_LINE_BYTES: Final = 4096
"""A longer line is no message for people; that there was one is logged in its place."""
STDERR_BURST_BYTES: Final = 64 * 1024
STDERR_BYTES_PER_S: Final = 4096
"""What is logged of one extension: as much as a burst, and then on average so much.  The rest is counted."""
_THROTTLE_S: Final = 0.02
"""Between two reads from a flood: it may fill its pipe, not the daemon's time."""
_LAST_WORDS_BYTES: Final = 64 * 1024


class LeakyBucket:
    """Lets through ``capacity_bytes`` at once and then ``bytes_per_s`` on average (left out: a sixteenth)."""

    def __init__(self, capacity_bytes: int, bytes_per_s: float | None = None) -> None:
        self._capacity = capacity_bytes
        self._rate = capacity_bytes / 16 if bytes_per_s is None else bytes_per_s
        self._level = 0.0
        self._last_s = 0.0

    def take(self, size_bytes: int, now_s: float) -> bool:
        """Take note of ``size_bytes`` more; false, and nothing is noted, if they do not fit now."""
        level = max(self._level - (now_s - self._last_s) * self._rate, 0.0)
        self._last_s = now_s
        fits = level + size_bytes <= self._capacity
        self._level = level + size_bytes if fits else level
        return fits


class StderrLog:
    """Cuts one extension's stderr into lines and logs what fits."""

    def __init__(self, extension: str) -> None:
        self._extension = extension
        self._lines = LineDecoder(MAX_STDERR_LINE_BYTES)
        self._bucket = LeakyBucket(STDERR_BURST_BYTES, STDERR_BYTES_PER_S)
        self._dropped_lines = 0

    def feed(self, data: bytes, now_s: float) -> bool:
        """Log the lines that ``data`` completed; true if all of them."""
        logged = [self._put(line, now_s) for line in self._lines.feed(data)]
        return all(logged)

    def finish(self, now_s: float) -> None:
        """Log what is left, and how much was dropped."""
        for line in self._lines.finish():
            self._put(line, now_s)
        self._report_dropped()

    def _put(self, line: bytes | TooLong, now_s: float) -> bool:
        text = f"[a line of more than {MAX_STDERR_LINE_BYTES} bytes]" if isinstance(line, TooLong) else _text(line)
        if not self._bucket.take(max(len(text), 64), now_s):
            self._dropped_lines += 1
            return False
        self._report_dropped()
        log.info("extension_stderr", extension=self._extension, line=text)
        return True

    def _report_dropped(self) -> None:
        if self._dropped_lines:
            log.warning("extension_stderr_dropped", extension=self._extension, lines=self._dropped_lines)
            self._dropped_lines = 0


async def log_stderr(pipe: ReadPipe, extension: str) -> None:
    """Log what comes until the end of the stream.  A flood is slowed down, and counted instead of logged."""
    lines = StderrLog(extension)
    try:
        while data := await pipe.receive():
            if not lines.feed(data, anyio.current_time()):
                await anyio.sleep(_THROTTLE_S)
    finally:
        lines.finish(anyio.current_time())


def drain_stderr(pipe: ReadPipe, extension: str) -> None:
    """Log the last words that are still in the pipe of a process that has ended."""
    lines = StderrLog(extension)
    left_bytes = _LAST_WORDS_BYTES
    while left_bytes > 0 and (data := pipe.receive_nowait()):
        left_bytes -= len(data)
        lines.feed(data, anyio.current_time())
    lines.finish(anyio.current_time())


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
