"""How much a model is to think, in the words of each vendor."""

from __future__ import annotations

from typing import get_args

import pytest

from nous.protocol.entries import ThinkingLevel
from nous.providers.models import ModelInfo
from nous.providers.presets import ThinkingForm
from nous.providers.thinking import MIN_BUDGET_TOKENS, budget_for, chat_fields, effort_for, thinking_form

LEVELS: tuple[ThinkingLevel, ...] = get_args(ThinkingLevel)


@pytest.mark.parametrize(
    ("words", "efforts"),
    [
        (None, ("low", "low", "medium", "high", "high")),
        ((), ("low", "low", "medium", "high", "high")),
        (("none", "low", "medium", "high", "xhigh"), ("none", "low", "medium", "high", "xhigh")),
        (("minimal", "low", "medium", "high"), ("minimal", "low", "medium", "high", "high")),
        (("low", "high", "max"), ("low", "low", "high", "high", "max")),
        (("high", "max"), ("high", "high", "high", "high", "max")),
        (("max",), ("max",) * 5),
        (("high", "low"), ("low", "low", "high", "high", "high")),
        (("brand-new",), ("brand-new",) * 5),
    ],
)
def test_the_same_word_or_the_next_stronger_or_the_strongest(
    words: tuple[str, ...] | None, efforts: tuple[str, ...]
) -> None:
    info = ModelInfo(efforts=words)
    assert tuple(effort_for(level, info) for level in LEVELS) == efforts


def test_a_model_nobody_has_described() -> None:
    assert effort_for("max", None) == "high"
    assert thinking_form(None, "toggle") == thinking_form(ModelInfo(), "toggle") == "toggle"
    assert thinking_form(ModelInfo(thinking="none"), "toggle") == "none"


@pytest.mark.parametrize("most_tokens", [2048, 10_000, 64_000, 1_000_000])
def test_budgets_grow_with_the_level_and_leave_room(most_tokens: int) -> None:
    budgets = [budget_for(level, most_tokens) for level in LEVELS]
    assert budgets == sorted(budgets)
    assert budgets[0] == 0
    assert all(MIN_BUDGET_TOKENS <= budget <= most_tokens // 2 for budget in budgets[1:])


@pytest.mark.parametrize(
    ("level", "form", "fields"),
    [
        (None, "effort", {}),
        (None, "toggle", {}),
        ("low", "effort", {"reasoning_effort": "low"}),
        ("low", "toggle", {"thinking": {"type": "enabled"}}),
        ("off", "toggle", {"thinking": {"type": "disabled"}}),
        ("low", "toggle_effort", {"thinking": {"type": "enabled"}, "reasoning_effort": "low"}),
        ("off", "toggle_effort", {"thinking": {"type": "disabled"}}),
    ],
)
def test_fields_of_chat_completions(level: ThinkingLevel | None, form: ThinkingForm, fields: object) -> None:
    assert chat_fields(level, form, None, "reasoning_effort") == fields


def test_a_server_with_another_field() -> None:
    assert chat_fields("high", "effort", None, "reasoning") == {"reasoning": {"effort": "high"}}
