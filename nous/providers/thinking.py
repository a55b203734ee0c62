"""How much a model is to think: nous's words as each vendor's own.  Pure."""

from __future__ import annotations

from typing import Any, Final

from nous.errors import NousError
from nous.protocol.entries import ThinkingLevel
from nous.providers.models import ModelInfo
from nous.providers.presets import ThinkingForm

DEFAULT_EFFORTS: Final = ("low", "medium", "high")
"""The words every vendor has that has words; what a model takes that nobody has described."""

_ORDER: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_BUDGET_TOKENS: Final[dict[ThinkingLevel, int]] = {"low": 4_096, "medium": 12_288, "high": 24_576, "max": 32_000}

MIN_BUDGET_TOKENS: Final = 1_024
"""The least that vendors accept where thinking is counted and cannot be nothing."""


def thinking_form(info: ModelInfo | None, default: ThinkingForm) -> ThinkingForm:
    """Return how a model is told how much to think."""
    return default if info is None or info.thinking is None else info.thinking


def refuse_thinking(model: str) -> NousError:
    """Return ``capability_unavailable`` for a model that has no thinking."""
    hint = "Leave thinking out (the setting is provider.thinking), or choose another model."
    return NousError("capability_unavailable", f"thinking: the model {model} has none", hint=hint)


def effort_for(level: ThinkingLevel, info: ModelInfo | None) -> str:
    """Return the model's word for ``level``: the same, or the next stronger, or its strongest."""
    words = (info.efforts if info is not None else None) or DEFAULT_EFFORTS
    wanted = _ORDER.index("none" if level == "off" else level)
    ranked = sorted(words, key=_rank)
    return next((word for word in ranked if _rank(word) >= wanted), ranked[-1])


def budget_for(level: ThinkingLevel, most_tokens: int) -> int:
    """Return a number of tokens for ``level`` that leaves room for an answer in ``most_tokens``; 0 for off."""
    if level == "off":
        return 0
    return max(MIN_BUDGET_TOKENS, min(_BUDGET_TOKENS[level], most_tokens // 2))


def chat_fields(
    level: ThinkingLevel | None, form: ThinkingForm, info: ModelInfo | None, effort_field: str
) -> dict[str, Any]:
    """Return the fields that ask for ``level`` in chat completions."""
    if level is None:
        return {}
    switch = {"thinking": {"type": "disabled" if level == "off" else "enabled"}}
    effort = effort_for(level, info)
    if form == "toggle":
        return switch
    if form == "toggle_effort":
        return switch if level == "off" else {**switch, "reasoning_effort": effort}
    return {"reasoning": {"effort": effort}} if effort_field == "reasoning" else {"reasoning_effort": effort}


def _rank(word: str) -> int:
    return _ORDER.index(word) if word in _ORDER else len(_ORDER)
