"""What a provider is built with, and the rules an endpoint must keep before any byte is sent to it.

Source of the rules: docs/providers.md, "Where they are".
"""

import ipaddress
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct, field

from nous.errors import NousError
from nous.protocol.entries import ThinkingLevel

DEFAULT_CONNECT_TIMEOUT_MS: Final = 10_000
DEFAULT_STREAM_IDLE_TIMEOUT_MS: Final = 120_000
DEFAULT_STREAM_STALL_TIMEOUT_MS: Final = 600_000

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_FRAMING_HEADERS: Final = frozenset({"content-length", "transfer-encoding", "host", "connection", "content-encoding"})


class ProviderSettings(Struct, frozen=True, kw_only=True):
    """Everything a provider needs to know, already resolved: ``api_key`` is the key itself, not a variable's name.

    ``headers`` are added to every request and may replace those nous sets itself, but not the ones that frame the
    message.  ``stream_idle_timeout_ms`` bounds every wait for the next byte, the first one included;
    ``stream_stall_timeout_ms`` all waits together between two items of an answer.  ``thinking`` and
    ``max_output_tokens``: None leaves it to the vendor.  ``script`` is for ``mock`` only.
    """

    model: str = ""
    api_base: str | None = None
    api_key: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    connect_timeout_ms: int = DEFAULT_CONNECT_TIMEOUT_MS
    stream_idle_timeout_ms: int = DEFAULT_STREAM_IDLE_TIMEOUT_MS
    stream_stall_timeout_ms: int = DEFAULT_STREAM_STALL_TIMEOUT_MS
    allow_insecure: bool = False
    thinking: ThinkingLevel | None = None
    max_output_tokens: int | None = None
    models_file: Path | None = None
    script: Path | None = None

    def __repr__(self) -> str:
        """Name what cannot be a secret."""
        return f"ProviderSettings(model={self.model!r}, api_base={self.api_base!r})"


def is_loopback(host: str) -> bool:
    """Return whether ``host`` (a name or an address, without brackets) can only be this machine."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_loopback_url(url: str) -> bool:
    """Return whether a URL leads to this machine."""
    return is_loopback(urlsplit(url).hostname or "")


def check_api_base(url: str, *, allow_insecure: bool = False) -> str:
    """Return ``url`` without a slash at its end.

    Raises:
        NousError: ``invalid_config`` if it is no http(s) address or carries more than one (a user, a query: a key
            must never stand in a URL); ``unsafe_operation`` for plain http to another machine.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise NousError("invalid_config", "provider.api_base: not a valid address") from None
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise NousError("invalid_config", "provider.api_base: not an http or https address")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise NousError("invalid_config", "provider.api_base: must not hold a user, a query or a fragment")
    if parts.scheme == "http" and not is_loopback(host) and not allow_insecure:
        raise NousError(
            "unsafe_operation",
            "provider.api_base: plain http to another machine",
            hint="Use https, or set provider.allow_insecure.",
        )
    return url.rstrip("/")


def check_headers(headers: dict[str, str]) -> dict[str, str]:
    """Return ``headers`` with names in lower case.

    Raises:
        NousError: ``invalid_config`` naming the header (never its value).
    """
    out: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if not _HEADER_NAME.fullmatch(name) or lower in _FRAMING_HEADERS or lower in out:
            raise NousError("invalid_config", f"provider.headers: {name[:128]!r} cannot be set")
        if not is_header_value(value):
            raise NousError("invalid_config", f"provider.headers.{name}: characters that a header cannot hold")
        out[lower] = value
    return out


def is_header_value(value: str) -> bool:
    """Return whether ``value`` is plain printable ASCII, without space around it."""
    return _HEADER_VALUE.fullmatch(value) is not None
