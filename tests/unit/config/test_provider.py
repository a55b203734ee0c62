"""What a provider needs before it is used, and how a missing key is named without being shown."""

from __future__ import annotations

import msgspec
import pytest

from nous.config.keys import build_settings
from nous.config.provider import is_loopback_url, require_provider, resolve_key, resolve_secret
from nous.config.settings import ProviderName, ProviderSection, Settings
from nous.errors import NousError

REMOTE = "https://models.example/v1"
LOCAL = "http://127.0.0.1:8080/v1"


def test_no_provider_says_what_to_type() -> None:
    with pytest.raises(NousError) as caught:
        require_provider(Settings())
    assert (caught.value.code, caught.value.exit_code) == ("invalid_usage", 6)
    assert "add --provider mock" in str(caught.value.hint)
    assert "--provider openai --model NAME" in str(caught.value.hint)
    assert "nous serve" not in str(caught.value.hint), "nous prompt and nous doctor show it too"


def test_no_model_says_what_to_type() -> None:
    with pytest.raises(NousError) as caught:
        require_provider(build_settings({"provider.name": "openai"}))
    assert (caught.value.code, caught.value.exit_code) == ("invalid_usage", 6)
    assert str(caught.value.hint).startswith("Add --model NAME.")


@pytest.mark.parametrize(("name", "model"), [("mock", None), ("mock", "m"), ("openai", "m")])
def test_enough(name: ProviderName, model: str | None) -> None:
    assert require_provider(build_settings({"provider.name": name, "provider.model": model})) == name


@pytest.mark.parametrize(
    ("provider", "environ", "key"),
    [
        (ProviderSection(), {}, None),
        (ProviderSection(name="mock"), {"OPENAI_API_KEY": "sk-1"}, None),
        (ProviderSection(name="openai"), {"OPENAI_API_KEY": "sk-1"}, "sk-1"),
        (ProviderSection(name="openai", api_base=REMOTE), {"OPENAI_API_KEY": "sk-1"}, "sk-1"),
        (ProviderSection(name="openai", api_base=LOCAL), {"OPENAI_API_KEY": "sk-1"}, "sk-1"),
        (ProviderSection(name="openai", api_base=LOCAL), {}, None),
        (ProviderSection(name="openai", api_base=LOCAL), {"OPENAI_API_KEY": ""}, None),
        (ProviderSection(name="openai", api_key_env="MY"), {"MY": "sk-2", "OPENAI_API_KEY": "sk-1"}, "sk-2"),
    ],
)
def test_key(provider: ProviderSection, environ: dict[str, str], key: str | None) -> None:
    assert resolve_key(provider, environ) == key


@pytest.mark.parametrize(
    ("provider", "environ", "cause"),
    [
        (ProviderSection(name="openai"), {}, "OPENAI_API_KEY: not set"),
        (ProviderSection(name="openai"), {"OPENAI_API_KEY": ""}, "OPENAI_API_KEY: empty"),
        (ProviderSection(name="openai", api_base=REMOTE), {}, "OPENAI_API_KEY: not set"),
        # Named means required, also on this machine, and nothing else is tried in its place.
        (ProviderSection(name="openai", api_base=LOCAL, api_key_env="MY"), {"OPENAI_API_KEY": "sk"}, "MY: not set"),
        (ProviderSection(name="mock", api_key_env="MY"), {"MY": ""}, "MY: empty"),
    ],
)
def test_missing_key(provider: ProviderSection, environ: dict[str, str], cause: str) -> None:
    with pytest.raises(NousError) as caught:
        resolve_key(provider, environ)
    assert (caught.value.code, caught.value.exit_code, caught.value.cause) == ("invalid_config", 6, cause)


@pytest.mark.parametrize(
    "value", [" ", "sk-secret ", "sk-secret\n", "sk-se\tcret", "sk-sécret", "sk-secret\x00", "\ud800"]
)
def test_a_value_that_is_no_key_is_not_shown(value: str) -> None:
    with pytest.raises(NousError) as caught:
        resolve_secret("MY", {"MY": value})
    assert str(caught.value.cause).startswith("MY: holds")
    assert "secret" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "http://LOCALHOST:1/v1",
        "http://a.localhost/",
        "http://localhost./",
        "http://127.0.0.1",
        "https://127.9.8.7:443/x",
        "http://[::1]:80/",
    ],
)
def test_loopback(url: str) -> None:
    assert is_loopback_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "http://",
        "http://0.0.0.0",
        "http://10.0.0.1",
        "http://127.0.0.1.example",
        "http://localhost.example",
        "http://notlocalhost",
        "http://127.0.0.1@models.example/",
        "http://models.example/#@127.0.0.1",
        "http://0x7f.1",
        "http://127.1",
        "http://2130706433",
        "http://[::1",
        "http://[::2]",
    ],
)
def test_not_loopback(url: str) -> None:
    assert not is_loopback_url(url)


def test_settings_hold_no_secret() -> None:
    """What is written or shown of the settings can never show a key: they only know its variable."""
    provider = ProviderSection(name="openai", api_key_env="MY_VARIABLE")
    assert resolve_key(provider, {"MY_VARIABLE": "sk-verysecret"}) == "sk-verysecret"
    assert b"verysecret" not in msgspec.json.encode(provider)
