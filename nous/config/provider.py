"""What must be known before a provider is used: which one, which model, and the key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from nous.config.settings import ProviderName, ProviderSection, Settings
from nous.errors import NousError
from nous.telemetry.log import hide_value

KEY_VARIABLES: Final[Mapping[ProviderName, str]] = {
    "openai": "OPENAI_API_KEY",
    "openai-responses": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "kimi": "MOONSHOT_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
}
"""The variable each vendor documents for its key.  A provider that is not here needs none."""

_HEADER_SAFE: Final = re.compile(r"[!-~]+", re.ASCII)

_TRY: Final = "To try nous without a key, add --provider mock (it echoes what you say)."


def require_provider(settings: Settings) -> ProviderName:
    """Return the provider's name, if it and its model were given.

    Raises:
        NousError: ``invalid_usage``, its hint says what to type.
    """
    provider = settings.provider
    if provider.name is None:
        raise NousError(
            "invalid_usage",
            "no provider is named",
            hint=f"{_TRY} For real answers, for instance: --provider openai --model NAME.",
        )
    if provider.model is None and provider.name not in ("mock", "replay"):
        raise NousError(
            "invalid_usage",
            f"no model is named for the provider {provider.name}",
            hint=f"Add --model NAME. {_TRY}",
        )
    return provider.name


def resolve_key(provider: ProviderSection, environ: Mapping[str, str]) -> str | None:
    """Return the provider's key, or None if it is used without one.

    A variable named in ``api_key_env`` must hold a key.  The vendor's own variable must too, unless the provider is
    on this machine: then the key is sent if there is one.

    Raises:
        NousError: ``invalid_config``, naming the variable.
    """
    if provider.api_key_env is not None:
        return resolve_secret(provider.api_key_env, environ)
    variable = KEY_VARIABLES.get(provider.name) if provider.name is not None else None
    if variable is None:
        return None
    on_this_machine = provider.api_base is not None and is_loopback_url(provider.api_base)
    return None if on_this_machine and not environ.get(variable) else resolve_secret(variable, environ)


def is_loopback_url(url: str) -> bool:
    """Whether a URL can only lead to this machine: localhost, 127.0.0.0/8 or ::1."""
    import ipaddress

    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
        return host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def resolve_secret(variable: str, environ: Mapping[str, str]) -> str:
    """Return the secret that an environment variable holds; from here on logs leave it out.

    Raises:
        NousError: ``invalid_config`` if it is unset, empty or cannot be sent in a header; it names the variable and
            never shows the value.
    """
    value = environ.get(variable, "")
    if not value:
        state = "empty" if variable in environ else "not set"
        raise NousError("invalid_config", f"{variable}: {state}", hint=f"Put the key into the variable {variable}.")
    if not _HEADER_SAFE.fullmatch(value):
        raise NousError("invalid_config", f"{variable}: holds spaces, line ends or other characters no key has")
    hide_value(value)
    return value
