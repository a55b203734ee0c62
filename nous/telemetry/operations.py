"""The operational log: when a command of nous started, how it ended, how long it took.  Off unless a setting asks.

``<state>/operations.ndjson`` (0600), one line per start and per end, appended with one write each, so that any number
of processes share it.  A start without an end with the same ``pid`` and ``correlation_id`` was killed.  Nothing of
content stands in it: only names of commands, categories and codes of errors, numbers and ids.  Its lines are published
as ``protocol/v1/operations.schema.json``.

Whatever goes wrong with it changes no outcome: it is reported once, as ``operations_log_failed``, and nothing else.
"""

import inspect
import os
import stat
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from nous.errors import NousError
from nous.telemetry.log import get_log
from nous.telemetry.writer import format_time

FILE_NAME: Final = "operations.ndjson"
DOCUMENT_NAME: Final = "operations.schema.json"

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_PRIVATE: Final = 0o600
_NS_PER_MS: Final = 1_000_000

Time = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]
Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
Name = Annotated[str, Meta(pattern=r"^[a-z_]{1,64}$")]


class _Line(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="event"):
    ts: Time
    correlation_id: Id
    pid: Annotated[int, Meta(ge=1)]
    command: Name


class CommandStarted(_Line, frozen=True, kw_only=True, tag="command_started"):
    """A command of nous read its configuration and began."""

    version: str


class CommandEnded(_Line, frozen=True, kw_only=True, tag="command_ended"):
    """It ended.  ``elapsed_ms`` since it was called; category and code are null where no error was reported."""

    exit_code: Annotated[int, Meta(ge=0, le=255)]
    error_category: Name | None
    error_code: Name | None
    elapsed_ms: Annotated[int, Meta(ge=0)]


class OperationsLog:
    """What is logged of this process's one command.  No method raises."""

    def __init__(self) -> None:
        self._log = get_log("telemetry")
        self._clear("")

    def _clear(self, command: str) -> None:
        self._command = command
        self._called_ns = time.monotonic_ns()
        self._path: Path | None = None
        self._correlation_id = ""
        self._error: NousError | None = None

    def call(self, command: str) -> None:
        """A command was called: from here on its time counts."""
        self._clear(command)

    def start(self, state_root: Path, correlation_id: str, version: str) -> None:
        """The settings ask for the log: write that the command started.  Once per call."""
        if self._path is not None or not self._command:
            return
        self._path = state_root / FILE_NAME
        self._correlation_id = correlation_id
        self._write(CommandStarted, version=version)

    def note(self, error: NousError) -> None:
        """The command reports this error."""
        self._error = error

    def end(self, exit_code: int) -> None:
        """The command ends, if its start was logged."""
        error = self._error
        self._write(
            CommandEnded,
            exit_code=exit_code,
            error_category=None if error is None else error.category,
            error_code=None if error is None else error.code,
            elapsed_ms=(time.monotonic_ns() - self._called_ns) // _NS_PER_MS,
        )

    def _write(self, kind: type[_Line], **fields: object) -> None:
        if self._path is None:
            return
        try:
            line = kind(
                ts=format_time(time.time_ns()),
                correlation_id=self._correlation_id,
                pid=os.getpid(),
                command=self._command,
                **fields,
            )
            _append(self._path, msgspec.json.encode(line) + b"\n")
        except Exception as error:
            self._path = None  # said once
            self._log.warning("operations_log_failed", error=error)


operations: Final = OperationsLog()
"""The log of this process."""


def _append(path: Path, line: bytes) -> None:
    fd = os.open(path, _FLAGS, _PRIVATE)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("not a regular file")
        if os.write(fd, line) != len(line):
            raise OSError("a line was cut")
    finally:
        os.close(fd)


def operations_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a line."""
    kinds = (CommandStarted, CommandEnded)
    _, found = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    for kind in kinds:
        found[kind.__name__]["description"] = inspect.cleandoc(kind.__doc__ or "")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:nous:protocol:v1:operations",
        "title": "nous operational log, version 1",
        "description": "A line of operations.ndjson: a command of nous started, or ended.",
        "oneOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds],
        "$defs": found,
    }
