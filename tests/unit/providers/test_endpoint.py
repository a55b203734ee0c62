"""Where requests go and what they carry."""

from __future__ import annotations

import pytest

from nous.errors import NousError
from nous.providers.endpoint import open_endpoint, require_model
from nous.providers.presets import PRESETS
from nous.providers.settings import ProviderSettings

KEY = "sk-secret"


@pytest.mark.parametrize(
    ("name", "header", "value"),
    [
        ("openai", "authorization", f"Bearer {KEY}"),
        ("openai-responses", "authorization", f"Bearer {KEY}"),
        ("kimi", "authorization", f"Bearer {KEY}"),
        ("ollama", "authorization", f"Bearer {KEY}"),
        ("anthropic", "x-api-key", KEY),
        ("gemini", "x-goog-api-key", KEY),
    ],
)
def test_the_key_stands_in_the_vendors_header(name: str, header: str, value: str) -> None:
    endpoint = open_endpoint(PRESETS[name], ProviderSettings(api_key=KEY))
    assert endpoint.headers[header] == value
    assert [found for found, said in endpoint.headers.items() if KEY in said] == [header]
    assert endpoint.is_own
    assert KEY not in endpoint.base


@pytest.mark.parametrize("name", [name for name, row in PRESETS.items() if row.key_variable])
def test_a_missing_key_is_named(name: str) -> None:
    preset = PRESETS[name]
    with pytest.raises(NousError, match=str(preset.key_variable)) as caught:
        open_endpoint(preset, ProviderSettings())
    assert caught.value.code == "provider_auth"
    open_endpoint(preset, ProviderSettings(api_base="http://localhost:1"))


@pytest.mark.parametrize(("name", "header"), [("openai", "Authorization"), ("anthropic", "X-Api-Key")])
def test_a_header_of_the_settings_replaces_the_key(name: str, header: str) -> None:
    endpoint = open_endpoint(PRESETS[name], ProviderSettings(headers={header: "mine"}))
    assert endpoint.headers[header.lower()] == "mine"


def test_headers_of_the_settings_win() -> None:
    settings = ProviderSettings(api_key=KEY, headers={"Anthropic-Version": "2030-01-01"})
    assert open_endpoint(PRESETS["anthropic"], settings).headers["anthropic-version"] == "2030-01-01"


def test_another_address_is_not_the_vendors_own() -> None:
    endpoint = open_endpoint(PRESETS["openai"], ProviderSettings(api_key=KEY, api_base="https://example.com/v1/"))
    assert (endpoint.base, endpoint.is_own) == ("https://example.com/v1", False)


def test_a_key_that_cannot_be_sent() -> None:
    with pytest.raises(NousError, match="ANTHROPIC_API_KEY") as caught:
        open_endpoint(PRESETS["anthropic"], ProviderSettings(api_key="secret\n"))
    assert caught.value.code == "provider_auth"
    assert "secret" not in str(caught.value)


def test_a_model_is_needed() -> None:
    with pytest.raises(NousError, match="gemini needs a model") as caught:
        require_model(PRESETS["gemini"], ProviderSettings())
    assert caught.value.code == "invalid_usage"
