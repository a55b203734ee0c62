"""Where a provider's requests go and what they carry: address, key, further headers.  Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from nous.errors import NousError
from nous.providers.presets import Dialect, Preset
from nous.providers.settings import (
    ProviderSettings,
    check_api_base,
    check_headers,
    is_header_value,
    is_loopback_url,
)

_KEY_HEADERS: Final[dict[Dialect, tuple[str, str]]] = {
    "chat": ("authorization", "Bearer "),
    "responses": ("authorization", "Bearer "),
    "anthropic": ("x-api-key", ""),
    "gemini": ("x-goog-api-key", ""),
}
"""The header a dialect's key stands in, and what stands before it.  A key is never in an address."""

_OWN_HEADERS: Final[dict[Dialect, dict[str, str]]] = {"anthropic": {"anthropic-version": "2023-06-01"}}


class ApiEndpoint(NamedTuple):
    """``base`` has no slash at its end; ``is_own``: it is the preset's own address, so all it knows may be sent."""

    base: str
    headers: dict[str, str]
    is_own: bool


def open_endpoint(preset: Preset, settings: ProviderSettings) -> ApiEndpoint:
    """Return where ``preset`` is found with these settings.  Headers of the settings win over those nous sets.

    Raises:
        NousError: ``provider_auth`` without a key where one is needed (a server on this machine needs none),
            ``invalid_config`` or ``unsafe_operation`` for an endpoint that cannot be used.
    """
    base = check_api_base(settings.api_base or preset.api_base, allow_insecure=settings.allow_insecure)
    headers = {"content-type": "application/json"} | _OWN_HEADERS.get(preset.dialect, {})
    headers |= _key_header(preset, settings, base) | check_headers(settings.headers)
    return ApiEndpoint(base, headers, base == preset.api_base)


def require_model(preset: Preset, settings: ProviderSettings) -> str:
    """Return the model's name.

    Raises:
        NousError: ``invalid_usage`` without one.
    """
    if not settings.model:
        raise NousError("invalid_usage", f"the provider {preset.name} needs a model", hint="Add --model NAME.")
    return settings.model


def _key_header(preset: Preset, settings: ProviderSettings, base: str) -> dict[str, str]:
    name, prefix = _KEY_HEADERS[preset.dialect]
    variable = preset.key_variable
    if settings.api_key:
        if not is_header_value(settings.api_key):
            raise NousError("provider_auth", f"{variable or 'the key'} holds characters that no key has")
        return {name: prefix + settings.api_key}
    is_replaced = name in {given.lower() for given in settings.headers}
    if variable is not None and not is_replaced and not is_loopback_url(base):
        raise NousError("provider_auth", f"{variable} is not set", hint=f"Set {variable}.")
    return {}
