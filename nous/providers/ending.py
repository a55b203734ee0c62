"""How a streamed answer ends: the vendors' finish reasons, and when they count.  Pure.

Many servers send a finish reason before the answer's end: with every event, or with an empty first one.  So a reason is
kept until the stream ends or the vendor says that it does, and content that comes after it counts.
"""

from __future__ import annotations

import re
from typing import Final

from nous.errors import NousError
from nous.ports.model import Finish, FinishReason, ModelItem
from nous.providers.faults import CUT, malformed

_WORDS: Final[dict[FinishReason, str]] = {
    # OpenAI; text-generation-inference and Together; Anthropic; Cohere
    "stop": "stop eos eos_token stop_sequence end_turn complete",
    # OpenAI; Anthropic and Gemini; the responses API
    "length": "length max_tokens model_context_window_exceeded max_output_tokens",
    # OpenAI, its older form; Anthropic
    "tool_use": "tool_calls function_call tool_use",
    # OpenAI; Anthropic; Gemini
    "refusal": (
        "content_filter refusal safety recitation language blocklist prohibited_content spii "
        "image_safety image_prohibited_content image_recitation"
    ),
}

REASONS: Final[dict[str, FinishReason]] = {word: reason for reason, words in _WORDS.items() for word in words.split()}
"""The reasons of all vendors, in lower case.  Proxies pass one vendor's words on in another's dialect."""

FAILED_REASONS: Final[dict[str, str]] = {
    # OpenRouter; DeepSeek; vLLM
    "error": "provider_error",
    "insufficient_system_resource": "provider_unavailable",
    "abort": "provider_unavailable",
    # Gemini: what the model wrote could not be read as a call.  Asked again, it usually writes another.
    "malformed_function_call": "provider_unavailable",
    "malformed_response": "provider_unavailable",
    "unexpected_tool_call": "provider_unavailable",
    "too_many_tool_calls": "provider_error",
    "missing_thought_signature": "provider_error",
    "other": "provider_error",
}
"""Reasons with which a server gives up on an answer, and the code each one means."""

_SEVERITY: Final[dict[FinishReason, int]] = {"stop": 0, "tool_use": 0, "other": 1, "length": 2, "refusal": 3}
_WORD_CHARS: Final = 64
_NOT_PRINTABLE: Final = re.compile(r"[^\x20-\x7e]")


def printable(word: str) -> str:
    """Return a vendor's word as it may be shown: bounded, in printable ASCII."""
    return _NOT_PRINTABLE.sub("?", word[:_WORD_CHARS])


class EndingParser:
    """The part of a stream parser that decides where the answer ends and whether it is whole.

    ``finished`` and ``done`` are those of :class:`nous.providers.adapter.ItemParser`.  A subclass calls
    ``_note_answer`` for text and tool calls while ``_is_waiting`` is set, ``_note_more`` for other content.
    ``_passed_over`` names content that could not be read.
    """

    def __init__(self) -> None:
        self.finished = False
        self.done = False
        self._is_waiting = True
        self._has_answer = False
        self._has_calls = False
        self._is_refused = False
        self._passed_over = ""
        self._reason = ""
        self._withdrawn = ""
        self._is_beside_content = False

    def finish(self, items: list[ModelItem]) -> None:
        """See :meth:`nous.providers.adapter.ItemParser.finish`."""
        if self.done:
            return
        if not self._reason:
            raise NousError("provider_unavailable", CUT)
        self._end(items)

    def _close(self, items: list[ModelItem]) -> None:
        """Append what ends the answer before its finish: text held back, usage."""
        raise NotImplementedError

    def _finish_marked(self, items: list[ModelItem]) -> None:
        """End the answer where the vendor says that it ends; a reason before the last content counts here."""
        self._reason = self._reason or self._withdrawn
        self.finish(items)

    def _note_answer(self) -> None:
        self._is_waiting = False
        self._has_answer = True
        self._note_more()

    def _note_more(self) -> None:
        """Content has come: a reason that was given before it did not end the answer."""
        if self._reason:
            self._withdrawn, self._reason = self._reason, ""
            self.finished = False

    def _take_reason(self, word: str, *, beside_content: bool = False) -> None:
        """Keep a reason.  Of several with no content between them the most severe one counts.

        ``beside_content``: it came in one event with content.  Servers that send a reason with every event do that.

        Raises:
            NousError: the server gave up on the answer.
        """
        if code := FAILED_REASONS.get(word.lower()):
            raise NousError(code, f"the provider gave up on the answer: {printable(word)}")
        if not self._reason or _severity(word) > _severity(self._reason):
            self._reason = word
        self._is_waiting = True
        self._is_beside_content = self._is_beside_content or beside_content
        # A reason without an answer, one beside content, or one that was wrong before is no sign that the end is near.
        self.finished = self._has_answer and not self._withdrawn and not self._is_beside_content

    def _end(self, items: list[ModelItem]) -> None:
        reason = self._reason
        self._close(items)
        self._reason = reason
        finish = self._finish_item()
        self._check_answer(finish)
        items.append(finish)
        self.finished = self.done = True

    def _finish_item(self) -> Finish:
        if self._is_refused:
            return Finish("refusal")
        reason = REASONS.get(self._reason.lower())
        if reason is None:
            return Finish("other", printable(self._reason))
        if reason in ("stop", "tool_use"):
            return Finish("tool_use" if self._has_calls else "stop")
        return Finish(reason)

    def _check_answer(self, finish: Finish) -> None:
        """Raise if an answer that claims to be whole has nothing in it, where something was announced or skipped."""
        if self._has_answer or finish.reason in ("refusal", "length"):
            return
        if self._passed_over:
            raise malformed(f"the answer has no text and no tool call, only {self._passed_over}")
        if REASONS.get(self._reason.lower()) == "tool_use":
            raise malformed("the answer ends with a tool call, and none has come")


def _severity(word: str) -> int:
    return _SEVERITY[REASONS.get(word.lower(), "other")]
