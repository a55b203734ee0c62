"""Items from the events of a streamed Gemini answer.  Pure; see :mod:`nous.providers.gemini`.

Source: Gemini API reference, "GenerateContentResponse".  Citations, ratings and grounding are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from nous.errors import NousError
from nous.ports.model import ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import Usage
from nous.providers.decoding import decode_event, encode_text, read_count, read_id, read_index, read_usage
from nous.providers.ending import EndingParser, printable
from nous.providers.faults import fault_in_stream, malformed
from nous.providers.text import TextChannel, clean
from nous.providers.vendor_errors import error_parts


class _FunctionCall(Struct, gc=False, rename="camel"):
    id: Any = None
    name: str | None = None
    args: Any = None
    will_continue: Any = None
    partial_args: Any = None


class _Part(Struct, gc=False, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _FunctionCall | None = None


class _Content(Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(Struct, gc=False, rename="camel"):
    index: Any = None
    content: _Content | list[Any] | None = None
    finish_reason: str | None = None


class _Feedback(Struct, gc=False, rename="camel"):
    block_reason: str | None = None


class _Answer(Struct, gc=False, rename="camel"):
    candidates: list[_Candidate] | None = None
    usage_metadata: Any = None
    prompt_feedback: _Feedback | None = None
    error: Any = None


_answers: Final = msgspec.json.Decoder(_Answer)


class GeminiParser(EndingParser):
    """See :class:`nous.providers.adapter.ItemParser`.

    No event says that it is the last one: the stream's end is the end.  ``names``: the tools' names for those on the
    wire.
    """

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._names = names or {}
        self._text = TextChannel()
        self._thinking = TextChannel()
        self._calls = 0
        self._usage: Any = None

    def feed(self, data: bytes, items: list[ModelItem]) -> None:
        """Take the data of one event and append what it says."""
        try:
            answer = decode_event(_answers, data, "a part of an answer")
        except NousError:
            if data.startswith(b"[DONE]"):  # from proxies
                self._finish_marked(items)
                return
            raise
        if answer.error:
            raise fault_in_stream(*error_parts(answer.error))
        if answer.usage_metadata is not None:
            self._usage = answer.usage_metadata
        if answer.candidates:
            for candidate in answer.candidates:
                if candidate.index and read_index(candidate.index, "candidates.index"):
                    self._passed_over = "another candidate"
                else:
                    self._take(candidate, items)
        feedback = answer.prompt_feedback
        if feedback is not None and feedback.block_reason and not self._reason:
            raise NousError("content_refused", f"the prompt was blocked: {printable(feedback.block_reason)}")

    def _take(self, candidate: _Candidate, items: list[ModelItem]) -> None:
        content = candidate.content
        parts = content.parts if type(content) is _Content else None
        for part in parts or ():
            self._take_part(part, items)
        if candidate.finish_reason:
            is_filled = any(part.text or part.function_call is not None for part in parts or ())
            self._take_reason(candidate.finish_reason, beside_content=is_filled)

    def _take_part(self, part: _Part, items: list[ModelItem]) -> None:
        if text := part.text:
            if part.thought:
                self._note_more()
                items.extend(map(ThinkingDelta, self._thinking.feed(text)))
            else:
                if self._is_waiting:
                    self._note_answer()
                items.extend(map(TextDelta, self._text.feed(text)))
        elif part.text is None and part.function_call is None and part.thought_signature is None:
            self._passed_over = "parts that are not text"
        if part.thought_signature:
            # Before the call it belongs to, behind the text.
            self._note_more()
            items.append(ThinkingDelta("", clean(part.thought_signature)))
        if part.function_call is not None:
            self._call(part.function_call, items)

    def _call(self, call: _FunctionCall, items: list[ModelItem]) -> None:
        if not call.name:
            raise malformed("a tool call has no name")
        if call.will_continue or call.partial_args:
            raise malformed("a tool call in pieces, which was not asked for")
        self._has_calls = True
        self._note_answer()
        index = self._calls
        self._calls += 1
        items.append(ToolCallDelta(index, read_id(call.id) or None, self._names.get(call.name, clean(call.name))))
        # An empty list is PHP's empty object.
        items.extend(ToolCallDelta(index, arguments=piece) for piece in TextChannel().feed(_arguments(call.args)))

    def _close(self, items: list[ModelItem]) -> None:
        items.extend(map(ThinkingDelta, self._thinking.flush()))
        items.extend(map(TextDelta, self._text.flush()))
        if self._usage is not None and (usage := read_usage(self._usage, _read_usage)) is not None:
            items.append(UsageReport(usage))


def _arguments(args: object) -> str:
    if args is None or args == []:
        return "{}"
    if not isinstance(args, dict):
        raise malformed("functionCall.args is not an object")
    return encode_text(args)


def _read_usage(found: dict[str, Any]) -> Usage:
    """Return the tokens as nous counts them: thinking is part of the output, what tools were asked of the input."""
    thoughts = read_count(found, "thoughtsTokenCount")
    return Usage(
        input_tokens=read_count(found, "promptTokenCount") + read_count(found, "toolUsePromptTokenCount"),
        output_tokens=read_count(found, "candidatesTokenCount") + thoughts,
        cached_tokens=read_count(found, "cachedContentTokenCount"),
        reasoning_tokens=thoughts,
    )
