"""The shapes and words of vendors' error objects: one table, with where each row was seen.  Pure.

:mod:`nous.providers.faults` makes errors from what is read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from nous.errors import bound_text
from nous.telemetry.fields import REDACTED

MAX_TEXT_BYTES: Final = 512
"""How much of a vendor's own sentence an error repeats."""

SENTENCE_CHARS: Final = 2048
"""How much of a vendor's own sentence is looked at."""

WORDS: Final[dict[str, frozenset[str]]] = {
    "context_overflow": frozenset(
        {
            "context_length_exceeded",  # OpenAI and most that speak its dialect
            "context_window_exceeded",
            "model_context_window_exceeded",
            "exceed_context_size_error",  # llama.cpp
            "request_too_large",  # Anthropic, 413
        }
    ),
    "content_refused": frozenset(
        {"content_filter", "content_policy_violation", "responsibleaipolicyviolation", "invalid_prompt"}
    ),
    "provider_auth": frozenset(
        {
            "invalid_api_key",
            "api_key_invalid",
            "incorrect_api_key_error",
            "authentication_error",
            "invalid_authentication_error",
            "permission_error",
            "unauthenticated",
            "permission_denied",
        }
    ),
    # Sent with 429 or 5xx, but no waiting helps.
    "provider_error": frozenset(
        {
            "insufficient_quota",
            "exceeded_current_quota_error",
            "billing_hard_limit_reached",
            "billing_not_active",
            "billing_error",
            "model_not_found",
        }
    ),
}
"""Words of vendors that say more than the status they come with."""

TRANSIENT_WORDS: Final = frozenset(
    {
        "server_error",
        "api_error",
        "timeout_error",
        "unavailable",
        "resource_exhausted",
        "deadline_exceeded",
        "internal",
        "internal_error",
        "internal_server_error",
        "overloaded",
        "overloaded_error",
        "engine_overloaded_error",
        "rate_limit_error",
        "rate_limit_exceeded",
        "rate_limit_reached_error",
        "service_unavailable",
        "service_unavailable_error",
        "timeout",
    }
)
"""Words that stand for a passing failure where no status comes with them: inside a stream."""

SENTENCES: Final[tuple[tuple[str, re.Pattern[str]], ...]] = tuple(
    (code, re.compile(pattern, re.IGNORECASE))
    for code, pattern in (
        ("context_overflow", r"prompt is too long: \d+ tokens > \d+ maximum"),  # Anthropic
        ("context_overflow", r"input length and `max_tokens` exceed context limit"),  # Anthropic
        ("context_overflow", r"input is too long for requested model"),  # Amazon Bedrock
        ("context_overflow", r"exceeds the context window"),  # OpenAI
        ("context_overflow", r"the input or output tokens must be reduced"),  # OpenAI, with 429: too large for a minute
        ("context_overflow", r"the input token count .{0,20}exceeds the maximum number of tokens"),  # Gemini
        ("context_overflow", r"maximum prompt length is \d+"),  # xAI
        ("context_overflow", r"reduce the length of the messages"),  # Groq
        ("context_overflow", r"too large for model with \d+ maximum context length"),  # Mistral
        ("context_overflow", r"exceeded model token limit"),  # Kimi
        ("context_overflow", r"context window exceeds limit"),  # MiniMax
        ("context_overflow", r"range of input length should be"),  # Qwen, DashScope
        ("context_overflow", r"prompt exceeds max length"),  # Zhipu
        ("context_overflow", r"maximum context length (?:is|of) \d+"),  # DeepSeek, OpenRouter, vLLM
        ("context_overflow", r"longer than the maximum model length"),  # vLLM's engine
        ("context_overflow", r"exceeds the available context size"),  # llama.cpp
        ("context_overflow", r"greater than the context length|with context length of only \d+"),  # LM Studio
        ("context_overflow", r"input length exceeds the context length"),  # Ollama
        ("context_overflow", r"prompt too long; exceeded (?:max )?context length"),  # Ollama
        ("content_refused", r"output blocked by content filtering policy"),  # Anthropic
        ("content_refused", r"content exists risk"),  # DeepSeek
    )
)
"""What vendors say in sentences only.  Tried where no word explains a refusal.

Sources: the vendors' error pages; openclaw/openclaw#36074 (Ollama), earendil-works/pi#5930 and anomalyco/opencode#17762
(vLLM); the list of overflow patterns that pi keeps.
"""

IMAGE_STATUSES: Final = frozenset({400, 404, 413, 415, 422})
"""The statuses with which vendors refuse an image; 404: OpenRouter, where no model behind it sees images."""

_IMAGE_SENTENCE: Final = re.compile(
    r"(?<![-\w])(?:images?|image_\w+|input_image|inline_?data)(?![-\w])",
    re.IGNORECASE,
)
"""Whether a vendor's sentence names an image: as a word or as a field, not within the name of a model or a tool."""

_FAILED_IMAGES: Final = re.compile(
    r"image: unknown format|invalid image type|illegal base64 data"  # Ollama
    r"|image input is not supported|unsupported content part type: .{0,2}image_url"  # llama.cpp
    r"|failed to (?:load|decode) image|cannot identify image file",  # llama.cpp, vLLM
    re.IGNORECASE,
)
"""Sentences about an image that servers send with 5xx, as if another attempt could help.

Sources: ollama/ollama#11320, #7388 and #8170 of langgenius/dify (Ollama); ggml-org/llama.cpp#12947 and #15377.
"""

_SECRETS: Final = re.compile(
    r"://[^/\s@]*@"
    r"|\b(?:Bearer|Basic)\s+\S+"
    r"|\b(?:sk|pk|rk|xai|gsk|hf|ghp|gho|npm|pypi|AIza|AKIA|eyJ)[-_A-Za-z0-9*.]{6,}"
    r"|\b(?=[A-Za-z0-9_]*[0-9])(?=[A-Za-z0-9_]*[A-Za-z])[A-Za-z0-9_]{20,}"
)
"""What may be a credential: it is replaced, also where it is only a long name."""


def error_parts(error: object) -> tuple[list[object], object]:
    """Return what classifies an error: its words (code, type, status, parameter, reasons), and its sentence.

    ``error`` is an error object in any of the known shapes: flat; wrapped under ``error`` (OpenAI, Anthropic, Gemini)
    or in a list (Gemini); a text (LM Studio, Ollama, xAI); ``detail`` (FastAPI); ``Message`` (AWS); ``errors``
    (gateways).
    """
    if isinstance(error, list) and error:
        error = error[0]
    if not isinstance(error, dict):
        return [], error
    inner = error.get("error") or error.get("errors") or error.get("detail")
    if isinstance(inner, list) and inner:
        inner = inner[0]
    if isinstance(inner, dict):
        return error_parts(inner)
    words = [error.get(key) for key in ("code", "type", "status", "param")]
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            words += [detail.get("reason"), *_quotas(detail.get("violations"))]
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and "flagged_input" in metadata:
        # OpenRouter's moderation: it comes with 403, as a bad key does.
        words.append("content_filter")
    texts = (error.get("message"), error.get("Message"), error.get("msg"), inner)
    text = next((text for text in texts if isinstance(text, str) and text), None)
    if isinstance(metadata, dict) and isinstance(raw := metadata.get("raw"), str):
        # OpenRouter: "Provider returned error", and here what the provider said.
        text = f"{text}: {raw}" if text else raw
    return words, text


def _quotas(violations: object) -> list[object]:
    """Return the names of the quotas that were exceeded (Google's ``QuotaFailure``)."""
    return [v.get("quotaId") for v in violations if isinstance(v, dict)] if isinstance(violations, list) else []


def is_quota_of_a_day(word: str) -> bool:
    """Whether a word names a quota that no retry can wait for, as ``GenerateRequestsPerDayPerProjectPerModel``."""
    return "perday" in word.lower()


def names_image(words: Iterable[str], sentence: object, *, is_transient: bool) -> bool:
    """Return whether an error says that the request was refused because of an image.

    ``is_transient``: the error looks as if it would pass; then only sentences count that are known to stay.
    """
    said = sentence[:SENTENCE_CHARS] if isinstance(sentence, str) else ""
    if _FAILED_IMAGES.search(said):
        return True
    return not is_transient and (any("image" in w.lower() for w in words) or bool(_IMAGE_SENTENCE.search(said)))


def find_error(body: dict[str, Any]) -> bool:
    """Return whether a JSON object reports an error rather than being an answer."""
    return bool(body.get("error")) or "error" in (body.get("object"), body.get("type"))


def shown_text(sentence: object) -> str:
    """Return a vendor's sentence as an error may repeat it: one line, bounded, without anything like a key."""
    if not isinstance(sentence, str):
        return ""
    printable = "".join(c if c.isprintable() else " " for c in sentence[:SENTENCE_CHARS])
    return bound_text(_SECRETS.sub(REDACTED, " ".join(printable.split())), MAX_TEXT_BYTES)
