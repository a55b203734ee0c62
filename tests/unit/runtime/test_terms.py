"""Which model is meant: by a prompt that names some of provider, model and thinking, and leaves the others out."""

from __future__ import annotations

import pytest

from nous.errors import NousError
from nous.ports.model import ModelChoice
from nous.protocol.entries import ThinkingLevel
from nous.runtime.models import OneProvider
from nous.runtime.terms import choose
from nous.testing import scripted_provider


@pytest.fixture
def catalogue() -> OneProvider:
    made = OneProvider(scripted_provider())
    made.default = ModelChoice("openai", "gpt", "low")
    return made


HERE = ModelChoice("anthropic", "claude", "high")


@pytest.mark.parametrize(
    ("provider", "model", "thinking", "chosen"),
    [
        (None, None, None, HERE),
        (None, None, "off", ModelChoice("anthropic", "claude", "off")),
        (None, "other", None, ModelChoice("anthropic", "other")),
        (None, "other", "max", ModelChoice("anthropic", "other", "max")),
        (None, "claude", None, HERE),
        ("anthropic", None, None, HERE),
        ("anthropic", "other", None, ModelChoice("anthropic", "other")),
        ("openai", None, None, ModelChoice("openai", "gpt", "low")),
        ("openai", "gpt", None, ModelChoice("openai", "gpt", "low")),
        ("openai", "mini", None, ModelChoice("openai", "mini")),
        ("openai", None, "max", ModelChoice("openai", "gpt", "max")),
        ("gemini", "flash", None, ModelChoice("gemini", "flash")),
        ("gemini", "flash", "low", ModelChoice("gemini", "flash", "low")),
    ],
)
def test_what_is_left_out_follows_from_what_is_in_force(
    catalogue: OneProvider,
    provider: str | None,
    model: str | None,
    thinking: ThinkingLevel | None,
    chosen: ModelChoice,
) -> None:
    assert choose(catalogue, HERE, provider, model, thinking) == chosen


def test_another_provider_needs_its_model_named(catalogue: OneProvider) -> None:
    with pytest.raises(NousError, match="needed with another provider") as caught:
        choose(catalogue, HERE, "gemini", None, None)
    assert caught.value.code == "invalid_payload"
