"""Reading traces: their lines in bounded chunks, a run's events after a point, and a summary without reading it all.

Readers take no lock and repair nothing: they stop at the last LF, and at ``end_offset`` where one is given.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from nous.errors import NousError
from nous.store.disk import Disk, io_failure
from nous.store.lines import LineTooLongError, read_first_line, read_lines
from nous.store.trace_lines import (
    MAX_TRACE_LINE_BYTES,
    BrokenTraceError,
    TraceEnd,
    TraceHeader,
    event_head,
    kind_of,
)
from nous.store.trace_seek import find_start, last_seq, whole_lines_end
from nous.system.regular_file import UnsuitableFileError, open_regular_file

_TIME: Final = re.compile(rb'"ts":"([^"]{1,64})"')
_STAMP_WITHIN_BYTES: Final = 1024
_END_WITHIN_BYTES: Final = 64 * 1024

_disk: Final = Disk()


class TraceSummary(Struct, frozen=True, kw_only=True):
    """One run as its trace tells it.

    ``status`` is the end's, or ``running`` while the daemon that writes it lives, or ``interrupted``.
    """

    header: TraceHeader
    status: str
    events: int
    ended_at: str | None = None


class _Captured(Struct, frozen=True):
    capture: dict[str, str] = {}


_capture: Final = msgspec.json.Decoder(_Captured)
_headers: Final = msgspec.json.Decoder(TraceHeader)
_ends: Final = msgspec.json.Decoder(TraceEnd)


@contextmanager
def open_trace(path: Path) -> Iterator[int]:
    """Open a trace for reading; system errors inside become ``io_failure``, a missing file ``run_not_found``.

    What is no regular file is ``io_failure`` and is never waited for.
    """
    try:
        fd = open_regular_file(path)
    except FileNotFoundError:
        raise NousError("run_not_found", path.name) from None
    except UnsuitableFileError as error:
        raise NousError("io_failure", f"{path.name}: {error.strerror}", hint="A trace is a regular file.") from None
    except OSError as error:
        raise io_failure(error, str(path)) from error
    try:
        yield fd
    except OSError as error:
        raise io_failure(error, str(path)) from error
    finally:
        os.close(fd)


def iter_line_batches(
    path: Path, start: int = 0, end_offset: int | None = None, *, max_line_bytes: int = MAX_TRACE_LINE_BYTES
) -> Iterator[list[bytes]]:
    """Yield the lines (without LF) from byte ``start``, which begins a line, those of one chunk at a time.

    Raises:
        BrokenTraceError: a line is longer than ``max_line_bytes``; it was not held.
        NousError: ``run_not_found``, ``io_failure``.
    """
    with open_trace(path) as fd:
        yield from _line_batches(path, fd, start, _end_of(fd, end_offset), max_line_bytes)


def iter_events(
    path: Path,
    after_seq: int = 0,
    features: frozenset[str] = frozenset(),
    end_offset: int | None = None,
) -> Iterator[bytes]:
    """Yield, as they went to the client (LF included), the events that one who has seen ``after_seq`` lacks.

    Frozen events with a greater ``seq``, and of the named ``features`` those that came after event ``after_seq``.
    What comes before them in the file is not read.

    Raises:
        BrokenTraceError: a line is too long.
        NousError: ``run_not_found``, ``io_failure``.
    """
    with open_trace(path) as fd:
        end = _end_of(fd, end_offset)
        start = find_start(fd, after_seq, end)
        for lines in _line_batches(path, fd, start, end, MAX_TRACE_LINE_BYTES):
            for line in lines:
                head = event_head(line)
                if head is not None and head.is_wanted(after_seq, features):
                    yield line + b"\n"


def read_header(path: Path) -> TraceHeader:
    """Return a trace's header.

    Raises:
        BrokenTraceError: the file does not begin with one.
        NousError: ``run_not_found``, ``io_failure``.
    """
    with open_trace(path) as fd:
        return _read_header(path, fd)


def refers_to_session(path: Path) -> bool:
    """Tell whether the run's context stands only in its session; where that cannot be told, it does.

    Raises:
        NousError: ``run_not_found``, ``io_failure``.
    """
    with open_trace(path) as fd:
        try:
            first = read_first_line(_disk, fd, _end_of(fd, None), MAX_TRACE_LINE_BYTES)
            return _capture.decode(first or b"").capture.get("context", "referenced") == "referenced"
        except (LineTooLongError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return True


def scan(path: Path, is_dead: Callable[[str], bool]) -> TraceSummary:
    """Summarise a run from the two ends of its trace.  ``is_dead`` tells whether an epoch's daemon is gone.

    Raises:
        BrokenTraceError: the file does not begin with a header.
        NousError: ``run_not_found``, ``io_failure``.
    """
    with open_trace(path) as fd:
        header = _read_header(path, fd)
        size = _end_of(fd, None)
        end = read_end(fd, size)
        if end is not None:
            return TraceSummary(header=header, status=end.status, events=end.counts.events, ended_at=end.ended_at)
        status = "interrupted" if is_dead(header.epoch) else "running"
        return TraceSummary(header=header, status=status, events=last_seq(fd, whole_lines_end(fd, size)))


def read_end(fd: int, size: int) -> TraceEnd | None:
    """Return the end of a trace, or ``None`` if it has none: it is being written, or was cut.

    Looks only at the last line: whether its digest fits is for who reads the whole file.
    """
    tail = _disk.read_at(fd, min(size, _END_WITHIN_BYTES), max(0, size - _END_WITHIN_BYTES))
    last = tail[tail.rfind(b"\n", 0, -1) + 1 :]
    if not last.endswith(b'"}\n') or kind_of(last) != "end":
        return None
    try:
        return _ends.decode(last)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def last_time(lines: list[bytes]) -> str | None:
    """Return the last time stamp that events or inputs among ``lines`` carry."""
    for line in reversed(lines):
        if kind_of(line) in ("event", "input") and (match := _TIME.search(line, 0, _STAMP_WITHIN_BYTES)):
            return match[1].decode("ascii", "replace")
    return None


def _end_of(fd: int, end_offset: int | None) -> int:
    size = os.fstat(fd).st_size
    return size if end_offset is None else min(size, end_offset)


def _line_batches(path: Path, fd: int, start: int, end: int, max_line_bytes: int) -> Iterator[list[bytes]]:
    try:
        yield from read_lines(_disk, fd, start, end, max_line_bytes)
    except LineTooLongError as error:
        raise BrokenTraceError(path.name, error.offset, f"a line is longer than {max_line_bytes} bytes") from None


def _read_header(path: Path, fd: int) -> TraceHeader:
    try:
        first = read_first_line(_disk, fd, _end_of(fd, None), MAX_TRACE_LINE_BYTES)
        return _headers.decode(first or b"")
    except (LineTooLongError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BrokenTraceError(path.name, 0, "it does not begin with the header of a trace") from None
