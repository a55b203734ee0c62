"""Closes the traces that dead daemons left open.

A cut trace gets a ``trace.end`` with status ``interrupted``; its lines stay, and no event is invented.  Only traces of
dead epochs are touched.  A trace that was cut within its header holds nothing of a run and names no epoch: it is moved
to ``<state>/quarantine`` once nobody has it open for writing.

Two daemons that start at once exclude each other by flock on the trace's own file: a trace is never replaced, so its
file can be its lock.  The daemon that finds it locked leaves it to the other.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

from msgspec import UNSET, Struct

from nous.errors import NousError
from nous.store.disk import Disk, io_failure, write_all
from nous.store.quarantine import QUARANTINE_DIR, set_aside
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

HEADERLESS_AGE_S: Final = 60.0
"""A file without a whole header is left alone for so long after its last change: its writer may be about to lock it."""


class InterruptedTrace(Struct, frozen=True):
    """A trace that was closed, and the torn tail that was cut from it."""

    run_id: str
    torn: TornTail | None


class Interruptions(Struct, frozen=True):
    """What :func:`interrupt_dead` did: the traces it closed, the headerless ones it moved to the quarantine (where they
    are now), and those it could not close and why.  ``is_complete``: false if it was told to stop before the end.
    """

    closed: list[InterruptedTrace]
    set_aside: list[Path]
    failed: list[NousError]
    is_complete: bool


class _StoppedError(Exception):
    """The caller wants no more work done."""


def interrupt_dead(
    directory: Path,
    is_dead: Callable[[str], bool],
    *,
    disk: Disk | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Interruptions:
    """Close every cut trace in a directory whose epoch is dead.  Blocks; for a worker thread.

    May run any number of times and in several processes at once.  A trace that cannot be closed does not keep the
    others from being closed.  ``should_stop`` is asked at least once per MiB read; a trace that is not finished then is
    left as it was.  Memory is bounded by the longest line a trace may have.
    """
    disk = disk or Disk()
    closed: list[InterruptedTrace] = []
    moved: list[Path] = []
    failed: list[NousError] = []
    for path in sorted(directory.glob("*.ndjson")):
        if should_stop():
            return Interruptions(closed, moved, failed, is_complete=False)
        try:
            state = _look(path)
            if isinstance(state, TraceHeader) and is_dead(state.epoch):
                trace = _interrupt(disk, path, state, should_stop)
                closed += [] if trace is None else [trace]
            elif state == "headerless":
                kept = _set_aside(disk, path)
                moved += [] if kept is None else [kept]
        except _StoppedError:
            return Interruptions(closed, moved, failed, is_complete=False)
        except NousError as error:
            failed.append(error)
    return Interruptions(closed, moved, failed, is_complete=True)


def close_broken(path: Path, offset: int | None, ended_at: str | None, *, disk: Disk | None = None) -> None:
    """Cut the trace of a run that failed at ``offset``, which ends a line, and end it there as ``failed``.

    For the daemon whose run it was, once it has closed the file.  What is cut off was never published.  Blocks.
    ``offset``: None for the end of the last whole line, if the trace was cut before and the disk refused its end.
    ``ended_at``: None for the last time that is stamped in the trace.

    Raises:
        BrokenTraceError: the trace does not begin with a header.
        NousError: ``io_failure``; the trace is cut, and has no end or the one it had.
    """
    disk = disk or Disk()
    header = read_header(path)
    try:
        fd = disk.open(str(path), os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if offset is None:
                offset = whole_lines_end(fd, os.fstat(fd).st_size)
            end = _end_line(path, offset, header, "failed", ended_at)
            disk.truncate(fd, offset)
            _write_end(disk, fd, offset, end)
        finally:
            disk.close(fd)
    except OSError as error:
        raise io_failure(error, str(path)) from error


def _write_end(disk: Disk, fd: int, offset: int, line: bytes) -> None:
    try:
        write_all(disk, fd, line)
        disk.sync(fd)
    except OSError:
        with suppress(OSError):
            disk.truncate(fd, offset)
        raise


def is_headerless(path: Path) -> bool:
    """Tell whether a trace was cut within its header: it has no whole line.

    Raises:
        NousError: ``run_not_found``, ``io_failure``.
    """
    with open_trace(path) as fd:
        return _has_no_line(fd)


def _has_no_line(fd: int) -> bool:
    return whole_lines_end(fd, os.fstat(fd).st_size) == 0


def _look(path: Path) -> TraceHeader | Literal["headerless"] | None:
    """Return the header of a trace that has no end, ``"headerless"``, or ``None`` where nothing is to be done.

    A file whose first line is whole but is no header was not cut: it is damaged, which ``nous doctor`` reports.
    """
    with open_trace(path) as fd:
        if read_end(fd, os.fstat(fd).st_size) is not None:
            return None
        if _has_no_line(fd):
            return "headerless"
    try:
        return read_header(path)
    except BrokenTraceError:
        return None


@contextmanager
def _locked(disk: Disk, path: Path) -> Iterator[int | None]:
    """Open a trace for repair and lock it; ``None`` if somebody else has it locked, or it is gone."""
    try:
        fd = disk.open(str(path), os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            yield fd
        finally:
            disk.close(fd)
    except OSError as error:
        raise io_failure(error, str(path)) from error


def _set_aside(disk: Disk, path: Path) -> Path | None:
    """Move a headerless trace into the quarantine, unless it is being written or has just been made."""
    with _locked(disk, path) as fd:
        if fd is None or not _has_no_line(fd) or time.time() - os.fstat(fd).st_mtime < HEADERLESS_AGE_S:
            return None
        return set_aside(path, path.parent.parent / QUARANTINE_DIR)


def _interrupt(disk: Disk, path: Path, header: TraceHeader, should_stop: Callable[[], bool]) -> InterruptedTrace | None:
    with _locked(disk, path) as fd:
        return None if fd is None else _close_locked(disk, fd, path, header, should_stop)


def _close_locked(
    disk: Disk, fd: int, path: Path, header: TraceHeader, should_stop: Callable[[], bool]
) -> InterruptedTrace | None:
    size = os.fstat(fd).st_size
    if read_end(fd, size) is not None:
        return None  # another daemon was here between the first look and the lock
    end = whole_lines_end(fd, size)
    line = _end_line(path, end, header, "interrupted", should_stop=should_stop)
    torn = keep_torn_tail(disk, fd, str(path), end, size) if end < size else None
    _write_end(disk, fd, end, line)
    return InterruptedTrace(header.run_id, torn)


def _end_line(
    path: Path,
    end: int,
    header: TraceHeader,
    status: str,
    at: str | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bytes:
    """Return the end that fits the file's lines up to ``end``.

    ``at`` is when the run ended; left out, it is the last one that was stamped there.
    """
    digest = sha256()
    inputs = events = effects = 0
    ended_at = header.created_at
    for lines in iter_line_batches(path, 0, end):
        if should_stop():
            raise _StoppedError
        for line in lines:
            digest.update(line + b"\n")
            kind = kind_of(line)
            inputs += kind == "input"
            effects += kind == "effect"
            if kind == "event" and (head := event_head(line)) is not None and not head.feature:
                events += 1
        ended_at = last_time(lines) or ended_at
    counts = TraceCounts(inputs=inputs, events=events, effects=effects)
    untraced = True if status == "failed" else UNSET
    tail = end_line_head(TraceEnd(status=status, ended_at=at or ended_at, counts=counts, untraced_end=untraced))
    digest.update(tail)
    return tail + digest.hexdigest().encode() + b'"}\n'
