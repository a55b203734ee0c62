"""What a configuration must hold beyond the type of each value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from nous.config.settings import Settings
from nous.errors import NousError

_CREDENTIAL_HEADERS: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "api-key", "x-api-key", "x-goog-api-key", "x-auth-token"}
)

_BEYOND_AN_ADDRESS: Final = frozenset("@?#")
"""What stands in a URL beside host and path, where a key would be part of every error that names the URL."""

FAKE_PROVIDERS: Final = frozenset({"mock", "replay"})
"""Providers that no model stands behind."""


class Fault(NamedTuple):
    """What is wrong with the value at a dotted path.  Never repeats the value."""

    path: str
    what: str


def check_settings(settings: Settings, sources: Mapping[str, str]) -> None:
    """Refuse settings that contradict each other or must not be used.

    Raises:
        NousError: ``invalid_config``, its cause ``SOURCE: path.of.key: what``.
    """
    for fault in find_faults(settings):
        raise NousError("invalid_config", f"{sources[fault.path]}: {fault.path}: {fault.what}")


def find_faults(settings: Settings) -> Iterator[Fault]:
    """Yield everything that is wrong, in the order of the settings.

    What else a provider asks of its endpoint (addresses, header values) it checks itself when it is built.
    """
    yield from _find_secrets("provider", settings.provider.api_base, settings.provider.headers)
    for field in settings.providers.__struct_fields__:
        section = getattr(settings.providers, field)
        yield from _find_secrets(f"providers.{field}", section.api_base, section.headers)
    if settings.daemon.profile == "production" and settings.provider.name in FAKE_PROVIDERS:
        yield Fault("provider.name", "not under the profile production: its answers are not a model's")
    if settings.daemon.faults is not None and settings.daemon.profile == "production":
        yield Fault("daemon.faults", "not under the profile production: faults on purpose are for tests")
    if settings.daemon.faults is not None and settings.provider.name == "replay":
        yield Fault("daemon.faults", "not in a replay: it repeats the faults that were recorded")
    if settings.prompt.system is not None and settings.prompt.system_file is not None:
        yield Fault("prompt.system_file", "prompt.system is set too; only one of them can be the prompt")


def _find_secrets(section: str, api_base: str | None, headers: Mapping[str, str]) -> Iterator[Fault]:
    """Yield the places where people put keys although they are shown, logged and sent on: never to be used."""
    what = f"secrets never stand in a file; name a variable in {section}.api_key_env"
    if api_base is not None and _BEYOND_AN_ADDRESS & set(api_base):
        yield Fault(f"{section}.api_base", f"holds a user, a query or a fragment; {what}")
    for name in headers:
        if name.lower() in _CREDENTIAL_HEADERS:
            yield Fault(f"{section}.headers.{name}", what)
