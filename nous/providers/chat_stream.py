"""Items from the events of a streamed chat completion.  Pure; see :mod:`nous.providers.chat`."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from nous.errors import NousError
from nous.ports.model import Finish, FinishReason, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import Usage
from nous.providers.decoding import decode_event, encode_text
from nous.providers.faults import CUT, fault_in_stream, parse_object
from nous.providers.text import TextChannel


class _Function(Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _ToolCall(Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct, gc=False):
    content: str | list[Any] | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _InputDetails(Struct, gc=False):
    cached_tokens: int | None = None


class _OutputDetails(Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    cached_tokens: int | None = None
    prompt_cache_hit_tokens: int | None = None


class _Choice(Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    usage: _Usage | None = None


class _Chunk(Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_chunks: Final = msgspec.json.Decoder(_Chunk)

_REASONS: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
"""The vendor's reasons.  A reason not listed here still means that the model closed its answer."""

_FAILED_REASONS: Final[dict[str, str]] = {
    "error": "provider_error",
    "insufficient_system_resource": "provider_unavailable",
}
"""Reasons of compatible servers that close no answer but give up on it."""


def error_parts(error: object) -> tuple[list[object], object]:
    """Return what may classify a vendor's error object: its words (code, type, parameter), and its sentence."""
    if not isinstance(error, dict):
        return [], error
    words = [error.get(key) for key in ("code", "type", "param")]
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and "flagged_input" in metadata:
        # OpenRouter's moderation: it comes with 403, as a bad key does.
        words.append("content_filter")
    return words, error.get("message")


class ToolCalls:
    """Tells the tool calls of one answer apart and gives each the next index.

    A fragment belongs to the call of its index.  Servers that send no index, or the same one for every call,
    open a new call by a new id; a fragment with neither goes on with the last call.
    """

    def __init__(self) -> None:
        self._calls: list[_OpenCall] = []
        self._by_index: dict[int, _OpenCall] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def feed(self, fragment: _ToolCall, items: list[ModelItem]) -> None:
        call = self._find(fragment)
        function = fragment.function or _Function()
        pieces = call.arguments.feed(_arguments(function))
        name = None if call.named else function.name or None
        if name or not call.opened:
            items.append(ToolCallDelta(call.index, None if call.opened else call.id, name))
            call.opened = True
            call.named = name is not None
        items.extend(ToolCallDelta(call.index, arguments=piece) for piece in pieces)

    def flush(self, items: list[ModelItem]) -> None:
        for call in self._calls:
            items.extend(ToolCallDelta(call.index, arguments=piece) for piece in call.arguments.flush())

    def _find(self, fragment: _ToolCall) -> _OpenCall:
        named = fragment.function is not None and bool(fragment.function.name)
        known = self._by_index.get(fragment.index) if fragment.index is not None else self._guess(fragment.id, named)
        if known is None or (named and fragment.id and known.id and fragment.id != known.id):
            known = _OpenCall(len(self._calls), fragment.id or None)
            self._calls.append(known)
        if fragment.index is not None:
            self._by_index[fragment.index] = known
        return known

    def _guess(self, call_id: str | None, named: bool) -> _OpenCall | None:
        """Return the call that a fragment without an index goes on with, or None if it begins a new one."""
        if call_id and (found := next((call for call in self._calls if call.id == call_id), None)):
            return found
        last = self._calls[-1] if self._calls else None
        return None if last is None or (named and last.named) else last


class _OpenCall:
    __slots__ = ("arguments", "id", "index", "named", "opened")

    def __init__(self, index: int, call_id: str | None) -> None:
        self.index = index
        self.id = call_id
        self.opened = False
        self.named = False
        self.arguments = TextChannel()


def _arguments(function: _Function) -> str:
    """Return the fragment's text; a server that sends an object sends it whole."""
    found = function.arguments
    return encode_text(found) if isinstance(found, dict) else found or ""


class ThinkingDetails:
    """Puts OpenRouter's ``reasoning_details`` together again: they come in pieces and go back whole, as they were."""

    def __init__(self) -> None:
        self._details: list[dict[str, Any]] = []

    def feed(self, pieces: object) -> None:
        for piece in pieces if isinstance(pieces, list) else ():
            if not isinstance(piece, dict):
                continue
            last = self._details[-1] if self._details else {}
            same = all(last.get(key) == piece.get(key) for key in ("type", "index", "format"))
            if not self._details or not same or piece.get("type") == "reasoning.encrypted":
                self._details.append(dict(piece))
                continue
            for key, value in piece.items():
                if key in ("text", "summary") and isinstance(value, str) and isinstance(last.get(key), str):
                    last[key] += value
                elif value is not None:
                    last[key] = value

    def take(self) -> str | None:
        """Return all of them as JSON."""
        return encode_text(self._details) if self._details else None


class ChatParser:
    """See :class:`nous.providers.adapter.ItemParser`.  ``keeps_details``: thinking is signed with its details."""

    def __init__(self, *, keeps_details: bool = False) -> None:
        self.finished = False
        self.done = False
        self._text = TextChannel()
        self._thinking = TextChannel()
        self._calls = ToolCalls()
        self._details = ThinkingDetails() if keeps_details else None
        self._refused = False
        self._usage: Usage | None = None

    def feed(self, data: bytes, items: list[ModelItem]) -> None:
        if data.startswith(b"[DONE]"):
            self.done = True
            self.finish(items)
            return
        chunk = decode_event(_chunks, data, "a completion chunk")
        if chunk.error:
            raise fault_in_stream(*error_parts(chunk.error))
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage)
        if chunk.choices is None:
            _refuse_bare_error(data)
            return
        for choice in chunk.choices:
            if choice.index == 0 and not self.finished:
                self._take(choice, items)

    def finish(self, items: list[ModelItem]) -> None:
        if not self.finished:
            raise NousError("provider_unavailable", CUT)
        self._report_usage(items)

    def _take(self, choice: _Choice, items: list[ModelItem]) -> None:
        if choice.usage is not None:
            self._usage = _usage(choice.usage)
        delta = choice.delta
        if delta is not None:
            if self._details is not None and delta.reasoning_details:
                self._details.feed(delta.reasoning_details)
            if thought := delta.reasoning_content or delta.reasoning:
                self._think(thought, items)
            if delta.content:
                items.extend(map(TextDelta, self._text.feed(_text(delta.content))))
            if delta.refusal:
                self._refused = True
                items.extend(map(TextDelta, self._text.feed(delta.refusal)))
            for fragment in delta.tool_calls or ():
                self._calls.feed(fragment, items)
            if delta.function_call is not None:
                self._calls.feed(_ToolCall(index=0, function=delta.function_call), items)
        if choice.finish_reason:
            self._close(choice.finish_reason, items)

    def _think(self, thought: object, items: list[ModelItem]) -> None:
        if isinstance(thought, str):
            items.extend(map(ThinkingDelta, self._thinking.feed(thought)))

    def _close(self, reason: str, items: list[ModelItem]) -> None:
        if reason in _FAILED_REASONS:
            raise NousError(_FAILED_REASONS[reason], f"the provider gave up on the answer: {reason}")
        items.extend(map(ThinkingDelta, self._thinking.flush()))
        if self._details is not None and (signature := self._details.take()):
            items.append(ThinkingDelta("", signature))
        items.extend(map(TextDelta, self._text.flush()))
        self._calls.flush(items)
        self._report_usage(items)
        items.append(Finish(self._reason(reason)))
        self.finished = True

    def _reason(self, reason: str) -> FinishReason:
        known = _REASONS.get(reason, "stop")
        if self._refused:
            return "refusal"
        if known in ("stop", "tool_use"):
            return "tool_use" if self._calls else "stop"
        return known

    def _report_usage(self, items: list[ModelItem]) -> None:
        if self._usage is not None:
            items.append(UsageReport(self._usage))
            self._usage = None


def _usage(found: _Usage) -> Usage:
    """Return the tokens as nous counts them: cached ones are part of the input, reasoning part of the output."""
    cached = found.prompt_tokens_details.cached_tokens if found.prompt_tokens_details else None
    # Where Kimi and DeepSeek say it.
    cached = cached or found.cached_tokens or found.prompt_cache_hit_tokens
    reasoning = found.completion_tokens_details.reasoning_tokens if found.completion_tokens_details else None
    return Usage(
        input_tokens=found.prompt_tokens or 0,
        output_tokens=found.completion_tokens or 0,
        cached_tokens=cached or 0,
        reasoning_tokens=reasoning or 0,
    )


def _text(content: str | list[Any]) -> str:
    """Return the text of a delta's content, also where a server sends it in parts."""
    if isinstance(content, str):
        return content
    texts = (part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text")
    return "".join(text for text in texts if isinstance(text, str))


def _refuse_bare_error(data: bytes) -> None:
    """Raise if an event without choices is an error object that is not wrapped in one."""
    found = parse_object(data)
    if "error" in (found.get("object"), found.get("type")):
        raise fault_in_stream(*error_parts(found))
