"""Items from the events of a streamed Gemini answer.  Pure; see :mod:`nous.providers.gemini`.

Source: Gemini API reference, "GenerateContentResponse".  Citations, ratings and grounding are passed over.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from nous.errors import NousError
from nous.ports.model import Finish, FinishReason, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import Usage
from nous.providers.decoding import decode_event, encode_text
from nous.providers.faults import CUT, fault_in_stream
from nous.providers.text import TextChannel


class _FunctionCall(Struct, gc=False):
    id: str | None = None
    name: str | None = None
    args: dict[str, Any] | None = None


class _Part(Struct, gc=False, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _FunctionCall | None = None


class _Content(Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(Struct, gc=False, rename="camel"):
    index: int | None = None
    content: _Content | None = None
    finish_reason: str | None = None


class _Usage(Struct, gc=False, rename="camel"):
    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None


class _Feedback(Struct, gc=False, rename="camel"):
    block_reason: str | None = None


class _Answer(Struct, gc=False, rename="camel"):
    candidates: list[_Candidate] | None = None
    usage_metadata: _Usage | None = None
    prompt_feedback: _Feedback | None = None
    error: Any = None


_answers: Final = msgspec.json.Decoder(_Answer)

_REASONS: Final[dict[str, FinishReason]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "refusal",
    "RECITATION": "refusal",
    "LANGUAGE": "refusal",
    "BLOCKLIST": "refusal",
    "PROHIBITED_CONTENT": "refusal",
    "SPII": "refusal",
    "IMAGE_SAFETY": "refusal",
    "IMAGE_PROHIBITED_CONTENT": "refusal",
    "IMAGE_RECITATION": "refusal",
}
"""The vendor's reasons.  A reason not listed here still means that the model closed its answer."""

_FAILED_REASONS: Final[dict[str, str]] = {
    # What the model wrote could not be read as a call: asked again, it usually writes another.
    "MALFORMED_FUNCTION_CALL": "provider_unavailable",
    "MALFORMED_RESPONSE": "provider_unavailable",
    "UNEXPECTED_TOOL_CALL": "provider_unavailable",
    "TOO_MANY_TOOL_CALLS": "provider_error",
    "MISSING_THOUGHT_SIGNATURE": "provider_error",
    "OTHER": "provider_error",
}
"""Reasons that close no answer but give up on it."""


def error_parts(error: object) -> tuple[list[object], object]:
    """Return what may classify an error object: its number, its words, those of its details, and its sentence."""
    if not isinstance(error, dict):
        return [None], None
    details = error.get("details")
    reasons = [d.get("reason") for d in details if isinstance(d, dict)] if isinstance(details, list) else []
    return [error.get("code"), error.get("status"), *reasons], error.get("message")


class GeminiParser:
    """See :class:`nous.providers.adapter.ItemParser`.

    No event says that it is the last one, so ``done`` stays false: the stream's end is the end.
    """

    def __init__(self) -> None:
        self.finished = False
        self.done = False
        self._text = TextChannel()
        self._thinking = TextChannel()
        self._calls = 0
        self._usage: Usage | None = None

    def feed(self, data: bytes, items: list[ModelItem]) -> None:
        answer = decode_event(_answers, data, "a part of an answer")
        if answer.error:
            raise fault_in_stream(*error_parts(answer.error))
        if answer.usage_metadata is not None:
            self._usage = _usage(answer.usage_metadata)
        for candidate in answer.candidates or ():
            if not candidate.index and not self.finished:
                self._take(candidate, items)
        feedback = answer.prompt_feedback
        if feedback is not None and feedback.block_reason and not self.finished:
            raise NousError("content_refused", f"the prompt was blocked: {feedback.block_reason[:64]}")

    def finish(self, items: list[ModelItem]) -> None:
        if not self.finished:
            raise NousError("provider_unavailable", CUT)
        self._report_usage(items)

    def _take(self, candidate: _Candidate, items: list[ModelItem]) -> None:
        content = candidate.content
        if content is not None:
            for part in content.parts or ():
                self._take_part(part, items)
        if candidate.finish_reason:
            self._close(candidate.finish_reason, items)

    def _take_part(self, part: _Part, items: list[ModelItem]) -> None:
        if part.text:
            if part.thought:
                items.extend(map(ThinkingDelta, self._thinking.feed(part.text)))
            else:
                items.extend(map(TextDelta, self._text.feed(part.text)))
        if part.thought_signature:
            # Before the call it belongs to, behind the text.
            items.append(ThinkingDelta("", part.thought_signature))
        if part.function_call is not None:
            self._call(part.function_call, items)

    def _call(self, call: _FunctionCall, items: list[ModelItem]) -> None:
        index = self._calls
        self._calls += 1
        items.append(ToolCallDelta(index, call.id or None, call.name or None))
        channel = TextChannel()
        for piece in channel.feed(encode_text(call.args or {})):
            items.append(ToolCallDelta(index, arguments=piece))

    def _close(self, reason: str, items: list[ModelItem]) -> None:
        if reason in _FAILED_REASONS:
            raise NousError(_FAILED_REASONS[reason], f"the provider gave up on the answer: {reason}")
        items.extend(map(ThinkingDelta, self._thinking.flush()))
        items.extend(map(TextDelta, self._text.flush()))
        self._report_usage(items)
        known = _REASONS.get(reason, "stop")
        items.append(Finish("tool_use" if known == "stop" and self._calls else known))
        self.finished = True

    def _report_usage(self, items: list[ModelItem]) -> None:
        if self._usage is not None:
            items.append(UsageReport(self._usage))
            self._usage = None


def _usage(found: _Usage) -> Usage:
    """Return the tokens as nous counts them: thinking is part of the output, what tools were asked of the input."""
    thoughts = found.thoughts_token_count or 0
    return Usage(
        input_tokens=(found.prompt_token_count or 0) + (found.tool_use_prompt_token_count or 0),
        output_tokens=(found.candidates_token_count or 0) + thoughts,
        cached_tokens=found.cached_content_token_count or 0,
        reasoning_tokens=thoughts,
    )
