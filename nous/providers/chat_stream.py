"""Items from the events of a streamed chat completion.  Pure; see :mod:`nous.providers.chat`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from nous.ports.model import ModelItem, TextDelta, ThinkingDelta, UsageReport
from nous.protocol.messages import Usage
from nous.providers.chat_calls import Fragment, Function, ToolCalls
from nous.providers.decoding import decode_event, encode_text, read_count, read_details, read_index, read_usage
from nous.providers.ending import EndingParser
from nous.providers.faults import fault_in_stream, parse_object
from nous.providers.text import TextChannel, clean
from nous.providers.vendor_errors import error_parts


class _Delta(Struct, gc=False):
    content: str | list[Any] | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    refusal: str | None = None
    tool_calls: list[Fragment] | None = None
    function_call: Function | list[Any] | None = None


class _Choice(Struct, gc=False):
    """``message`` and ``text`` hold a whole answer, from servers without deltas.  An empty list is PHP's ``{}``."""

    index: Any = 0
    delta: _Delta | list[Any] | None = None
    finish_reason: str | None = None
    usage: Any = None
    message: _Delta | list[Any] | None = None
    text: str | None = None


class _Chunk(Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_chunks: Final = msgspec.json.Decoder(_Chunk)


class ThinkingDetails:
    """Puts OpenRouter's ``reasoning_details`` together again: they come in pieces and go back whole, as they were."""

    def __init__(self) -> None:
        self._details: list[dict[str, Any]] = []

    def feed(self, pieces: object) -> None:
        """Join pieces of reasoning to those that they continue."""
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


class ChatParser(EndingParser):
    """See :class:`nous.providers.adapter.ItemParser`.

    ``keeps_details``: thinking is signed with its details.  ``names``: the tools' names for those on the wire.
    """

    def __init__(self, *, keeps_details: bool = False, names: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._text = TextChannel()
        self._thinking = TextChannel()
        self._calls = ToolCalls(names or {})
        self._details = ThinkingDetails() if keeps_details else None
        self._usage: Any = None

    def feed(self, data: bytes, items: list[ModelItem]) -> None:
        """Take the data of one event and append what it says."""
        if data.startswith(b"[DONE]"):
            self._finish_marked(items)
            return
        chunk = decode_event(_chunks, data, "a completion chunk")
        if chunk.error:
            raise fault_in_stream(*error_parts(chunk.error))
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.choices is None:
            _refuse_bare_error(data)
            return
        for choice in chunk.choices:
            if choice.index and read_index(choice.index, "choices.index"):
                self._passed_over = "another choice"
            else:
                self._take(choice, items)

    def _take(self, choice: _Choice, items: list[ModelItem]) -> None:
        if choice.usage is not None:
            self._usage = choice.usage
        if isinstance(choice.delta, _Delta):
            self._add(choice.delta, items)
        if not self._has_answer:
            if isinstance(choice.message, _Delta):
                self._add(choice.message, items)
            if choice.text:
                self._say(choice.text, items)
        if choice.finish_reason:
            self._take_reason(choice.finish_reason, beside_content=_has_content(choice))

    def _add(self, delta: _Delta, items: list[ModelItem]) -> None:
        if self._details is not None and delta.reasoning_details:
            self._details.feed(delta.reasoning_details)
        if thought := delta.reasoning_content or delta.reasoning:
            self._think(thought, items)
        if content := delta.content:
            if isinstance(content, str):
                if self._is_waiting:
                    self._note_answer()
                items.extend(map(TextDelta, self._text.feed(content)))
            else:
                self._add_parts(content, items)
        if delta.refusal:
            self._is_refused = True
            self._say(delta.refusal, items)
        if delta.tool_calls:
            for fragment in delta.tool_calls:
                self._call(fragment, items)
        if isinstance(delta.function_call, Function):
            self._call(Fragment(index=0, function=delta.function_call), items)

    def _say(self, text: str, items: list[ModelItem]) -> None:
        if text:
            self._note_answer()
            items.extend(map(TextDelta, self._text.feed(text)))

    def _think(self, thought: object, items: list[ModelItem]) -> None:
        if isinstance(thought, str):
            self._note_more()
            items.extend(map(ThinkingDelta, self._thinking.feed(thought)))

    def _call(self, fragment: Fragment, items: list[ModelItem]) -> None:
        if self._calls.feed(fragment, items):
            self._has_calls = True
            self._note_answer()

    def _add_parts(self, parts: list[Any], items: list[ModelItem]) -> None:
        """Append content that a server sends in parts.  Mistral's thinking is a part with parts of its own."""
        for part in parts:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "thinking":
                inner = part.get("thinking")
                self._think("".join(_texts(inner)) if isinstance(inner, list) else inner, items)
            elif kind in ("text", "output_text") and isinstance(part.get("text"), str):
                self._say(part["text"], items)
            elif kind == "refusal" and isinstance(part.get("refusal"), str):
                self._is_refused = True
                self._say(part["refusal"], items)
            else:
                self._passed_over = "parts of content that are not text"

    def _close(self, items: list[ModelItem]) -> None:
        items.extend(map(ThinkingDelta, self._thinking.flush()))
        if self._details is not None and (signature := self._details.take()):
            items.append(ThinkingDelta("", clean(signature)))
        items.extend(map(TextDelta, self._text.flush()))
        self._calls.flush(items)
        if self._usage is not None and (usage := read_usage(self._usage, _read_usage)) is not None:
            items.append(UsageReport(usage))


def _read_usage(found: dict[str, Any]) -> Usage:
    """Return the tokens as nous counts them: cached ones are part of the input, reasoning part of the output."""
    cached = read_count(read_details(found, "prompt_tokens_details"), "cached_tokens")
    # Where Kimi and DeepSeek say it.
    cached = cached or read_count(found, "cached_tokens") or read_count(found, "prompt_cache_hit_tokens")
    return Usage(
        input_tokens=read_count(found, "prompt_tokens"),
        output_tokens=read_count(found, "completion_tokens"),
        cached_tokens=cached,
        reasoning_tokens=read_count(read_details(found, "completion_tokens_details"), "reasoning_tokens"),
    )


def _has_content(choice: _Choice) -> bool:
    if choice.message or choice.text:
        return True
    delta = choice.delta
    if not isinstance(delta, _Delta):
        return False
    thought = delta.reasoning_content or delta.reasoning
    return bool(delta.content or thought or delta.refusal or delta.tool_calls or delta.function_call)


def _texts(parts: list[Any]) -> list[str]:
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return [text for text in texts if isinstance(text, str)]


def _refuse_bare_error(data: bytes) -> None:
    """Raise if an event without choices is an error object that is not wrapped in one."""
    found = parse_object(data)
    if "error" in (found.get("object"), found.get("type")):
        raise fault_in_stream(*error_parts(found))
