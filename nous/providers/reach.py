"""How each provider is reached: what the configuration says of it, and its key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from nous.config.provider import resolve_key
from nous.config.settings import EndpointSettings, ProviderName, Settings
from nous.config.settings import ProviderSection as ProviderSection
from nous.errors import NousError
from nous.providers.settings import ProviderSettings
from nous.telemetry.log import hide_value


class KeyMissingError(NousError):
    """``invalid_config``: the variable that should hold a provider's key does not."""


def section_of(settings: Settings, name: ProviderName) -> ProviderSection:
    """Return the settings of the provider ``name``.

    Those of ``provider`` count where it names this one, those of ``providers`` for what it leaves out; for any other
    only the timeouts do.  Nothing that was set for one provider, an address or a key, is ever used for another.
    """
    given = settings.provider
    own = endpoint_of(settings, name)
    if given.name != name:
        given = ProviderSection(
            name=name,
            connect_timeout_ms=given.connect_timeout_ms,
            stream_idle_timeout_ms=given.stream_idle_timeout_ms,
            stream_stall_timeout_ms=given.stream_stall_timeout_ms,
            models_file=given.models_file,
        )
    return msgspec.structs.replace(
        given,
        api_base=given.api_base or own.api_base,
        api_key_env=given.api_key_env or own.api_key_env,
        headers=own.headers | given.headers,
        allow_insecure=given.allow_insecure or own.allow_insecure,
    )


def endpoint_of(settings: Settings, name: ProviderName) -> EndpointSettings:
    """Return the settings of a provider's endpoint."""
    found: EndpointSettings = getattr(settings.providers, name.replace("-", "_"), EndpointSettings())
    return found


def reach(settings: Settings, name: ProviderName, environ: Mapping[str, str]) -> ProviderSettings:
    """Return what the provider ``name`` is built with, but for the model.

    Raises:
        KeyMissingError: its key is not set.
    """
    section = section_of(settings, name)
    try:
        key = resolve_key(section, environ)
    except NousError as error:
        raise KeyMissingError(error.code, error.cause, hint=error.hint) from None
    for value in section.headers.values():
        hide_value(value)
    return ProviderSettings(
        api_base=section.api_base,
        api_key=key,
        headers=dict(section.headers),
        connect_timeout_ms=section.connect_timeout_ms,
        stream_idle_timeout_ms=section.stream_idle_timeout_ms,
        stream_stall_timeout_ms=section.stream_stall_timeout_ms,
        allow_insecure=section.allow_insecure,
        max_output_tokens=section.max_output_tokens,
        models_file=None if section.models_file is None else Path(section.models_file),
        script=None if section.script is None else Path(section.script),
    )
