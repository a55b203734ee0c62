"""One assistant message while it streams: text, thinking and tool calls joined from their pieces."""

from __future__ import annotations

from typing import Any

import msgspec

from nous.ports.model import FinishReason, ToolCallDelta
from nous.protocol.codec import nests_too_deep
from nous.protocol.messages import Block, TextBlock, ThinkingBlock, ToolCallBlock, Usage

MAX_TOOL_CALL_ID = 128
PIECES_KEPT = 4096


class _Call:
    __slots__ = ("arguments", "id", "name")

    def __init__(self, call_id: str) -> None:
        self.id = call_id
        self.name = ""
        self.arguments: list[str] = []


class Answer:
    """Collects items of one model call.  Costs nothing per delta but a list append."""

    def __init__(self, message_id: str, taken_call_ids: set[str]) -> None:
        self.message_id = message_id
        self.opened = False
        self.size_bytes = 0
        self.text: list[str] = []
        self._joined: list[str] = []
        self.usage = Usage()
        self.finish: FinishReason | None = None
        self._thinking: list[str] = []
        self._signature: str | None = None
        self._calls: dict[int, _Call] = {}
        self._taken = taken_call_ids

    def add_thinking(self, text: str, signature: str | None) -> None:
        self._thinking.append(text)
        self._signature = signature or self._signature
        self.size_bytes += len(text.encode()) + len((signature or "").encode())

    def add_call(self, delta: ToolCallDelta) -> str:
        """Join one fragment; return the id of its call.

        The model's id is kept if it is usable and new in this run, else one is derived from the message's.
        """
        call = self._calls.get(delta.index)
        if call is None:
            call = self._calls[delta.index] = _Call(self._choose_id(delta))
            self._taken.add(call.id)
            self.size_bytes += len(call.id.encode())
        if delta.name and not call.name:
            call.name = delta.name
            self.size_bytes += len(delta.name.encode())
        if delta.arguments:
            call.arguments.append(delta.arguments)
            self.size_bytes += len(delta.arguments.encode())
        return call.id

    def _choose_id(self, delta: ToolCallDelta) -> str:
        if delta.id and len(delta.id) <= MAX_TOOL_CALL_ID and delta.id not in self._taken:
            return delta.id
        derived = f"{self.message_id}-t{delta.index}"
        while derived in self._taken:
            derived += "x"
        return derived

    def compact(self) -> None:
        """Join the pieces so far if they are many: a string costs memory beyond its characters."""
        if len(self.text) >= PIECES_KEPT:
            self._joined.append("".join(self.text))
            self.text.clear()

    def full_text(self) -> str:
        return "".join([*self._joined, *self.text])

    def calls(self) -> list[ToolCallBlock]:
        return [
            ToolCallBlock(id=c.id, name=c.name, arguments="".join(c.arguments)) for _, c in sorted(self._calls.items())
        ]

    def blocks(self, text: str) -> tuple[Block, ...]:
        out: list[Block] = []
        if self._thinking or self._signature:
            out.append(ThinkingBlock(text="".join(self._thinking), signature=self._signature))
        if text:
            out.append(TextBlock(text=text))
        out.extend(self.calls())
        return tuple(out)


def parse_arguments(text: str) -> dict[str, Any] | None:
    """Return a tool call's arguments as an object; no text at all means none; None if it is not an object."""
    if not text.strip():
        return {}
    if nests_too_deep(text.encode()):
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
