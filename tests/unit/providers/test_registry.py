"""Providers by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nous.errors import NousError
from nous.ports.model import Provider
from nous.providers.http import HttpRoom
from nous.providers.registry import PROVIDERS, build_adapter, build_provider
from nous.providers.settings import ProviderSettings
from tests.support.sse_server import serve, streams
from tests.support.vendor_requests import request, user
from tests.support.vendor_streams import ANSWERS, recording


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_name_builds_a_provider_that_has_made_no_client(name: str) -> None:
    provider: Provider = build_provider(name, ProviderSettings(model="m", api_key="k"))
    assert (provider.name, provider.model, provider.builds) == (name, "m", 0)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(NousError, match="mock, openai") as caught:
        build_provider("nonsense", ProviderSettings())
    assert caught.value.code == "invalid_usage"


def test_a_script_that_cannot_be_read_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(NousError) as caught:
        build_provider("mock", ProviderSettings(script=tmp_path / "none.yaml"))
    assert caught.value.code == "invalid_config"


def test_a_missing_key_fails_at_once_and_is_named() -> None:
    with pytest.raises(NousError, match="OPENAI_API_KEY") as caught:
        build_provider("openai", ProviderSettings(model="m"))
    assert caught.value.code == "provider_auth"


def test_a_file_of_model_facts_counts(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("anthropic:\n  m: {max_output_tokens: 77}\n", encoding="utf-8")
    settings = ProviderSettings(model="m", api_key="k", models_file=path)
    assert b'"max_tokens":77,' in build_adapter("anthropic", settings).build(request(user())).body


@pytest.mark.anyio
async def test_providers_over_one_room_share_its_client_and_its_connections() -> None:
    """What changing the model between two runs comes to."""
    replies = [streams(recording("openai", "text")), streams(recording("anthropic", "text"))]
    async with serve(*replies) as server:
        room = HttpRoom()
        for name in ("openai", "anthropic"):
            provider = build_provider(name, ProviderSettings(model="m", api_base=server.url), room)
            async with provider.stream(request(user())) as stream:
                assert [item async for items in stream for item in items] == ANSWERS[name]["text"]
            assert provider.builds == 1
        await room.aclose()
    assert server.connections == 1
