"""The providers of one daemon: built when they are first chosen, once, and refused in the words of the wire."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nous.config.settings import ProviderSection as ProviderSection
from nous.config.settings import Settings
from nous.errors import NousError
from nous.ports.model import ModelChoice
from nous.protocol.entries import ThinkingLevel
from nous.providers.pool import MAX_BUILT, ProviderPool
from nous.providers.presets import PRESETS
from nous.providers.reach import reach, section_of
from nous.providers.registry import PROVIDERS
from tests.support.gates import chat
from tests.support.sse_server import serve, streams
from tests.support.vendor_requests import request, user
from tests.support.vendor_streams import KEY

pytestmark = pytest.mark.anyio

KEYS = {preset.key_variable: KEY for preset in PRESETS.values() if preset.key_variable is not None}


def settings_of(**values: Any) -> Settings:
    return msgspec.convert(values, Settings)


def pool_of(
    settings: Settings | None = None,
    environ: dict[str, str] | None = None,
    default: ModelChoice = ModelChoice("mock", "mock"),  # noqa: B008 - frozen
    models_file: Path | None = None,
) -> ProviderPool:
    given = settings or Settings()
    return ProviderPool(default, lambda name: reach(given, name, KEYS if environ is None else environ), models_file)


def refusal(pool: ProviderPool, provider: str, model: str, thinking: ThinkingLevel | None = None) -> str:
    with pytest.raises(NousError) as caught:
        pool.find(ModelChoice(provider, model, thinking))
    return f"{caught.value.code}: {caught.value.cause}"


@pytest.mark.parametrize("name", PROVIDERS)
def test_each_choice_is_built_once(name: str) -> None:
    pool = pool_of()
    first = pool.find(ModelChoice(name, "m"))
    assert pool.find(ModelChoice(name, "m")) is first
    assert (first.name, pool.builds) == (name, 0)
    other = pool.find(ModelChoice(name, "n"))
    assert (other is first) == (name == "mock")


def test_no_more_are_kept_than_a_daemon_can_bear() -> None:
    pool = pool_of()
    first = pool.find(ModelChoice("openai", "m"))
    for number in range(MAX_BUILT):
        pool.find(ModelChoice("openai", f"m{number}"))
    assert pool.find(ModelChoice("openai", "m")) is not first


def test_what_cannot_be_built_is_refused_in_words_of_the_wire() -> None:
    assert refusal(pool_of(), "replay", "m").startswith("invalid_payload: provider: expected one of mock, openai")
    assert refusal(pool_of(environ={}), "kimi", "m") == "provider_auth: MOONSHOT_API_KEY: not set"
    assert (
        refusal(pool_of(), "openai", "gpt-4o", "high") == "capability_unavailable: thinking: the model gpt-4o has none"
    )
    strange = settings_of(providers={"vllm": {"api_base": "ftp://x"}})
    unusable = "capability_unavailable: provider.api_base: not an http or https address"
    assert refusal(pool_of(strange), "vllm", "m") == unusable


def test_thinking_is_part_of_the_choice() -> None:
    pool = pool_of()
    bodies = [
        json.loads(pool.find(ModelChoice("openai", "gpt-5.4", level))._adapter.build(request(user())).body)  # type: ignore[attr-defined]
        for level in (None, "low", "high")
    ]
    assert [body.get("reasoning_effort") for body in bodies] == [None, "low", "high"]


async def test_all_choices_of_a_vendor_share_its_connections() -> None:
    replies = [streams(*chat("a")) for _ in range(3)]
    async with serve(*replies) as server:
        pool = pool_of(settings_of(providers={"vllm": {"api_base": server.url}, "ollama": {"api_base": server.url}}))
        for provider, model in (("vllm", "a"), ("vllm", "b"), ("ollama", "a")):
            async with pool.find(ModelChoice(provider, model)).stream(request(user())) as batches:
                assert [batch async for batch in batches]
        assert (pool.builds, server.connections) == (2, 2)
        await pool.aclose()


def test_facts_and_what_is_known(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("ollama: {mine: {context_tokens: 4096, images: true}}\n", encoding="utf-8")
    pool = pool_of(environ={}, default=ModelChoice("vllm", "own"), models_file=file)
    assert (pool.facts("ollama", "mine").context_tokens, pool.facts("ollama", "mine").takes_images) == (4096, True)
    assert pool.facts("ollama", "other").prices is None
    prices = pool.facts("openai", "gpt-5.4").prices
    assert prices is not None
    assert (prices.input_usd_per_mtok, prices.output_usd_per_mtok) == (2.5, 15)
    rows = {row.name: row for row in pool.known()}
    assert list(rows) == list(PRESETS)
    assert {name for name, row in rows.items() if row.is_ready} == {"ollama", "vllm", "llamacpp", "lmstudio"}
    assert [model.name for model in rows["vllm"].models] == ["own"]
    assert [model.name for model in rows["ollama"].models] == ["mine"]


class TestReach:
    def test_what_was_set_for_one_provider_is_never_used_for_another(self) -> None:
        given = settings_of(
            provider={
                "name": "openai",
                "model": "m",
                "api_base": "https://proxy.example",
                "api_key_env": "MINE",
                "headers": {"X-Team": "a"},
                "max_output_tokens": 7,
                "stream_idle_timeout_ms": 9,
            }
        )
        assert section_of(given, "openai") == given.provider
        assert section_of(given, "anthropic") == ProviderSection(name="anthropic", stream_idle_timeout_ms=9)

    def test_a_section_of_its_own(self) -> None:
        own = {"api_base": "http://127.0.0.1:1", "api_key_env": "OWN", "headers": {"X-Team": "b", "X-Other": "c"}}
        given = settings_of(
            provider={"name": "openai", "headers": {"X-Team": "a"}}, providers={"openai": own, "kimi": own}
        )
        kimi = reach(given, "kimi", {"OWN": KEY})
        assert (kimi.api_base, kimi.api_key, kimi.headers) == ("http://127.0.0.1:1", KEY, own["headers"])
        openai = reach(given, "openai", {"OWN": KEY})
        assert (openai.api_base, openai.headers) == ("http://127.0.0.1:1", {"X-Team": "a", "X-Other": "c"})

    def test_dashes_become_underscores(self) -> None:
        given = settings_of(providers={"openai_responses": {"api_base": "http://127.0.0.1:1"}})
        assert reach(given, "openai-responses", {}).api_base == "http://127.0.0.1:1"
