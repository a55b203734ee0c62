"""A run as people think of it: turns, messages, tool calls, notices, each with its time.  Made from its events alone.

Reads traces and event lists of any v1 implementation, whole or cut; what an event lacks is left out, and nothing is
reported as wrong: that is for ``validate``.  Of long texts the beginning is kept, and a digest of all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, field

from nous.protocol.events import FEATURE_EVENTS
from nous.replay.event_file import Json, read_events
from nous.replay.recording import Header

KEPT_CHARACTERS: Final = 256 * 1024
"""How much of a text is kept."""


class Text:
    """A text that comes in pieces: its beginning, its size, and what tells it from any other."""

    def __init__(self, text: str = "") -> None:
        self.size_bytes = 0
        self._kept: list[str] = []
        self._room = KEPT_CHARACTERS
        self._digest = hashlib.sha256()
        self.add(text)

    def add(self, piece: str) -> None:
        """Append a piece; only the beginning is kept."""
        data = piece.encode("utf-8", "surrogatepass")
        self.size_bytes += len(data)
        self._digest.update(data)
        if self._room and piece:
            self._kept.append(piece[: self._room])
            self._room -= len(self._kept[-1])

    @property
    def beginning(self) -> str:
        """The beginning of the text."""
        return "".join(self._kept)

    @property
    def is_whole(self) -> bool:
        """Whether :attr:`beginning` is all of it."""
        return len(self.beginning.encode("utf-8", "surrogatepass")) == self.size_bytes

    @property
    def digest(self) -> bytes:
        """The digest of the whole text."""
        return self._digest.digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Text) and self.digest == other.digest

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __bool__(self) -> bool:
        return self.size_bytes > 0


class Notice(Struct):
    """A warning, an error or a status.  ``at_ms`` counts from the run's first event here and below."""

    kind: str
    at_ms: int | None = None
    code: str = ""
    message: str = ""
    cause: str = ""
    tool_call_id: str = ""


class MessagePart(Struct):
    """A message.  ``first_ms`` is when its first text came; ``text_bytes`` is set at its end."""

    message_id: str
    role: str
    at_ms: int | None = None
    first_ms: int | None = None
    end_ms: int | None = None
    text: Text = field(default_factory=Text)
    text_bytes: int | None = None
    thinking: Text = field(default_factory=Text)
    deltas: int = 0
    stop_reason: str = ""
    usage: dict[str, int] | None = None


class ToolPart(Struct):
    """A tool call, with what it was called with and what it gave.

    ``arguments_bytes`` is set where arguments were too long for an event; ``result_bytes`` at the call's end.
    """

    tool_call_id: str
    name: str
    at_ms: int | None = None
    end_ms: int | None = None
    duration_ms: int | None = None
    arguments: Any = None
    arguments_bytes: int | None = None
    result: Text = field(default_factory=Text)
    result_bytes: int | None = None
    updates: int = 0
    is_error: bool | None = None
    truncated: bool = False


class ShownTurn(Struct):
    """A turn with what happened in it."""

    turn_id: str
    kind: str
    at_ms: int | None = None
    end_ms: int | None = None
    parts: list[MessagePart | ToolPart | Notice] = []


class Timeline(Struct):
    """A run.  ``parts`` are its turns, and the notices between them; ``status`` is "" for a run without an end."""

    run_id: str = ""
    session_id: str = ""
    provider: str = ""
    model: str = ""
    started_at: str = ""
    status: str = ""
    stop_reason: str = ""
    end_ms: int | None = None
    duration_ms: int | None = None
    usage: dict[str, int] | None = None
    events: int = 0
    parts: list[ShownTurn | Notice] = []
    discarded: list[Json] = []
    header: Header | None = None

    @property
    def turns(self) -> list[ShownTurn]:
        """The turns."""
        return [part for part in self.parts if isinstance(part, ShownTurn)]


def read_timeline(path: Path) -> Timeline:
    """Return the timeline of a trace or an event list.

    Raises:
        NousError: what :func:`nous.replay.event_file.read_events` raises.
    """
    header, events = read_events(path)
    timeline = make_timeline(events)
    timeline.header = header
    if header is not None:
        timeline.run_id, timeline.session_id = header.run_id, header.session_id
        timeline.provider, timeline.model = header.spec.provider, header.spec.model
    return timeline


def make_timeline(events: Iterable[Json]) -> Timeline:
    """Return the timeline of a run's events, decoded, in order."""
    builder = _Builder()
    for event in events:
        builder.take(event)
    return builder.timeline


class _Clock:
    """Turns time stamps into milliseconds since the first."""

    def __init__(self) -> None:
        self._first: datetime | None = None
        self._last: tuple[object, int | None] = (None, None)

    def ms(self, ts: object) -> int | None:
        if ts != self._last[0]:
            self._last = (ts, self._since_first(ts))
        return self._last[1]

    def _since_first(self, ts: object) -> int | None:
        try:
            at = datetime.fromisoformat(ts) if isinstance(ts, str) else None
        except ValueError:
            return None
        if at is None or (self._first is not None and (at.tzinfo is None) != (self._first.tzinfo is None)):
            return None
        if self._first is None:
            self._first = at
        return round((at - self._first).total_seconds() * 1000)


class _Builder:
    """Takes events one by one.  What is open is known by order, not by id: ids may be missing."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self._clock = _Clock()
        self._at: int | None = None
        self._turn: ShownTurn | None = None
        self._message: MessagePart | None = None
        self._tool: ToolPart | None = None
        self._handlers: dict[str, Callable[[Json], None]] = {
            "agent_start": self._on_agent_start,
            "agent_end": self._on_agent_end,
            "turn_start": self._on_turn_start,
            "turn_end": self._on_turn_end,
            "message_start": self._on_message_start,
            "message_update": self._on_message_update,
            "thinking_update": self._on_thinking,
            "message_end": self._on_message_end,
            "tool_execution_start": self._on_tool_start,
            "tool_execution_update": self._on_tool_update,
            "tool_execution_end": self._on_tool_end,
        }

    def take(self, event: Json) -> None:
        kind = event.get("type")
        payload = event.get("payload", event)
        if not isinstance(kind, str) or not isinstance(payload, dict):
            return
        self._at = self._clock.ms(event.get("ts"))
        if not self.timeline.started_at:
            self.timeline.started_at = _text(event, "ts")
        if kind in self._handlers:
            self._handlers[kind](payload)
        elif kind in ("status", "warning", "error"):
            self._add_notice(kind, payload)
        self.timeline.events += kind not in FEATURE_EVENTS

    # -- the run and its turns

    def _on_agent_start(self, payload: Json) -> None:
        for name in ("run_id", "session_id", "provider", "model"):
            setattr(self.timeline, name, _text(payload, name))

    def _on_agent_end(self, payload: Json) -> None:
        timeline = self.timeline
        timeline.status = _text(payload, "status") or "ended"
        timeline.stop_reason = _text(payload, "stop_reason")
        timeline.end_ms = self._at
        timeline.duration_ms = _number(payload, "duration_ms", self._at)
        timeline.usage = _usage(payload)
        discarded = payload.get("discarded")
        timeline.discarded = [d for d in discarded if isinstance(d, dict)] if isinstance(discarded, list) else []

    def _on_turn_start(self, payload: Json) -> None:
        number = str(len(self.timeline.turns) + 1)
        self._turn = ShownTurn(_text(payload, "turn_id") or number, _text(payload, "turn_kind"), self._at, parts=[])
        self.timeline.parts.append(self._turn)

    def _on_turn_end(self, payload: Json) -> None:
        if self._turn is not None:
            self._turn.end_ms = self._at
        self._turn = self._message = self._tool = None

    def _add(self, part: MessagePart | ToolPart) -> None:
        if self._turn is None:
            self._on_turn_start({})
        assert self._turn is not None
        self._turn.parts.append(part)

    def _add_notice(self, kind: str, payload: Json) -> None:
        names = ("code", "message", "cause", "tool_call_id")
        notice = Notice(kind, self._at, *(_text(payload, name) for name in names))
        if self._turn is not None:
            self._turn.parts.append(notice)
        else:
            self.timeline.parts.append(notice)

    # -- messages

    def _on_message_start(self, payload: Json) -> None:
        role = _text(payload, "role") or "assistant"
        self._message = MessagePart(_text(payload, "message_id"), role, self._at)
        self._add(self._message)

    def _on_message_update(self, payload: Json) -> None:
        message = self._open_message()
        message.deltas += 1
        if message.first_ms is None:
            message.first_ms = self._at
        message.text.add(_text(payload, "delta"))

    def _on_thinking(self, payload: Json) -> None:
        self._open_message().thinking.add(_text(payload, "delta"))

    def _on_message_end(self, payload: Json) -> None:
        message = self._open_message()
        message.end_ms = self._at
        message.role = _text(payload, "role") or message.role
        message.stop_reason = _text(payload, "stop_reason")
        message.usage = _usage(payload)
        if not message.text:
            message.text = Text(_text(payload, "text"))
        message.text_bytes = _number(payload, "text_bytes", message.text.size_bytes)
        self._message = None

    def _open_message(self) -> MessagePart:
        if self._message is None:
            self._on_message_start({})
        assert self._message is not None
        return self._message

    # -- tools

    def _on_tool_start(self, payload: Json) -> None:
        name = _text(payload, "tool_name")
        self._tool = ToolPart(_text(payload, "tool_call_id"), name, self._at)
        self._tool.arguments = payload.get("arguments")
        self._tool.arguments_bytes = _number(payload, "arguments_bytes", None)
        self._add(self._tool)

    def _on_tool_update(self, payload: Json) -> None:
        self._open_tool(payload).updates += 1

    def _on_tool_end(self, payload: Json) -> None:
        tool = self._open_tool(payload)
        tool.end_ms = self._at
        elapsed = None if self._at is None or tool.at_ms is None else self._at - tool.at_ms
        tool.duration_ms = _number(payload, "duration_ms", elapsed)
        tool.result = Text(_text(payload, "result"))
        tool.result_bytes = _number(payload, "result_bytes", tool.result.size_bytes)
        is_error = payload.get("is_error")
        tool.is_error = is_error if isinstance(is_error, bool) else None
        tool.truncated = payload.get("truncated") is True
        self._tool = None

    def _open_tool(self, payload: Json) -> ToolPart:
        if self._tool is None:
            self._on_tool_start(payload)
        assert self._tool is not None
        return self._tool


def _text(values: Json, name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _number(values: Json, name: str, otherwise: int | None) -> int | None:
    value = values.get(name)
    return value if type(value) is int else otherwise


def _usage(payload: Json) -> dict[str, int] | None:
    usage = payload.get("usage")
    if not isinstance(usage, dict):
        return None
    return {name: count for name, count in usage.items() if type(count) is int}
