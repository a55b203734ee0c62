"""Whole lines out of a file, in bounded chunks.  A line ends at LF and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from nous.store.disk import Disk

CHUNK_BYTES: Final = 1024 * 1024
SLICE_BYTES: Final = 256 * 1024
"""What an event loop may read and decode at once: about two milliseconds of work."""

_FIRST_CHUNK_BYTES: Final = 4096


class LineTooLongError(Exception):
    """A line passed the limit; ``offset`` is where it begins."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


def read_lines(disk: Disk, fd: int, start: int, end: int, max_line_bytes: int) -> Iterator[list[bytes]]:
    """Yield the lines (without LF) between two offsets, those of one chunk at a time.

    Stops at the last LF before ``end``: what follows it is a line that is still being written, or was cut.  Holds at
    most one chunk and one line.

    Raises:
        LineTooLongError: a line is longer than ``max_line_bytes``; it is not held.
    """
    pieces: list[bytes] = []
    held = 0
    at = start
    # No chunk is longer than a line may be, so only a line that spans chunks can be too long.
    chunk_bytes = min(CHUNK_BYTES, max_line_bytes)
    while at < end and (chunk := disk.read_at(fd, min(chunk_bytes, end - at), at)):
        lines = chunk.split(b"\n")
        if held + len(lines[0]) > max_line_bytes:
            raise LineTooLongError(at - held)
        at += len(chunk)
        rest = lines.pop()
        if lines and pieces:
            lines[0] = b"".join([*pieces, lines[0]])
        if lines:
            pieces, held = [], 0
            yield lines
        if rest:
            pieces.append(rest)
            held += len(rest)


def read_slice(disk: Disk, fd: int, start: int, end: int, max_line_bytes: int) -> list[bytes]:
    """Return the whole lines (without LF) of the first ``SLICE_BYTES`` from ``start``, or the one line that is longer.

    Empty where no line ends before ``end``.

    Raises:
        LineTooLongError: the first line is longer than ``max_line_bytes``; it is not held.
    """
    pieces: list[bytes] = []
    at = start
    while at < end and (chunk := disk.read_at(fd, min(SLICE_BYTES, end - at), at)):
        first = chunk.find(b"\n")
        if at - start + (len(chunk) if first < 0 else first) > max_line_bytes:
            raise LineTooLongError(start)
        at += len(chunk)
        if first >= 0:
            # Behind a long line nothing more is taken: it is a slice by itself.
            cut = first if pieces else chunk.rfind(b"\n")
            pieces.append(chunk[:cut])
            return b"".join(pieces).split(b"\n")
        pieces.append(chunk)
    return []


def read_first_line(disk: Disk, fd: int, end: int, max_line_bytes: int) -> bytes | None:
    """Return the first line (without LF) if it ends before ``end``, reading little more than the line.

    Raises:
        LineTooLongError: it is longer than ``max_line_bytes``; it is not held.
    """
    pieces: list[bytes] = []
    at = 0
    while at < end and (chunk := disk.read_at(fd, min(_FIRST_CHUNK_BYTES, end - at), at)):
        cut = chunk.find(b"\n")
        if at + (len(chunk) if cut < 0 else cut) > max_line_bytes:
            raise LineTooLongError(0)
        if cut >= 0:
            return b"".join([*pieces, chunk[:cut]])
        pieces.append(chunk)
        at += len(chunk)
    return None
