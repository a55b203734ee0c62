"""Items from the events of a streamed message.  Pure; see :mod:`nous.providers.anthropic`.

Source: Anthropic's API reference, "Streaming Messages".  Events and blocks that are not known are passed over, as it
asks: citations, server tools, pings.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct

from nous.errors import NousError
from nous.ports.model import Finish, FinishReason, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import Usage
from nous.providers.decoding import decode_event, encode_text
from nous.providers.faults import CUT, fault_in_stream, malformed
from nous.providers.text import TextChannel

REDACTED: Final = "redacted:"
"""Stands before the data of thinking that came without text.  No signature has a colon in it: they are base64."""


class _Delta(Struct, gc=False):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Block(Struct, gc=False):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None


class _OutputDetails(Struct, gc=False):
    thinking_tokens: int | None = None


class _Usage(Struct, gc=False):
    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Message(Struct, gc=False):
    usage: _Usage | None = None


class _Event(Struct, gc=False):
    type: str | None = None
    index: int | None = None
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: _Usage | None = None
    error: Any = None


_events: Final = msgspec.json.Decoder(_Event)

_REASONS: Final[dict[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_use",
    "refusal": "refusal",
}
"""The vendor's reasons.  A reason not listed here still means that the model closed its answer."""


def error_parts(error: object) -> tuple[list[object], object]:
    """Return what may classify an error object: its word, and its sentence."""
    return ([error.get("type")], error.get("message")) if isinstance(error, dict) else ([], None)


class _OpenBlock:
    """A content block between its start and its stop."""

    __slots__ = ("channel", "has_input", "index", "input", "kind", "signature")

    def __init__(self, kind: str, index: int = 0) -> None:
        self.kind = kind
        self.index = index
        self.channel = TextChannel()
        self.signature = ""
        self.input: Any = None
        self.has_input = False


class AnthropicParser:
    """See :class:`nous.providers.adapter.ItemParser`."""

    def __init__(self) -> None:
        self.finished = False
        self.done = False
        self._blocks: dict[int, _OpenBlock] = {}
        self._calls = 0
        self._usage = _Usage()
        self._has_usage = False

    def feed(self, data: bytes, items: list[ModelItem]) -> None:
        event = decode_event(_events, data, "a message event")
        kind = event.type
        if kind == "content_block_delta":
            if event.delta is not None and not self.finished:
                self._take(event.index or 0, event.delta, items)
        elif kind == "content_block_start":
            if event.content_block is not None and not self.finished:
                self._open(event.index or 0, event.content_block, items)
        elif kind == "content_block_stop":
            self._close(event.index or 0, items)
        elif kind == "message_start":
            self._count(event.message.usage if event.message is not None else None)
        elif kind == "message_delta":
            self._count(event.usage)
            if event.delta is not None and event.delta.stop_reason and not self.finished:
                self._finish(event.delta.stop_reason, items)
        elif kind == "message_stop":
            self.done = True
            self.finish(items)
        elif kind == "error" or event.error:
            raise fault_in_stream(*error_parts(event.error))

    def finish(self, items: list[ModelItem]) -> None:
        if not self.finished:
            raise NousError("provider_unavailable", CUT)
        self._report_usage(items)

    def _open(self, index: int, block: _Block, items: list[ModelItem]) -> None:
        kind = block.type or ""
        opened = self._blocks[index] = _OpenBlock(kind, self._calls)
        if kind == "tool_use":
            self._calls += 1
            opened.input = block.input
            items.append(ToolCallDelta(opened.index, block.id or None, block.name or None))
        elif kind == "redacted_thinking":
            items.append(ThinkingDelta("", REDACTED + (block.data or "")))
        elif kind == "thinking":
            opened.signature = block.signature or ""
            items.extend(map(ThinkingDelta, opened.channel.feed(block.thinking or "")))
        elif kind == "text":
            items.extend(map(TextDelta, opened.channel.feed(block.text or "")))

    def _take(self, index: int, delta: _Delta, items: list[ModelItem]) -> None:
        block = self._blocks.get(index)
        if block is None:
            raise malformed("a delta without its block")
        if delta.text is not None and block.kind == "text":
            items.extend(map(TextDelta, block.channel.feed(delta.text)))
        elif delta.thinking is not None and block.kind == "thinking":
            items.extend(map(ThinkingDelta, block.channel.feed(delta.thinking)))
        elif delta.partial_json is not None and block.kind == "tool_use":
            block.has_input = block.has_input or bool(delta.partial_json)
            for piece in block.channel.feed(delta.partial_json):
                items.append(ToolCallDelta(block.index, arguments=piece))
        elif delta.signature is not None and block.kind == "thinking":
            block.signature += delta.signature

    def _close(self, index: int, items: list[ModelItem]) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        pieces = block.channel.flush()
        if block.kind == "text":
            items.extend(map(TextDelta, pieces))
        elif block.kind == "thinking":
            items.extend(map(ThinkingDelta, pieces))
            if block.signature:
                items.append(ThinkingDelta("", block.signature))
        elif block.kind == "tool_use":
            # Some servers send the whole input at the start and no deltas.
            if not block.has_input and isinstance(block.input, dict) and block.input:
                pieces = block.channel.feed(encode_text(block.input))
            items.extend(ToolCallDelta(block.index, arguments=piece) for piece in pieces)

    def _finish(self, reason: str, items: list[ModelItem]) -> None:
        for index in sorted(self._blocks):
            self._close(index, items)
        self._report_usage(items)
        known = _REASONS.get(reason, "stop")
        if known in ("stop", "tool_use"):
            known = "tool_use" if self._calls else "stop"
        items.append(Finish(known))
        self.finished = True

    def _count(self, found: _Usage | None) -> None:
        """Take note of counts: each says how many there were so far, those left out have not changed."""
        if found is None:
            return
        for name in found.__struct_fields__:
            value = getattr(found, name)
            if value is not None:
                setattr(self._usage, name, value)
        self._has_usage = True

    def _report_usage(self, items: list[ModelItem]) -> None:
        if not self._has_usage:
            return
        self._has_usage = False
        used = self._usage
        cached, written = used.cache_read_input_tokens or 0, used.cache_creation_input_tokens or 0
        details = used.output_tokens_details
        items.append(
            UsageReport(
                Usage(
                    input_tokens=(used.input_tokens or 0) + written + cached,
                    output_tokens=used.output_tokens or 0,
                    cached_tokens=cached,
                    reasoning_tokens=(details.thinking_tokens or 0) if details is not None else 0,
                    cache_write_tokens=written or UNSET,
                )
            )
        )
