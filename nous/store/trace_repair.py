"""Closing the traces that a dead daemon left open.

A cut trace gets a ``trace.end`` with status ``interrupted``; what stands in it stays, and no event is invented.  Only
traces of epochs that are dead are touched.  Two daemons that start at once exclude each other by flock on the trace's
own file: a trace is never renamed or replaced, so its file can be its lock, and no lock file is left beside it for
ever.  Who finds it locked leaves it to the other.
"""

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from nous.errors import NousError
from nous.store.disk import Disk, io_failure, write_all
from nous.store.torn import TornTail, keep_torn_tail
from nous.store.trace_lines import (
    BrokenTraceError,
    TraceCounts,
    TraceEnd,
    TraceHeader,
    end_line_head,
    event_head,
    kind_of,
)
from nous.store.trace_reader import iter_line_batches, last_time, open_trace, read_end, read_header
from nous.store.trace_seek import whole_lines_end


class InterruptedTrace(Struct, frozen=True):
    """A trace that was closed, and the torn tail that was cut from it."""

    run_id: str
    torn: TornTail | None


class Interruptions(Struct, frozen=True):
    """What :func:`interrupt_dead` did: the traces it closed, and those it could not close and why."""

    closed: list[InterruptedTrace]
    failed: list[NousError]


def interrupt_dead(directory: Path, is_dead: Callable[[str], bool], *, disk: Disk | None = None) -> Interruptions:
    """Close every cut trace in a directory whose epoch is dead.  Blocks; for a worker thread.

    May run any number of times and in several processes at once.  One trace that cannot be closed does not keep
    the others from it.
    """
    disk = disk or Disk()
    result = Interruptions([], [])
    for path in sorted(directory.glob("*.ndjson")):
        try:
            header = _header_if_open(path)
            if header is not None and is_dead(header.epoch):
                closed = _interrupt(disk, path, header)
                result.closed.extend([] if closed is None else [closed])
        except NousError as error:
            result.failed.append(error)
    return result


def _header_if_open(path: Path) -> TraceHeader | None:
    """Return the header of a trace that has no end.

    A file that does not begin with a header does not say whose it is, so nobody may touch it.
    """
    with open_trace(path) as fd:
        if read_end(fd, os.fstat(fd).st_size) is not None:
            return None
    try:
        return read_header(path)
    except BrokenTraceError:
        return None


def _interrupt(disk: Disk, path: Path, header: TraceHeader) -> InterruptedTrace | None:
    try:
        fd = disk.open(str(path), os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _close_locked(disk, fd, path, header)
        except BlockingIOError:
            return None
        finally:
            disk.close(fd)
    except OSError as error:
        raise io_failure(error, str(path)) from error


def _close_locked(disk: Disk, fd: int, path: Path, header: TraceHeader) -> InterruptedTrace | None:
    size = os.fstat(fd).st_size
    if read_end(fd, size) is not None:
        return None  # another daemon was here between the first look and the lock
    end = whole_lines_end(fd, size)
    line = _end_line(path, end, header)
    torn = keep_torn_tail(disk, fd, str(path), end, size) if end < size else None
    try:
        write_all(disk, fd, line)
        disk.sync(fd)
    except OSError:
        with suppress(OSError):
            disk.truncate(fd, end)
        raise
    return InterruptedTrace(header.run_id, torn)


def _end_line(path: Path, end: int, header: TraceHeader) -> bytes:
    """Return the end that fits what stands in the file; its time is the last one that was stamped there."""
    digest = sha256()
    inputs = events = effects = 0
    ended_at = header.created_at
    for lines in iter_line_batches(path, 0, end):
        for line in lines:
            digest.update(line + b"\n")
            kind = kind_of(line)
            inputs += kind == "input"
            effects += kind == "effect"
            if kind == "event" and (head := event_head(line)) is not None and not head.feature:
                events += 1
        ended_at = last_time(lines) or ended_at
    counts = TraceCounts(inputs=inputs, events=events, effects=effects)
    tail = end_line_head(TraceEnd(status="interrupted", ended_at=ended_at, counts=counts))
    digest.update(tail)
    return tail + digest.hexdigest().encode() + b'"}\n'
