"""What is known of models: found by name, corrected by a file, turned into cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from nous.errors import NousError
from nous.protocol.messages import Usage
from nous.providers.models import ModelInfo, ModelTable, load_models
from nous.providers.presets import PRESETS
from nous.providers.thinking import _ORDER

TABLE = ModelTable()
ROWS = [(vendor, model, info) for vendor in PRESETS for model, info in TABLE.rows(vendor).items()]


@pytest.mark.parametrize(("vendor", "model", "info"), ROWS, ids=[f"{vendor}/{model}" for vendor, model, _ in ROWS])
def test_rows_are_sound(vendor: str, model: str, info: ModelInfo) -> None:
    assert info.context_tokens is not None
    assert info.max_output_tokens is not None
    assert info.max_output_tokens <= info.context_tokens
    assert info.input_usd_per_mtok is not None
    assert info.cached_usd_per_mtok is not None
    assert info.output_usd_per_mtok is not None
    assert info.cached_usd_per_mtok < info.input_usd_per_mtok < info.output_usd_per_mtok
    assert set(info.efforts or ()) <= set(_ORDER)
    assert TABLE.find(vendor, model) == info


def cost_of(info: ModelInfo, usage: Usage) -> float | None:
    return None if info.prices is None else info.prices.cost_usd(usage)


def test_every_vendor_with_models_of_its_own_has_some() -> None:
    assert {vendor for vendor, _, _ in ROWS} == {name for name, row in PRESETS.items() if row.models}


@pytest.mark.parametrize(
    ("provider", "model", "known_as"),
    [
        ("anthropic", "claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("openai", "gpt-4.1-mini-2025-04-14", "gpt-4.1-mini"),
        ("openai-responses", "gpt-5-mini", "gpt-5-mini"),
        ("gemini", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("gemini", "gemini-2.5-flash-001", "gemini-2.5-flash"),
        ("anthropic", "claude-opus-5-5-latest", "claude-opus-5-5"),
    ],
)
def test_names_that_say_which_build_is_meant(provider: str, model: str, known_as: str) -> None:
    assert TABLE.find(provider, model) == TABLE.rows(provider)[known_as]


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-5-turbo"),
        ("openai", "gpt-55"),
        ("openai", ""),
        ("anthropic", "gpt-5"),
        ("ollama", "gpt-5"),
        ("openrouter", "openai/gpt-5"),
        ("nobody", "gpt-5"),
    ],
)
def test_names_that_mean_another_model(provider: str, model: str) -> None:
    assert TABLE.find(provider, model) is None


def test_cost() -> None:
    info = ModelInfo(input_usd_per_mtok=2, cached_usd_per_mtok=0.2, output_usd_per_mtok=10)
    assert cost_of(info, Usage(input_tokens=1_000_000)) == 2
    assert cost_of(info, Usage(input_tokens=1_000_000, cached_tokens=500_000)) == 1.1
    assert cost_of(info, Usage(input_tokens=3, output_tokens=7, reasoning_tokens=5)) == 0.000076
    assert cost_of(info, Usage()) == 0
    assert cost_of(info, Usage(input_tokens=1, cached_tokens=9)) == 0.0000002


def test_cost_of_long_prompts() -> None:
    info = TABLE.rows("anthropic")["claude-haiku-5-5"]
    assert cost_of(info, Usage(input_tokens=100_000, output_tokens=1000)) == 0.0105
    assert cost_of(info, Usage(input_tokens=100_001, output_tokens=1000)) == 0.0525005


def test_cost_of_writing_into_the_cache() -> None:
    info = TABLE.rows("anthropic")["claude-haiku-5-5"]
    written = Usage(input_tokens=100_000, cached_tokens=20_000, cache_write_tokens=40_000)
    # A quarter more than other input: 40,000 at 0.1, 20,000 at 0.01, 40,000 at 0.125 dollars a million.
    assert cost_of(info, written) == 0.0092
    assert cost_of(info, Usage(input_tokens=1, cached_tokens=1, cache_write_tokens=9)) == 0.00000001
    unpriced = ModelInfo(input_usd_per_mtok=2, output_usd_per_mtok=1)
    assert cost_of(unpriced, written) is None
    assert cost_of(unpriced, Usage(input_tokens=1, cache_write_tokens=0)) == 0.000002


def test_cost_without_prices() -> None:
    assert cost_of(ModelInfo(), Usage(input_tokens=1)) is None
    assert cost_of(ModelInfo(input_usd_per_mtok=1), Usage(input_tokens=1)) is None
    uncached = ModelInfo(input_usd_per_mtok=2, output_usd_per_mtok=1)
    assert cost_of(uncached, Usage(input_tokens=1_000_000, cached_tokens=1_000_000)) == 2


FILE = """
openai:
  gpt-5.6: {input_usd_per_mtok: 1.5, images: false}
openai-responses:
  gpt-5.6: {images: true}
  gpt-own: {context_tokens: 1000}
vllm:
  Qwen/Qwen3-Coder: {context_tokens: 262144, thinking: none}
"""


def test_a_file_corrects_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(FILE, encoding="utf-8")
    table = load_models(path)
    chat, responses = (table.find(name, "gpt-5.6") for name in ("openai", "openai-responses"))
    assert chat is not None
    assert responses is not None
    assert (chat.input_usd_per_mtok, chat.images, chat.context_tokens) == (1.5, False, 1_050_000)
    assert (responses.input_usd_per_mtok, responses.images) == (1.5, True)
    assert table.find("openai-responses", "gpt-own") == ModelInfo(context_tokens=1000)
    assert table.find("openai", "gpt-own") is None
    assert table.find("vllm", "Qwen/Qwen3-Coder") == ModelInfo(context_tokens=262_144, thinking="none")
    assert TABLE.find("openai", "gpt-5.6") != chat


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("- a\n", "models.yaml:1: expected a mapping"),
        ("nobody:\n  m: {}\n", "models.yaml:1: nobody: expected one of openai, "),
        ("openai: 1\n", "models.yaml:1: openai: expected a mapping"),
        ("openai:\n  m: {x: 1}\n", "models.yaml:2: openai.m: "),
        ("openai:\n  m: {images: 'secret'}\n", "models.yaml:2: openai.m: "),
        ("openai:\n  m: {context_tokens: 0}\n", "models.yaml:2: openai.m: "),
        ("openai:\n  m: {input_usd_per_mtok: -1}\n", "models.yaml:2: openai.m: "),
        ("openai:\n  m: {thinking: hard}\n", "models.yaml:2: openai.m: "),
        ("openai:\n  m: secret\n", "models.yaml:2: openai.m: "),
        ("openai:\n  m: {}\n  m: {}\n", "models.yaml:3: "),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, cause: str) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(NousError) as caught:
        load_models(path)
    assert caught.value.code == "invalid_config"
    assert (caught.value.cause or "").startswith(f"{tmp_path}/{cause}")
    assert "secret" not in str(caught.value)


def test_an_empty_file_and_none_at_all(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("# nothing yet\n", encoding="utf-8")
    assert load_models(path).rows("openai") == load_models(None).rows("openai")
    with pytest.raises(NousError, match="no such file"):
        load_models(tmp_path / "none.yaml")
