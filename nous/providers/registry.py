"""Providers by name.  What a provider needs is imported when it is asked for: a daemon pays for what it uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, get_args

from nous.config.settings import ProviderName
from nous.errors import NousError
from nous.ports.model import Provider
from nous.providers.settings import ProviderSettings

if TYPE_CHECKING:
    from nous.providers.adapter import Adapter
    from nous.providers.api_base import ApiBase
    from nous.providers.http import HttpRoom
    from nous.providers.listing import ListedModel
    from nous.providers.models import ModelInfo, ModelTable
    from nous.providers.presets import Dialect, Preset

PROVIDERS: Final = tuple(name for name in get_args(ProviderName) if name != "replay")
"""The names ``build_provider`` knows."""


def build_provider(
    name: str, settings: ProviderSettings, room: HttpRoom | None = None, table: ModelTable | None = None
) -> Provider:
    """Build the provider ``name``.  Nothing is connected, and no HTTP client is made, before its first call.

    Building is cheap: another model, or another way of asking it, is another provider over the same ``room``, whose
    timeouts and connections they share.

    Raises:
        NousError: ``invalid_usage`` for a name nobody knows, or what the provider says of its settings.
    """
    if name == "mock":
        from nous.providers.mock import MockProvider

        return MockProvider(settings)
    from nous.providers.vendor import VendorProvider

    adapter = build_adapter(name, settings, table)
    return VendorProvider(adapter, room or build_room(settings), _base_of(name, settings))


def build_room(settings: ProviderSettings) -> HttpRoom:
    """Return the HTTP clients that these settings ask for; none is built yet."""
    from nous.providers.http import HttpRoom

    return HttpRoom(
        connect_timeout_ms=settings.connect_timeout_ms,
        stream_idle_timeout_ms=settings.stream_idle_timeout_ms,
        stream_stall_timeout_ms=settings.stream_stall_timeout_ms,
    )


def build_adapter(name: str, settings: ProviderSettings, table: ModelTable | None = None) -> Adapter:
    """Build the adapter of a vendor or preset; ``table`` left out is read from ``models_file``.

    Raises:
        NousError: ``invalid_usage`` for a name nobody knows, or what the adapter says of its settings.
    """
    from nous.providers.models import load_models

    preset = find_preset(name)
    info = (table or load_models(settings.models_file)).find(name, settings.model)
    return _DIALECTS[preset.dialect](preset, settings, info)


async def list_models(name: str, settings: ProviderSettings) -> list[ListedModel]:
    """Return the models that a vendor or server says it has, by name.  Makes a client of its own and closes it.

    Raises:
        NousError: ``invalid_usage`` for a name nobody knows, what the endpoint says of the settings, or what a call
            may fail with.
    """
    from nous.providers.endpoint import open_endpoint
    from nous.providers.listing import list_fault, list_request, read_list

    preset = find_preset(name)
    request = list_request(preset.dialect, open_endpoint(preset, settings))
    room = build_room(settings)
    try:
        base = _base_of(name, settings)
        answer = room.fetch(request, list_fault) if base is None else base.ask(request, list_fault, room.fetch)
        return read_list(preset.dialect, await answer)
    finally:
        await room.aclose()


def _base_of(name: str, settings: ProviderSettings) -> ApiBase | None:
    """Return the address that was configured for a provider whose paths may begin with ``/v1``."""
    if settings.api_base is None or find_preset(name).dialect == "gemini":
        return None
    from nous.providers.api_base import ApiBase

    return ApiBase(settings.api_base.rstrip("/"))


def find_preset(name: str) -> Preset:
    """Return the row of a vendor or preset.

    Raises:
        NousError: ``invalid_usage``.
    """
    from nous.providers.presets import PRESETS

    preset = PRESETS.get(name)
    if preset is None:
        raise NousError("invalid_usage", f"no provider {name!r}; there are {', '.join(PROVIDERS)}")
    return preset


def _chat(preset: Preset, settings: ProviderSettings, info: ModelInfo | None) -> Adapter:
    from nous.providers.chat import ChatAdapter

    return ChatAdapter(preset, settings, info)


def _responses(preset: Preset, settings: ProviderSettings, info: ModelInfo | None) -> Adapter:
    from nous.providers.responses import ResponsesAdapter

    return ResponsesAdapter(preset, settings, info)


def _anthropic(preset: Preset, settings: ProviderSettings, info: ModelInfo | None) -> Adapter:
    from nous.providers.anthropic import AnthropicAdapter

    return AnthropicAdapter(preset, settings, info)


def _gemini(preset: Preset, settings: ProviderSettings, info: ModelInfo | None) -> Adapter:
    from nous.providers.gemini import GeminiAdapter

    return GeminiAdapter(preset, settings, info)


_DIALECTS: Final[dict[Dialect, Callable[[Preset, ProviderSettings, ModelInfo | None], Adapter]]] = {
    "chat": _chat,
    "responses": _responses,
    "anthropic": _anthropic,
    "gemini": _gemini,
}
