"""A run as a person reads it: the text on stdout as it comes, everything else as short lines on stderr."""

from __future__ import annotations

from typing import Any, Final, Protocol

import msgspec

from nous.cli.terminal import is_terminal, many_lines, note, write_bytes
from nous.client import Event

MAX_VALUE_CHARACTERS: Final = 60
MAX_ARGUMENTS_CHARACTERS: Final = 160


class Writer(Protocol):
    """Shows a run's events; ``flush`` is called when no further event is there yet."""

    def show(self, event: Event) -> None:
        """Take an event."""

    def flush(self) -> None:
        """Write what was collected."""


class EventLines:
    """Writes the event lines as they came."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def show(self, event: Event) -> None:
        """Collect an event's line."""
        self._lines.append(event.line)

    def flush(self) -> None:
        """Write what was collected."""
        if self._lines:
            lines, self._lines = self._lines, []
            write_bytes(b"\n".join(lines) + b"\n")


class Transcript:
    """Writes the assistant's text to stdout (escaped on a terminal), tool calls, warnings and errors to stderr."""

    def __init__(self) -> None:
        self._is_terminal = is_terminal()
        self._text: list[str] = []
        self._last = "\n"

    def show(self, event: Event) -> None:
        """Show an event as text."""
        match event.type:
            case "message_update":
                self._add(event.payload["delta"])
            case "message_end" if event.payload.get("role") != "user":
                self._add("" if self._last == "\n" else "\n")
                if note := short_of_end(event.payload):
                    self._note(note)
            case "tool_execution_start":
                self._note(f"{event.payload['tool_name']} {short_arguments(event.payload.get('arguments'))}".rstrip())
            case "tool_execution_end":
                self._note(tool_end(event.payload))
            case "warning" if "tool_call_id" in event.payload:
                # The end of that call says it too.
                return
            case "warning" | "error":
                self._note(f"{event.type}: {complaint(event.payload)}")

    def flush(self) -> None:
        """Write the text that was collected."""
        if self._text:
            text = "".join(self._text)
            self._text.clear()
            write_bytes((many_lines(text) if self._is_terminal else text).encode())

    def _add(self, text: str) -> None:
        if text:
            self._text.append(text)
            self._last = text[-1]

    def _note(self, line: str) -> None:
        """Write a line to stderr, behind all text that came before it."""
        self.flush()
        note(line)


class OutputValue(Transcript):
    """Writes the value of a structured output to stdout, as the model wrote it, and everything else to stderr.

    Nothing goes to stdout unless the run completes, so that a program never reads a value that does not fit.
    """

    def __init__(self) -> None:
        super().__init__()
        self._value: list[str] = []

    def show(self, event: Event) -> None:
        """Collect the answer; write it once the run has completed."""
        match event.type:
            case "message_start":
                self._value.clear()
            case "message_update":
                self._value.append(event.payload["delta"])
            case "agent_end" if event.payload.get("status") == "completed":
                self._add("".join(self._value).strip() + "\n")
            case _:
                super().show(event)


def short_arguments(arguments: object) -> str:
    """Return a call's arguments for one line: ``path=notes.txt limit=20``."""
    if not isinstance(arguments, dict):
        return "" if arguments is None else _cut(str(arguments), MAX_VALUE_CHARACTERS)
    parts = (f"{name}={_cut(_plain(value), MAX_VALUE_CHARACTERS)}" for name, value in arguments.items())
    return _cut(" ".join(parts), MAX_ARGUMENTS_CHARACTERS)


def tool_end(payload: dict[str, Any]) -> str:
    """Return how a call ended: ``read ok 3 ms``, or with the result's first line if it failed."""
    is_error = payload.get("is_error", False)
    line = f"{payload['tool_name']} {'error' if is_error else 'ok'}"
    if payload.get("duration_ms", -1) >= 0:
        line += f" {payload['duration_ms']} ms"
    return f"{line}: {_cut(payload['result'].partition(chr(10))[0], MAX_ARGUMENTS_CHARACTERS)}" if is_error else line


def short_of_end(payload: dict[str, Any]) -> str:
    """Return what to say of an answer that the model did not close; ``""`` for any other."""
    if payload.get("stop_reason") == "length":
        return "length: the answer was cut by the limit of output tokens"
    if payload.get("stop_reason") == "other":
        word = _cut(str(payload.get("finish_reason", "")), MAX_VALUE_CHARACTERS)
        return f"other: the answer ended for the reason {word}"
    return ""


def complaint(payload: dict[str, Any]) -> str:
    """Return what a warning or an error says: ``code: message (cause)``.

    In errors of this version the message holds the cause already.
    """
    message, cause = payload["message"], payload.get("cause")
    return f"{payload['code']}: {message}" + (f" ({cause})" if cause and cause not in message else "")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
