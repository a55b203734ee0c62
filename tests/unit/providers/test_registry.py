"""Providers by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nous.errors import NousError
from nous.ports.model import Provider
from nous.providers.registry import PROVIDERS, build_provider
from nous.providers.settings import ProviderSettings


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
