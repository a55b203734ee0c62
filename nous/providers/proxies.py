"""Which proxy stands before a server, by the environment's proxy variables.  Pure but for macOS' system settings.

``http_proxy``, ``https_proxy`` and ``all_proxy``, also in capitals; lower case wins, and the one of the address's
scheme wins over ``all_proxy``.  ``no_proxy`` lists what is reached without one, separated by commas or spaces: ``*``, a
domain (with all names below it), an address (IPv6 with or without brackets), a network in CIDR notation, each name or
address with or without a port.  Entries of any other form match nothing.  No proxy is used to reach this machine.

A variable is looked at only for an address that it applies to, so that a wrong one concerns nobody else.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from nous.errors import NousError
from nous.providers.settings import is_loopback
from nous.telemetry.log import hide_value

_SCHEMES: Final = ("http", "https")
_PORTS: Final = {"http": 80, "https": 443}
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SYSTEM: Final = "the system's proxy settings"


class Proxy(NamedTuple):
    """``url`` may hold a password; ``variable`` is where it was found."""

    url: str
    variable: str

    def __repr__(self) -> str:
        """Name what cannot be a secret."""
        return f"Proxy(variable={self.variable!r})"


def find_proxy(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy that ``url`` is reached through; None if there is none.

    Raises:
        NousError: ``provider_error``: the variable that applies holds no proxy's address.  The variable is named, its
            value is not.
    """
    scheme = url.partition(":")[0]
    found = _from_environment(scheme, environ) or _from_system(scheme)
    if found is None:
        return None
    parts = urlsplit(url)
    host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(scheme, 0)
    if is_loopback(host) or is_excepted(host, port, _first(environ, "no_proxy")[0]):
        return None
    if found.variable == _SYSTEM and _system_bypasses(host):
        return None
    return _checked(found)


def is_excepted(host: str, port: int, no_proxy: str) -> bool:
    """Return whether ``no_proxy`` names ``host`` (a name, or an address without brackets)."""
    address = _address(host)
    name = host.lower()
    for entry, entry_port in _entries(no_proxy):
        if entry_port not in (None, port):
            continue
        if entry == "*":
            return True
        if address is None:
            domain = entry.removeprefix("*").lstrip(".")
            if domain and (name == domain or name.endswith(f".{domain}")):
                return True
        elif (network := _network(entry)) is not None and address in network:
            return True
    return False


def _entries(no_proxy: str) -> Iterator[tuple[str, int | None]]:
    """Yield each entry in lower case, without brackets, and its port."""
    for text in re.split(r"[,\s]+", no_proxy.lower()):
        entry, port = text, ""
        if match := re.fullmatch(r"\[([^\]]*)\](/\d+)?(?::(\d+))?", text):
            entry, port = match[1] + (match[2] or ""), match[3] or ""
        elif text.count(":") == 1:
            entry, _, port = text.partition(":")
        if entry and (not port or port.isdecimal()):
            yield entry.rstrip(".") if entry != "." else "", int(port) if port else None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _from_environment(scheme: str, environ: Mapping[str, str]) -> Proxy | None:
    for name in (f"{scheme}_proxy", "all_proxy"):
        value, variable = _first(environ, name)
        if value:
            return Proxy(value, variable)
    return None


def _first(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """Return the value of a variable that may be written in capitals, and how it is written."""
    for variable in (name, name.upper()):
        if value := environ.get(variable, "").strip():
            return value, variable
    return "", name


def _from_system(scheme: str) -> Proxy | None:
    if sys.platform == "darwin":
        from urllib.request import getproxies

        value = getproxies().get(scheme)
        return Proxy(value, _SYSTEM) if value else None
    return None


def _system_bypasses(host: str) -> bool:
    from urllib.request import proxy_bypass

    return bool(proxy_bypass(host))


def _checked(found: Proxy) -> Proxy:
    url = found.url if _SCHEME.match(found.url) else f"http://{found.url}"
    try:
        parts = urlsplit(url)
        is_address = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_address = False
        parts = urlsplit("")
    if not is_address or not url.isascii() or not url.isprintable() or " " in url:
        raise _refuse(found, "it is not the address of a proxy")
    if parts.scheme.lower() not in _SCHEMES:
        raise _refuse(found, f"{parts.scheme} proxies are not supported")
    if parts.password:
        hide_value(parts.password)
    return Proxy(url, found.variable)


def _refuse(found: Proxy, cause: str) -> NousError:
    hint = f"Set {found.variable} to http://HOST:PORT, or name the provider's host in NO_PROXY."
    return NousError("provider_error", f"{found.variable}: {cause}", hint=hint)
