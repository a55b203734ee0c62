"""What a configuration must hold beyond the type of each value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from nous.config.settings import Settings
from nous.errors import NousError

_CREDENTIAL_HEADERS: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "api-key", "x-api-key", "x-goog-api-key", "x-auth-token"}
)

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

    What a provider asks of its endpoint (addresses, header values) it checks itself when it is built.
    """
    sections = {"provider": settings.provider.headers}
    for field in settings.providers.__struct_fields__:
        sections[f"providers.{field}"] = getattr(settings.providers, field).headers
    for section, headers in sections.items():
        for name in headers:
            if name.lower() in _CREDENTIAL_HEADERS:
                what = f"secrets never stand in a file; name a variable in {section}.api_key_env"
                yield Fault(f"{section}.headers.{name}", what)
    if settings.daemon.profile == "production" and settings.provider.name in FAKE_PROVIDERS:
        yield Fault("provider.name", "not under the profile production: its answers are not a model's")
    if settings.prompt.system is not None and settings.prompt.system_file is not None:
        yield Fault("prompt.system_file", "prompt.system is set too; only one of them can be the prompt")
