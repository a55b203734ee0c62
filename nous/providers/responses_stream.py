"""Items from the events of a streamed response.  Pure; see :mod:`nous.providers.responses`.

Source: OpenAI's API reference, "Streaming events" of the responses.  Events that are not known are passed over:
annotations, server tools, and those that say that something begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Struct

from nous.errors import NousError
from nous.ports.model import Finish, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import Usage
from nous.providers.decoding import decode_event, encode_text, misshapen, read_count, read_details, read_id, read_usage
from nous.providers.ending import EndingParser
from nous.providers.faults import CUT, fault_in_stream, malformed
from nous.providers.responses_items import (
    PARAGRAPH,
    Calls,
    Item,
    OpenCall,
    SaidText,
    arguments_text,
    text_of,
    texts_of,
    thoughts_of,
)
from nous.providers.text import TextChannel, clean
from nous.providers.vendor_errors import error_parts


class _Delta(Struct, gc=False):
    delta: str | None = None


class _TextDelta(_Delta, gc=False, tag="response.output_text.delta"):
    pass


class _RefusalDelta(_Delta, gc=False, tag="response.refusal.delta"):
    pass


class _SummaryDelta(_Delta, gc=False, tag="response.reasoning_summary_text.delta"):
    pass


class _ReasoningDelta(_Delta, gc=False, tag="response.reasoning_text.delta"):
    pass


class _SummaryBegun(Struct, gc=False, tag="response.reasoning_summary_part.added"):
    summary_index: Any = None


class _TextDone(Struct, gc=False, tag="response.output_text.done"):
    text: str | None = None


class _RefusalDone(Struct, gc=False, tag="response.refusal.done"):
    refusal: str | None = None


class _PartDone(Struct, gc=False, tag="response.content_part.done"):
    part: Any = None


class _ArgumentsDelta(Struct, gc=False, tag="response.function_call_arguments.delta"):
    delta: str | None = None
    item_id: Any = None
    call_id: Any = None
    output_index: Any = None


class _ArgumentsDone(Struct, gc=False, tag="response.function_call_arguments.done"):
    arguments: Any = None
    item_id: Any = None
    call_id: Any = None
    output_index: Any = None


class _ItemBegun(Struct, gc=False, tag="response.output_item.added"):
    item: Item | None = None
    output_index: Any = None


class _ItemDone(Struct, gc=False, tag="response.output_item.done"):
    item: Item | None = None
    output_index: Any = None


class _Response(Struct, gc=False):
    status: Any = None
    error: Any = None
    incomplete_details: Any = None
    output: list[Item] | None = None
    usage: Any = None


class _Completed(Struct, gc=False, tag="response.completed"):
    response: _Response | None = None


class _Incomplete(Struct, gc=False, tag="response.incomplete"):
    response: _Response | None = None


class _Failed(Struct, gc=False, tag="response.failed"):
    response: _Response | None = None
    error: Any = None


class _Error(Struct, gc=False, tag="error"):
    error: Any = None
    code: Any = None
    message: Any = None


_Event = (
    _TextDelta
    | _RefusalDelta
    | _SummaryDelta
    | _ReasoningDelta
    | _SummaryBegun
    | _TextDone
    | _RefusalDone
    | _PartDone
    | _ArgumentsDelta
    | _ArgumentsDone
    | _ItemBegun
    | _ItemDone
    | _Completed
    | _Incomplete
    | _Failed
    | _Error
)


class _Unknown(Struct, gc=False):
    """What an event of no known type may still say."""

    type: Any = None
    error: Any = None


_events: Final = msgspec.json.Decoder(_Event)
_unknown: Final = msgspec.json.Decoder(_Unknown)
_GIVEN_UP: Final = ("failed", "cancelled")


class ResponsesParser(EndingParser):
    """See :class:`nous.providers.adapter.ItemParser`.  ``names``: the tools' names for those on the wire."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._names = names or {}
        self._text = TextChannel()
        self._thinking = TextChannel()
        self._said = SaidText()
        self._calls = Calls()
        self._has_thought = False
        self._sealed: set[str] = set()
        self._response = _Response()

    def feed(self, data: bytes, items: list[ModelItem]) -> None:
        """Take the data of one event and append what it says."""
        try:
            event = _events.decode(data)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            known = self._decode_again(data, error)
            if known is None:
                return
            event = known
        self._HANDLERS[type(event)](self, event, items)

    def _decode_again(self, data: bytes, error: Exception) -> _Event | None:
        """Return an event of characters that the fast decoder refuses; None for one of no known type."""
        if data.startswith(b"[DONE]"):
            raise NousError("provider_unavailable", CUT)
        found = decode_event(_unknown, data, "a response event")
        if isinstance(found.type, str) and found.type in _TYPES:
            if isinstance(error, msgspec.ValidationError):
                raise misshapen(error, "a response event")
            again: _Event = decode_event(_events, data, "a response event")
            return again
        if found.error:
            raise fault_in_stream(*error_parts(found.error))
        return None

    # -- text and thinking

    def _add_text(self, event: _Delta, items: list[ModelItem]) -> None:
        if text := event.delta:
            self._has_answer = True
            self._said.pieces.append(text)
            items.extend(map(TextDelta, self._text.feed(text)))

    def _add_refusal(self, event: _Delta, items: list[ModelItem]) -> None:
        self._is_refused = True
        self._add_text(event, items)

    def _end_text(self, event: _TextDone, items: list[ModelItem]) -> None:
        self._fill_text(event.text or "", "text", items)

    def _end_refusal(self, event: _RefusalDone, items: list[ModelItem]) -> None:
        self._is_refused = True
        self._fill_text(event.refusal or "", "text", items)

    def _end_part(self, event: _PartDone, items: list[ModelItem]) -> None:
        if isinstance(event.part, dict) and (found := text_of(event.part)) is not None:
            self._is_refused = self._is_refused or found[1]
            self._fill_text(found[0], "part", items)

    def _fill_text(self, whole: str, level: str, items: list[ModelItem]) -> None:
        if rest := self._said.close(whole, level):
            self._has_answer = True
            items.extend(map(TextDelta, self._text.feed(rest)))

    def _think(self, event: _Delta, items: list[ModelItem]) -> None:
        if event.delta:
            self._has_thought = True
            items.extend(map(ThinkingDelta, self._thinking.feed(event.delta)))

    def _begin_summary(self, event: _SummaryBegun, items: list[ModelItem]) -> None:
        if event.summary_index and self._has_thought:
            items.extend(map(ThinkingDelta, [*self._thinking.flush(), PARAGRAPH]))

    # -- items

    def _begin_item(self, event: _ItemBegun, items: list[ModelItem]) -> None:
        item = event.item
        if item is not None and item.type == "function_call" and self._calls.find(item.id, item.call_id, None) is None:
            self._open_call(item, event.output_index, items)

    def _end_item(self, event: _ItemDone, items: list[ModelItem]) -> None:
        if event.item is not None:
            self._take_whole(event.item, event.output_index, "item", items)

    def _take_whole(self, item: Item, output_index: object, level: str, items: list[ModelItem]) -> None:
        """Append what an item that is whole has beyond what has come."""
        if item.type == "message":
            for text, is_refusal in texts_of(item):
                self._is_refused = self._is_refused or is_refusal
                self._fill_text(text, level, items)
        elif item.type == "function_call":
            call = self._calls.find_item(item, output_index) or self._open_call(item, output_index, items)
            if item.name and not call.name:
                call.name = item.name
                items.append(ToolCallDelta(call.index, name=self._names.get(item.name, clean(item.name))))
            self._end_call(call, arguments_text(item.arguments), items)
        elif item.type == "reasoning":
            self._end_reasoning(item, items)
        else:
            self._passed_over = "items that are neither"

    def _end_reasoning(self, item: Item, items: list[ModelItem]) -> None:
        key = read_id(item.id) or item.encrypted_content or ""
        if key in self._sealed:
            return
        self._sealed.add(key)
        if not self._has_thought:
            items.extend(map(ThinkingDelta, self._thinking.feed(thoughts_of(item))))
        self._has_thought = False
        if item.encrypted_content:
            items.extend(map(ThinkingDelta, self._thinking.flush()))
            items.append(ThinkingDelta("", clean(_sealed(item))))

    # -- tool calls

    def _open_call(self, item: Item, output_index: object, items: list[ModelItem]) -> OpenCall:
        call = self._calls.open(item, output_index)
        self._has_calls = self._has_answer = True
        call_id = read_id(item.call_id) or read_id(item.id) or None
        items.append(ToolCallDelta(call.index, call_id, self._names.get(call.name, clean(call.name)) or None))
        return call

    def _argue(self, event: _ArgumentsDelta, items: list[ModelItem]) -> None:
        if event.delta:
            self._add_arguments(self._call_of(event), event.delta, items)

    def _end_arguments(self, event: _ArgumentsDone, items: list[ModelItem]) -> None:
        if whole := arguments_text(event.arguments):
            call = self._call_of(event)
            self._add_arguments(call, call.missing(whole), items)

    def _call_of(self, event: _ArgumentsDelta | _ArgumentsDone) -> OpenCall:
        call = self._calls.find(event.item_id, event.call_id, event.output_index)
        if call is None:
            raise malformed("arguments without their call")
        return call

    def _add_arguments(self, call: OpenCall, text: str, items: list[ModelItem]) -> None:
        if text:
            call.pieces.append(text)
            items.extend(ToolCallDelta(call.index, arguments=piece) for piece in call.channel.feed(text))

    def _end_call(self, call: OpenCall, whole: str, items: list[ModelItem]) -> None:
        self._add_arguments(call, call.missing(whole), items)
        call.is_closed = True
        items.extend(ToolCallDelta(call.index, arguments=piece) for piece in call.channel.flush())

    # -- ends

    def _complete(self, event: _Completed | _Incomplete, items: list[ModelItem]) -> None:
        self._response = response = event.response or _Response()
        if response.status in _GIVEN_UP:
            raise _failure(response.error)
        is_cut = isinstance(event, _Incomplete) or response.status == "incomplete"
        self._reason = _cut_reason(response.incomplete_details) if is_cut else "stop"
        self._end(items)

    def _close(self, items: list[ModelItem]) -> None:
        for item in self._response.output or ():
            self._take_whole(item, None, "response", items)
        for call in self._calls.all:
            if not call.name:
                raise malformed("a tool call has no name")
            if not call.is_closed:
                self._end_call(call, "" if call.pieces else call.given, items)
        items.extend(map(ThinkingDelta, self._thinking.flush()))
        items.extend(map(TextDelta, self._text.flush()))
        if (usage := read_usage(self._response.usage, _read_usage)) is not None:
            items.append(UsageReport(usage))

    def _check_answer(self, finish: Finish) -> None:
        if not self._has_answer and finish.reason not in ("refusal", "length"):
            raise malformed("the answer has neither text nor a tool call")

    def _fail(self, event: _Failed, items: list[ModelItem]) -> None:
        raise _failure(event.error or (event.response.error if event.response is not None else None))

    def _fail_bare(self, event: _Error, items: list[ModelItem]) -> None:
        raise _failure(event.error or {"code": event.code, "message": event.message})

    _HANDLERS: ClassVar[dict[type, Callable[[ResponsesParser, Any, list[ModelItem]], None]]] = {
        _TextDelta: _add_text,
        _RefusalDelta: _add_refusal,
        _SummaryDelta: _think,
        _ReasoningDelta: _think,
        _SummaryBegun: _begin_summary,
        _TextDone: _end_text,
        _RefusalDone: _end_refusal,
        _PartDone: _end_part,
        _ArgumentsDelta: _argue,
        _ArgumentsDone: _end_arguments,
        _ItemBegun: _begin_item,
        _ItemDone: _end_item,
        _Completed: _complete,
        _Incomplete: _complete,
        _Failed: _fail,
        _Error: _fail_bare,
    }


_TYPES: Final = frozenset(kind.__struct_config__.tag for kind in ResponsesParser._HANDLERS)  # type: ignore[attr-defined]


def _failure(error: object) -> NousError:
    return fault_in_stream(*error_parts(error or {}))


def _cut_reason(details: object) -> str:
    """Return why an answer is incomplete; where a server does not say, it was cut by a limit of tokens."""
    reason = details.get("reason") if isinstance(details, dict) else None
    return reason if isinstance(reason, str) and reason else "max_output_tokens"


def _sealed(item: Item) -> str:
    """Return a reasoning item as it goes back: as it came, encrypted."""
    summary = item.summary if isinstance(item.summary, list) else []
    sealed = {
        "type": "reasoning",
        "id": read_id(item.id) or None,
        "summary": summary,
        "encrypted_content": item.encrypted_content,
    }
    return encode_text({key: value for key, value in sealed.items() if value is not None})


def _read_usage(found: dict[str, Any]) -> Usage:
    return Usage(
        input_tokens=read_count(found, "input_tokens"),
        output_tokens=read_count(found, "output_tokens"),
        cached_tokens=read_count(read_details(found, "input_tokens_details"), "cached_tokens"),
        reasoning_tokens=read_count(read_details(found, "output_tokens_details"), "reasoning_tokens"),
    )
