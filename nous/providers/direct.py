"""nous's own HTTP client, for servers that are reached without a proxy: nothing to import but a parser.

Connections are kept alive and used again, the one that rested for the shortest time first.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import anyio

from nous import __version__
from nous.providers.adapter import HttpRequest
from nous.providers.connection import Connection
from nous.providers.dial import dial, secure
from nous.providers.faults import client_fault, fault_of_exception

KEEPALIVE_S: Final = 55.0
"""An idle connection is kept a little shorter than the minute after which most servers close theirs."""

_PORTS: Final = {"http": 80, "https": 443}


class Origin(NamedTuple):
    scheme: str
    host: str
    port: int


class Target(NamedTuple):
    """Where a URL points: the server, and what its request says of it."""

    origin: Origin
    authority: str
    path: str


class DirectAnswer:
    """See :class:`nous.providers.answer.Answer`."""

    def __init__(self, client: DirectClient, origin: Origin, connection: Connection) -> None:
        self._client = client
        self._origin = origin
        self._connection = connection
        self.read = connection.read

    @property
    def status(self) -> int:
        return self._connection.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._connection.headers

    async def aclose(self) -> None:
        self._client.give_back(self._origin, self._connection)


class DirectClient:
    """Opens connections and keeps them.  ``context`` is what https needs; without it only http can be spoken."""

    def __init__(self, *, connect_timeout_s: float, idle_timeout_s: float, context: ssl.SSLContext | None) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._context = context
        self._resting: dict[Origin, list[Connection]] = {}

    async def open(self, request: HttpRequest) -> DirectAnswer:
        """Send a request and return its answer, as far as the head.

        Raises:
            NousError: ``provider_unavailable`` if the server cannot be reached or breaks off; ``provider_error`` if
                its certificate is not accepted, or the request cannot be written as HTTP.
        """
        target = target_of(request.url)
        head = encode_head(request, target)
        connection = self._take(target.origin) or await self._connect(target.origin)
        try:
            await connection.send(head, *request.parts)
            await connection.receive_head()
        except BaseException:
            connection.close()
            raise
        return DirectAnswer(self, target.origin, connection)

    def give_back(self, origin: Origin, connection: Connection) -> None:
        """Take a connection that is not used any more: it rests, or is closed."""
        if connection.is_reusable:
            connection.rest()
            self._resting.setdefault(origin, []).append(connection)
        else:
            connection.close()

    async def aclose(self) -> None:
        """Close the connections that rest."""
        resting = [connection for connections in self._resting.values() for connection in connections]
        self._resting.clear()
        for connection in resting:
            connection.close()

    def _take(self, origin: Origin) -> Connection | None:
        resting = self._resting.get(origin)
        while resting:
            connection = resting.pop()
            if connection.is_alive(time.monotonic(), KEEPALIVE_S):
                return connection
            connection.close()
        return None

    async def _connect(self, origin: Origin) -> Connection:
        try:
            with anyio.fail_after(self._connect_timeout_s):
                sock = await dial(origin.host, origin.port)
                if origin.scheme == "https":
                    assert self._context is not None
                    sock = await secure(sock, self._context, origin.host)
        except TimeoutError:
            raise client_fault("ConnectTimeout") from None
        except ssl.SSLCertVerificationError as error:
            raise fault_of_exception(error) from None
        except (OSError, UnicodeError):
            raise client_fault("ConnectError") from None
        return Connection(sock, self._idle_timeout_s)


@lru_cache(maxsize=64)
def target_of(url: str) -> Target:
    """Return where ``url`` points; it is one that :func:`is_plain_url` says yes to."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    name = f"[{host}]" if ":" in host else host
    authority = name if port == _PORTS[parts.scheme] else f"{name}:{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(Origin(parts.scheme, host, port), authority, path)


def encode_head(request: HttpRequest, target: Target) -> bytes:
    """Return a request's first line and headers.  Raises ``provider_error`` for what would break out of its line."""
    head = _fixed_head(request.method, target, tuple(request.headers.items()))
    length = b"content-length: %d\r\n" % request.length if request.method == "POST" else b""
    return head + length + b"\r\n"


@lru_cache(maxsize=16)
def _fixed_head(method: str, target: Target, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return what is the same in every request of an adapter: all but its length."""
    own = {
        "host": target.authority,
        "user-agent": f"nous/{__version__}",
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "connection": "keep-alive",
    }
    lines = [f"{name}: {value}" for name, value in (own | dict(headers)).items()]
    head = "\r\n".join([f"{method} {target.path} HTTP/1.1", *lines])
    if head.count("\n") != len(lines) or head.count("\r") != len(lines) or not head.isascii():
        raise client_fault("LocalProtocolError")
    return head.encode("ascii") + b"\r\n"
