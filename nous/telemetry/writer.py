"""The thread that renders log records and writes them to stderr.

Nobody else ever waits for stderr: a reader that has stalled stops this thread alone.  The queue in front of it is
bounded; what does not fit is counted, and the count is written as ``log_dropped`` as soon as something can be.

structlog renders.  It is imported by the thread, with the first record: it takes tens of milliseconds, which neither
the start of a daemon nor its event loop should spend.
"""

from __future__ import annotations

import atexit
import errno
import os
import select
import sys
import threading
import time
from collections.abc import MutableMapping
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

import msgspec

MAX_QUEUED: Final = 256
"""Records that may wait.  Each holds a few KiB at most, so a stalled reader costs about a megabyte."""

MAX_LINE_BYTES: Final = 4096
"""What a pipe takes in one piece: lines of several processes that share a stderr do not mix."""

FLUSH_TIMEOUT_MS: Final = 1000
"""A reader of stderr that has stalled delays the end of a process by no more than this."""

_STDERR: Final = 2
_NS_PER_S: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000
_FIRST: Final = ("ts", "level", "room", "event")
_IDS: Final = frozenset({"epoch", "correlation_id", "run_id", "session_id"})
_GONE: Final = frozenset({errno.EPIPE, errno.EBADF, errno.EIO, errno.ECONNRESET})
"""Errors after which nobody will ever read stderr again; others (a full disk) may pass."""


class Record(NamedTuple):
    """What is to be written: plain, bounded ``fields``, and when it happened (nanoseconds since 1970)."""

    time_ns: int
    level: str
    room: str
    event: str
    fields: dict[str, Any]


class LogWriter:
    """Takes records from any thread and writes them, in order, from its own."""

    def __init__(self) -> None:
        # A process that was started with stderr closed gives its number to the next file it opens.
        self._gone = sys.__stderr__ is None
        self._queue: SimpleQueue[Record | threading.Event] = SimpleQueue()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._dropped = 0
        self._logger: Any = None

    def put(self, record: Record) -> None:
        """Hand over a record; drop and count it if too many wait already.  Never waits."""
        if self._gone:
            return
        if self._queue.qsize() >= MAX_QUEUED:
            self.drop()
            return
        self._queue.put(record)
        if self._thread is None:
            self._start()

    def drop(self, count: int = 1) -> None:
        """Count records that are not going to be written."""
        with self._lock:
            self._dropped += count

    def flush(self, timeout_ms: int = FLUSH_TIMEOUT_MS) -> bool:
        """Wait until all records put so far are written; false if they were not in time."""
        if self._thread is None:
            return True
        reached = threading.Event()
        self._queue.put(reached)
        return reached.wait(timeout_ms / 1000)

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="nous-log", daemon=True)
            self._thread.start()
            atexit.register(self.flush)

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, Record):
                self._write(item)
            if self._dropped and self._queue.empty():
                self._report_dropped()
            if isinstance(item, threading.Event):
                item.set()

    def _report_dropped(self) -> None:
        with self._lock:
            count, self._dropped = self._dropped, 0
        if not self._render(Record(time.time_ns(), "warning", "telemetry", "log_dropped", {"count": count})):
            self.drop(count)

    def _write(self, record: Record) -> None:
        if not self._render(record):
            self.drop()

    def _render(self, record: Record) -> bool:
        """Render a record to stderr; false if that failed.  No failure of a log is anybody else's."""
        if self._gone:
            return False
        try:
            if self._logger is None:
                self._logger = _try_logger()
            if self._logger is None:
                _Stderr().write(_encode_line(_ordered(record, record.level)))
            else:
                getattr(self._logger, record.level)(record.event, record=record)
        except Exception as error:
            self._gone = isinstance(error, OSError) and error.errno in _GONE
            return False
        return True


class _Stderr:
    """Where structlog puts its rendered lines: its methods are the levels' names."""

    def write(self, line: bytes) -> None:
        while line:
            try:
                line = line[os.write(_STDERR, line) :]
            except BlockingIOError:  # whoever shares this stderr made it non-blocking
                poller = select.poll()
                poller.register(_STDERR, select.POLLOUT)
                poller.poll()

    debug = info = warning = error = write


def _try_logger() -> Any:
    """Return structlog's logger; None while it cannot be imported, because no descriptor is free."""
    try:
        return _make_logger()
    except (OSError, ImportError):
        return None


def _make_logger() -> Any:
    import structlog

    renderer = structlog.processors.JSONRenderer(serializer=_encode_line)
    return structlog.wrap_logger(
        _Stderr(), processors=[_arrange, renderer], wrapper_class=structlog.BoundLogger, context_class=dict
    ).bind()


def _arrange(_logger: object, level: str, event_dict: MutableMapping[str, Any]) -> dict[str, Any]:
    """Put what every record has first, then its own fields (a structlog processor)."""
    return _ordered(event_dict["record"], level)


def _ordered(record: Record, level: str) -> dict[str, Any]:
    own = {f"{name}_" if name in _FIRST else name: value for name, value in record.fields.items()}
    first = (format_time(record.time_ns), level, record.room, record.event)
    return dict(zip(_FIRST, first, strict=True)) | own


def write_now(record: Record) -> None:
    """Write one record from the calling thread, without structlog, if stderr takes a line without blocking."""
    poll = select.poll()
    poll.register(_STDERR, select.POLLOUT)
    if poll.poll(0):
        os.write(_STDERR, _encode_line(_ordered(record, record.level)))


def _encode_line(fields: dict[str, Any], **_options: object) -> bytes:
    line = msgspec.json.encode(fields) + b"\n"
    if len(line) <= MAX_LINE_BYTES:
        return line
    kept = {name: value for name, value in fields.items() if name in _FIRST or name in _IDS}
    return msgspec.json.encode(kept | {"fields_omitted": len(fields) - len(kept)}) + b"\n"


def format_time(time_ns: int) -> str:
    """Return nanoseconds since 1970 as RFC 3339 UTC with milliseconds."""
    second, rest_ns = divmod(time_ns, _NS_PER_S)
    return time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)) + f"{rest_ns // _NS_PER_MS:03d}Z"
