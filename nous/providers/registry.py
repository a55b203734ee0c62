"""Providers by name.  What a provider needs is imported when it is asked for: a daemon pays for what it uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nous.errors import NousError
from nous.ports.model import Provider
from nous.providers.settings import ProviderSettings


def build_provider(name: str, settings: ProviderSettings) -> Provider:
    """Build the provider ``name``.  Nothing is connected, and no HTTP client is made, before its first call.

    Raises:
        NousError: ``invalid_usage`` for a name nobody knows, or what the provider says of its settings.
    """
    build = _BUILDERS.get(name)
    if build is None:
        raise NousError("invalid_usage", f"no provider {name!r}; there are {', '.join(_BUILDERS)}")
    return build(settings)


def _build_mock(settings: ProviderSettings) -> Provider:
    from nous.providers.mock import MockProvider

    return MockProvider(settings)


def _build_openai(settings: ProviderSettings) -> Provider:
    from nous.providers.http import HttpRoom
    from nous.providers.openai import OpenAIAdapter
    from nous.providers.vendor import VendorProvider

    adapter = OpenAIAdapter(settings)
    room = HttpRoom(
        connect_timeout_ms=settings.connect_timeout_ms, stream_idle_timeout_ms=settings.stream_idle_timeout_ms
    )
    return VendorProvider(adapter, room)


_BUILDERS: Final[dict[str, Callable[[ProviderSettings], Provider]]] = {
    "mock": _build_mock,
    "openai": _build_openai,
}

PROVIDERS: Final = tuple(_BUILDERS)
"""The names ``build_provider`` knows."""
