"""Items from the events of a streamed message.  Pure; see :mod:`nous.providers.anthropic`.

Source: Anthropic's API reference, "Streaming Messages".  Events and blocks that are not known are passed over, as it
asks: citations, server tools, pings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct

from nous.ports.model import ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import Usage
from nous.providers.decoding import decode_event, encode_text, read_count, read_details, read_id, read_index, read_usage
from nous.providers.ending import EndingParser
from nous.providers.faults import fault_in_stream, malformed
from nous.providers.text import TextChannel, clean
from nous.providers.vendor_errors import error_parts

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
    id: Any = None
    name: str | None = None
    input: Any = None


class _Message(Struct, gc=False):
    content: list[_Block] | None = None
    usage: Any = None


class _Event(Struct, gc=False):
    type: str | None = None
    index: Any = None
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: Any = None
    error: Any = None


_events: Final = msgspec.json.Decoder(_Event)

_KINDS: Final = ("text", "thinking", "redacted_thinking", "tool_use")


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


class AnthropicParser(EndingParser):
    """See :class:`nous.providers.adapter.ItemParser`.  ``names``: the tools' names for those on the wire."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._names = names or {}
        self._blocks: dict[int, _OpenBlock] = {}
        self._calls = 0
        self._whole: list[_Block] = []
        self._usage: dict[str, Any] = {}
        self._is_usage_known = True

    def feed(self, data: bytes, items: list[ModelItem]) -> None:
        """Take the data of one event and append what it says."""
        event = decode_event(_events, data, "a message event")
        kind = event.type
        if kind == "content_block_delta":
            if event.delta is not None:
                self._take(_index(event), event.delta, items)
        elif kind == "content_block_start":
            if event.content_block is not None:
                self._open(_index(event), event.content_block, items)
        elif kind == "content_block_stop":
            self._close_block(_index(event), items)
        elif kind == "message_start":
            if event.message is not None:
                self._count(event.message.usage)
                self._whole = event.message.content or []
        elif kind == "message_delta":
            self._count(event.usage)
            if event.delta is not None and event.delta.stop_reason:
                self._take_reason(event.delta.stop_reason)
        elif kind == "message_stop":
            self._finish_marked(items)
        elif kind == "error" or event.error:
            raise fault_in_stream(*error_parts(event.error))

    def _open(self, index: int, block: _Block, items: list[ModelItem]) -> None:
        self._close_block(index, items)
        kind = block.type or ""
        opened = self._blocks[index] = _OpenBlock(kind, self._calls)
        if kind == "tool_use":
            if not block.name:
                raise malformed("a tool call has no name")
            self._has_calls = True
            self._note_answer()
            self._calls += 1
            opened.input = block.input
            name = self._names.get(block.name, clean(block.name))
            items.append(ToolCallDelta(opened.index, read_id(block.id) or None, name))
        elif kind == "redacted_thinking":
            self._note_more()
            items.append(ThinkingDelta("", REDACTED + clean(block.data or "")))
        elif kind == "thinking":
            opened.signature = block.signature or ""
            self._think(opened, block.thinking or "", items)
        elif kind == "text":
            self._say(opened, block.text or "", items)
        else:
            self._passed_over = "blocks that are not text"

    def _take(self, index: int, delta: _Delta, items: list[ModelItem]) -> None:
        block = self._blocks.get(index)
        if block is None:
            raise malformed("a delta without its block")
        if delta.text is not None:
            self._check_kind(block, "text")
            self._say(block, delta.text, items)
        elif delta.thinking is not None:
            self._check_kind(block, "thinking")
            self._think(block, delta.thinking, items)
        elif delta.partial_json is not None:
            self._check_kind(block, "tool_use")
            self._argue(block, delta.partial_json, items)
        elif delta.signature is not None and block.kind == "thinking":
            block.signature += delta.signature

    def _check_kind(self, block: _OpenBlock, kind: str) -> None:
        """Raise if a delta does not belong into its block; what is within a block of no known kind is passed over."""
        if block.kind != kind and block.kind in _KINDS:
            raise malformed(f"a delta of {kind} in a block of {block.kind}")

    def _say(self, block: _OpenBlock, text: str, items: list[ModelItem]) -> None:
        if text and block.kind == "text":
            if self._is_waiting:
                self._note_answer()
            items.extend(map(TextDelta, block.channel.feed(text)))

    def _think(self, block: _OpenBlock, text: str, items: list[ModelItem]) -> None:
        if text and block.kind == "thinking":
            self._note_more()
            items.extend(map(ThinkingDelta, block.channel.feed(text)))

    def _argue(self, block: _OpenBlock, text: str, items: list[ModelItem]) -> None:
        if text and block.kind == "tool_use":
            self._note_more()
            block.has_input = True
            items.extend(ToolCallDelta(block.index, arguments=piece) for piece in block.channel.feed(text))

    def _close_block(self, index: int, items: list[ModelItem]) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        pieces = block.channel.flush()
        if block.kind == "text":
            items.extend(map(TextDelta, pieces))
        elif block.kind == "thinking":
            items.extend(map(ThinkingDelta, pieces))
            if block.signature:
                items.append(ThinkingDelta("", clean(block.signature)))
        elif block.kind == "tool_use":
            # Some servers send the whole input at the start and no deltas.
            if not block.has_input and block.input:
                pieces = block.channel.feed(_input_text(block.input))
            items.extend(ToolCallDelta(block.index, arguments=piece) for piece in pieces)

    def _close(self, items: list[ModelItem]) -> None:
        if not self._has_answer:
            # Some servers send the whole message at the start and no blocks.
            for index, block in enumerate(self._whole):
                self._open(index, block, items)
        for index in sorted(self._blocks):
            self._close_block(index, items)
        usage = read_usage(self._usage, _read_usage) if self._usage and self._is_usage_known else None
        if usage is not None:
            items.append(UsageReport(usage))

    def _count(self, found: object) -> None:
        """Take note of counts: each says how many there were so far, those left out have not changed."""
        if isinstance(found, dict):
            self._usage.update({name: value for name, value in found.items() if value is not None})
        elif found is not None and found != []:
            self._is_usage_known = False


def _index(event: _Event) -> int:
    return event.index if type(event.index) is int else read_index(event.index, "index") or 0


def _input_text(given: object) -> str:
    if not isinstance(given, dict):
        raise malformed("content_block.input is not an object")
    return encode_text(given)


def _read_usage(found: dict[str, Any]) -> Usage:
    """Return the tokens as nous counts them: cached ones, read or written, are part of the input."""
    cached, written = read_count(found, "cache_read_input_tokens"), read_count(found, "cache_creation_input_tokens")
    return Usage(
        input_tokens=read_count(found, "input_tokens") + written + cached,
        output_tokens=read_count(found, "output_tokens"),
        cached_tokens=cached,
        reasoning_tokens=read_count(read_details(found, "output_tokens_details"), "thinking_tokens"),
        cache_write_tokens=written or UNSET,
    )
