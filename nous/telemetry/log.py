"""Logs: one JSON object per line on stderr, with stable event names.

    {"ts":"2026-11-21T10:00:00.123Z","level":"info","room":"runtime","event":"run_started","run_id":"..."}

    log = get_log("runtime")
    log.info("run_started", run_id=run_id)

An event is a fixed name, never a sentence with values in it; values are fields, made plain and bounded and freed of
secrets by :mod:`nous.telemetry.fields`.  What people, models and tools said does not belong into a log.

Logging never raises and never waits: a record is put into a bounded queue, and a thread writes it
(:mod:`nous.telemetry.writer`).  A daemon that logs nothing pays for neither thread nor structlog.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final, Literal

from nous.telemetry.fields import plain_fields
from nous.telemetry.writer import FLUSH_TIMEOUT_MS, LogWriter, Record, write_now

Level = Literal["debug", "info", "warning", "error"]

_RANKS: Final[dict[Level, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
MIN_SECRET_CHARACTERS: Final = 6


class _Logging:
    """The logging of this process: one for all rooms, quiet (warnings only) until it is configured."""

    def __init__(self) -> None:
        self.threshold = _RANKS["warning"]
        self.context: dict[str, object] = {}
        self.secrets: tuple[str, ...] = ()
        self.writer = LogWriter()

    def emit(self, level: Level, room: str, event: str, fields: dict[str, object]) -> None:
        try:
            plain = {**self.context, **plain_fields(fields, self.secrets)}
            self.writer.put(Record(time.time_ns(), level, room, event, plain))
        except Exception:
            self.writer.drop()


_logging: Final = _Logging()


class Log:
    """What one room logs with.  No method raises or waits; ``event`` is a fixed name in lower case."""

    __slots__ = ("_room",)

    def __init__(self, room: str) -> None:
        self._room = room

    def debug(self, event: str, /, **fields: object) -> None:
        """Log an event at level ``debug``."""
        if _logging.threshold <= _RANKS["debug"]:
            _logging.emit("debug", self._room, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """Log an event at level ``info``."""
        if _logging.threshold <= _RANKS["info"]:
            _logging.emit("info", self._room, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Log an event at level ``warning``."""
        if _logging.threshold <= _RANKS["warning"]:
            _logging.emit("warning", self._room, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        """Log an event at level ``error``."""
        _logging.emit("error", self._room, event, fields)

    def last(self, event: str, /, **fields: object) -> None:
        """Write an error at once, past the queue, if stderr takes it without blocking: the process is about to end."""
        with suppress(Exception):
            plain = {**_logging.context, **plain_fields(fields, _logging.secrets)}
            write_now(Record(time.time_ns(), "error", self._room, event, plain))


def get_log(room: str) -> Log:
    """Return the log of a room (``runtime``, ``store`` ...)."""
    return Log(room)


def configure(level: Level, *, correlation_id: str | None = None, epoch: str | None = None) -> None:
    """Set the least important level that is written, and the ids that every record carries.

    A field of the same name given with a record wins over the id given here.
    """
    _logging.threshold = _RANKS[level]
    ids = {"epoch": epoch, "correlation_id": correlation_id}
    _logging.context = plain_fields({name: value for name, value in ids.items() if value is not None})


def hide_value(secret: str) -> None:
    """Replace ``secret`` wherever it turns up in a record from now on.

    Values of fewer than six characters are left alone: hiding them would shred ordinary words.
    """
    if len(secret) >= MIN_SECRET_CHARACTERS and secret not in _logging.secrets:
        # Longest first: of two secrets that begin alike, no rest of the longer one stays.
        _logging.secrets = tuple(sorted((*_logging.secrets, secret), key=len, reverse=True))


def flush(timeout_ms: int = FLUSH_TIMEOUT_MS) -> bool:
    """Wait until what was logged so far is written; false if that took longer.  Happens by itself at exit."""
    return _logging.writer.flush(timeout_ms)
