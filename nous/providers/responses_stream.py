"""Items from the events of a streamed response.  Pure; see :mod:`nous.providers.responses`.

Source: OpenAI's API reference, "Streaming events" of the responses.  Events that are not known are passed over:
annotations, server tools, and those that repeat as a whole what came in pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Struct

from nous.errors import NousError
from nous.ports.model import Finish, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import Usage
from nous.providers.chat_stream import error_parts
from nous.providers.decoding import decode_event, encode_text
from nous.providers.faults import CUT, fault_in_stream, malformed
from nous.providers.text import TextChannel


class _Item(Struct, gc=False):
    type: str | None = None
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: Any = None
    summary: Any = None
    encrypted_content: str | None = None


class _InputDetails(Struct, gc=False):
    cached_tokens: int | None = None


class _OutputDetails(Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Incomplete(Struct, gc=False):
    reason: str | None = None


class _Response(Struct, gc=False):
    error: Any = None
    incomplete_details: _Incomplete | None = None
    usage: _Usage | None = None


class _Event(Struct, gc=False):
    type: str = ""
    delta: Any = None
    output_index: int | None = None
    summary_index: int | None = None
    item: _Item | None = None
    arguments: Any = None
    response: _Response | None = None
    error: Any = None
    code: Any = None
    message: Any = None


_events: Final = msgspec.json.Decoder(_Event)

_PARAGRAPH: Final = "\n\n"


class _OpenCall:
    __slots__ = ("arguments", "has_arguments", "index")

    def __init__(self, index: int) -> None:
        self.index = index
        self.arguments = TextChannel()
        self.has_arguments = False


class ResponsesParser:
    """See :class:`nous.providers.adapter.ItemParser`."""

    def __init__(self) -> None:
        self.finished = False
        self.done = False
        self._text = TextChannel()
        self._thinking = TextChannel()
        self._calls: dict[int, _OpenCall] = {}
        self._refused = False

    def feed(self, data: bytes, items: list[ModelItem]) -> None:
        event = decode_event(_events, data, "a response event")
        handle = self._HANDLERS.get(event.type)
        if handle is not None:
            handle(self, event, items)
        elif event.error:
            self._fail(event, items)

    def finish(self, items: list[ModelItem]) -> None:
        if not self.finished:
            raise NousError("provider_unavailable", CUT)

    def _say(self, event: _Event, items: list[ModelItem]) -> None:
        items.extend(map(TextDelta, self._text.feed(_text(event.delta))))

    def _refuse(self, event: _Event, items: list[ModelItem]) -> None:
        self._refused = True
        self._say(event, items)

    def _think(self, event: _Event, items: list[ModelItem]) -> None:
        items.extend(map(ThinkingDelta, self._thinking.feed(_text(event.delta))))

    def _begin_summary(self, event: _Event, items: list[ModelItem]) -> None:
        if event.summary_index:
            items.extend(map(ThinkingDelta, [*self._thinking.flush(), _PARAGRAPH]))

    def _open(self, event: _Event, items: list[ModelItem]) -> None:
        item = event.item
        if item is not None and item.type == "function_call":
            self._open_call(event.output_index or 0, item, items)

    def _open_call(self, output_index: int, item: _Item, items: list[ModelItem]) -> _OpenCall:
        call = self._calls[output_index] = _OpenCall(len(self._calls))
        items.append(ToolCallDelta(call.index, item.call_id or item.id or None, item.name or None))
        return call

    def _argue(self, event: _Event, items: list[ModelItem]) -> None:
        call = self._calls.get(event.output_index or 0)
        if call is None:
            raise malformed("arguments without their call")
        self._add_arguments(call, _text(event.delta), items)

    def _end_arguments(self, event: _Event, items: list[ModelItem]) -> None:
        call = self._calls.get(event.output_index or 0)
        if call is not None and not call.has_arguments:
            self._add_arguments(call, _text(event.arguments), items)

    def _add_arguments(self, call: _OpenCall, text: str, items: list[ModelItem]) -> None:
        call.has_arguments = call.has_arguments or bool(text)
        items.extend(ToolCallDelta(call.index, arguments=piece) for piece in call.arguments.feed(text))

    def _close(self, event: _Event, items: list[ModelItem]) -> None:
        item = event.item
        if item is None:
            return
        if item.type == "reasoning" and item.encrypted_content:
            items.extend(map(ThinkingDelta, self._thinking.flush()))
            items.append(ThinkingDelta("", _sealed(item)))
        elif item.type == "function_call":
            output_index = event.output_index or 0
            call = self._calls.get(output_index) or self._open_call(output_index, item, items)
            if not call.has_arguments:
                self._add_arguments(call, _text(item.arguments), items)
            items.extend(ToolCallDelta(call.index, arguments=piece) for piece in call.arguments.flush())

    def _complete(self, event: _Event, items: list[ModelItem]) -> None:
        reason: Any = "refusal" if self._refused else "tool_use" if self._calls else "stop"
        self._finish(event, Finish(reason), items)

    def _cut_short(self, event: _Event, items: list[ModelItem]) -> None:
        details = event.response.incomplete_details if event.response is not None else None
        is_refused = self._refused or (details is not None and details.reason == "content_filter")
        self._finish(event, Finish("refusal" if is_refused else "length"), items)

    def _finish(self, event: _Event, finish: Finish, items: list[ModelItem]) -> None:
        items.extend(map(ThinkingDelta, self._thinking.flush()))
        items.extend(map(TextDelta, self._text.flush()))
        if event.response is not None and event.response.usage is not None:
            items.append(UsageReport(_usage(event.response.usage)))
        items.append(finish)
        self.finished = self.done = True

    def _fail(self, event: _Event, items: list[ModelItem]) -> None:
        error = event.error or (event.response.error if event.response is not None else None)
        if error is None:
            error = {"code": event.code, "message": event.message}
        raise fault_in_stream(*error_parts(error))

    _HANDLERS: ClassVar[dict[str, Callable[[ResponsesParser, _Event, list[ModelItem]], None]]] = {
        "response.output_text.delta": _say,
        "response.refusal.delta": _refuse,
        "response.reasoning_summary_text.delta": _think,
        "response.reasoning_text.delta": _think,
        "response.reasoning_summary_part.added": _begin_summary,
        "response.output_item.added": _open,
        "response.function_call_arguments.delta": _argue,
        "response.function_call_arguments.done": _end_arguments,
        "response.output_item.done": _close,
        "response.completed": _complete,
        "response.incomplete": _cut_short,
        "response.failed": _fail,
        "error": _fail,
    }


def _text(found: object) -> str:
    if found is None:
        return ""
    if not isinstance(found, str):
        raise malformed("a delta is not text")
    return found


def _sealed(item: _Item) -> str:
    """Return a reasoning item as it goes back: as it came, encrypted."""
    summary = item.summary if isinstance(item.summary, list) else []
    sealed = {"type": "reasoning", "id": item.id, "summary": summary, "encrypted_content": item.encrypted_content}
    return encode_text({key: value for key, value in sealed.items() if value is not None})


def _usage(found: _Usage) -> Usage:
    cached = found.input_tokens_details.cached_tokens if found.input_tokens_details else None
    reasoning = found.output_tokens_details.reasoning_tokens if found.output_tokens_details else None
    return Usage(
        input_tokens=found.input_tokens or 0,
        output_tokens=found.output_tokens or 0,
        cached_tokens=cached or 0,
        reasoning_tokens=reasoning or 0,
    )
