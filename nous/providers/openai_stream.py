"""Items from the events of a streamed chat completion.  Pure; see :mod:`nous.providers.openai`."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
from msgspec import Struct

from nous.errors import NousError
from nous.ports.model import Finish, FinishReason, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import Usage
from nous.providers.faults import CUT, fault_in_stream, malformed, parse_object
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
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _Choice(Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _InputDetails(Struct, gc=False):
    cached_tokens: int | None = None


class _OutputDetails(Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


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


def decode_chunk(data: bytes) -> _Chunk:
    """Decode one event's data.

    The fast decoder refuses what a strict one must: half a surrogate pair, bytes that are not UTF-8.  Both come
    from servers that cut characters in two, so the lenient decoder of the standard library has a second look.
    """
    try:
        return _chunks.decode(data)
    except msgspec.ValidationError:
        raise malformed("an event is not a completion chunk") from None
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    try:
        return msgspec.convert(json.loads(data.decode("utf-8", "replace")), _Chunk)
    except msgspec.ValidationError:
        raise malformed("an event is not a completion chunk") from None
    except (ValueError, RecursionError):
        raise malformed("an event is not JSON") from None


def error_words(error: object) -> list[object]:
    """Return what may classify a vendor's error object: its code, type and parameter, never its sentence."""
    return [error.get(key) for key in ("code", "type", "param")] if isinstance(error, dict) else []


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
    return msgspec.json.encode(found).decode() if isinstance(found, dict) else found or ""


class OpenAIParser:
    """See :class:`nous.providers.adapter.ItemParser`."""

    def __init__(self) -> None:
        self.finished = False
        self.done = False
        self._text = TextChannel()
        self._thinking = TextChannel()
        self._calls = ToolCalls()
        self._refused = False
        self._usage: Usage | None = None

    def feed(self, data: bytes, items: list[ModelItem]) -> None:
        if data.startswith(b"[DONE]"):
            self.done = True
            self.finish(items)
            return
        chunk = decode_chunk(data)
        if chunk.error:
            raise fault_in_stream(error_words(chunk.error))
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
        delta = choice.delta
        if delta is not None:
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
        raise fault_in_stream(error_words(found))
