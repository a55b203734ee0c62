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
    __slots__ = ("arguments", "id", "index", "name")

    def __init__(self, index: int, call_id: str) -> None:
        self.index = index
        self.id = call_id
        self.name = ""
        self.arguments: list[str] = []

    def block(self) -> ToolCallBlock:
        return ToolCallBlock(id=self.id, name=self.name, arguments="".join(self.arguments))


class _Thought:
    __slots__ = ("pieces", "signature")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.signature: str | None = None

    def block(self) -> ThinkingBlock:
        return ThinkingBlock(text="".join(self.pieces), signature=self.signature)


class StreamedAnswer:
    """Collects items of one model call.  Costs nothing per delta but a list append.

    ``text`` takes pieces of text.  ``usage`` is the last one reported, ``has_usage`` whether one was.
    """

    def __init__(self, message_id: str, taken_call_ids: set[str]) -> None:
        self.message_id = message_id
        self.opened = False
        self.size_bytes = 0
        self.text: list[str] = []
        self._joined: list[str] = []
        self.usage = Usage()
        self.has_usage = False
        self.finish: FinishReason | None = None
        self.finish_word = ""
        self._has_thought = False
        self._parts: list[_Thought | TextBlock | _Call] = []
        self._calls: dict[int, _Call] = {}
        self._taken = taken_call_ids

    @property
    def is_cut(self) -> bool:
        """Whether the answer ended before the model closed it, or for a reason that is not known."""
        return self.finish in ("length", "other")

    def report(self, usage: Usage) -> None:
        """Take a usage report; the last one counts."""
        self.usage = usage
        self.has_usage = True

    def add_thinking(self, text: str, signature: str | None) -> None:
        """Join a piece of thinking; a signature ends the block it belongs to."""
        self._has_thought = True
        if text or signature:
            self._open_thought().pieces.append(text)
        if signature:
            self._open_thought().signature = signature
        self.size_bytes += len(text.encode()) + len((signature or "").encode())

    def add_call(self, delta: ToolCallDelta) -> str:
        """Join one fragment; return the id of its call.

        The model's id is kept if it is usable and new in this run, else one is derived from the message's.
        """
        call = self._calls.get(delta.index)
        if call is None:
            self._close_text()
            call = self._calls[delta.index] = _Call(delta.index, self._choose_id(delta))
            self._parts.append(call)
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
        """Return the text so far."""
        closed = [part.text for part in self._parts if isinstance(part, TextBlock)]
        return "".join([*closed, *self._joined, *self.text])

    def calls(self) -> list[ToolCallBlock]:
        """Return the tool calls in the order of their indices."""
        return [call.block() for _, call in sorted(self._calls.items())]

    def blocks(self) -> tuple[Block, ...]:
        """Return the parts of the answer in the order in which they came."""
        self._close_text()
        return tuple(part if isinstance(part, TextBlock) else part.block() for part in self._parts)

    def sorted_blocks(self) -> tuple[Block, ...]:
        """Return the answer as one block of thinking, one of text, and the calls in the order of their indexes."""
        out: list[Block] = []
        if self._has_thought:
            thoughts = [part for part in self._parts if isinstance(part, _Thought)]
            signatures = [thought.signature for thought in thoughts if thought.signature]
            pieces = [piece for thought in thoughts for piece in thought.pieces]
            out.append(ThinkingBlock(text="".join(pieces), signature=signatures[-1] if signatures else None))
        if text := self.full_text():
            out.append(TextBlock(text=text))
        return (*out, *self.calls())

    def _open_thought(self) -> _Thought:
        """Return the thought that goes on, or a new one: behind anything else, and behind a signature."""
        self._close_text()
        last = self._parts[-1] if self._parts else None
        if isinstance(last, _Thought) and last.signature is None:
            return last
        thought = _Thought()
        self._parts.append(thought)
        return thought

    def _close_text(self) -> None:
        """Make a part of the text since the last one."""
        if self.text or self._joined:
            if text := "".join([*self._joined, *self.text]):
                self._parts.append(TextBlock(text))
            self._joined.clear()
            self.text.clear()


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
