"""nous's own HTTP client, for servers that are reached without a proxy; it imports nothing but a parser.

Connections are kept alive and used again, the most recently used one first.
"""

from __future__ import annotations

import math
import socket
import ssl
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from nous import __version__
from nous.errors import NousError
from nous.providers.adapter import HttpRequest
from nous.providers.connection import HttpConnection
from nous.providers.dial import dial, secure
from nous.providers.faults import client_fault, fault_of_exception, is_cut
from nous.providers.patience import within

KEEPALIVE_S: Final = 55.0
"""An idle connection is kept a little shorter than the minute after which most servers close theirs."""

_PORTS: Final = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Where connections go: scheme, host and port."""

    scheme: str
    host: str
    port: int


class Target(NamedTuple):
    """Where a URL points: the server, and what its request says of it."""

    origin: Origin
    authority: str
    path: str


class DirectAnswer:
    """See :class:`nous.providers.answer.HttpAnswer`."""

    def __init__(self, client: DirectClient, origin: Origin, connection: HttpConnection) -> None:
        self._client = client
        self._origin = origin
        self._connection = connection
        self.read = connection.read

    @property
    def waited_s(self) -> float:
        """The seconds that were waited for bytes."""
        return self._connection.waited_s

    @property
    def status(self) -> int:
        """The status code."""
        return self._connection.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, names in lower case."""
        return self._connection.headers

    async def aclose(self) -> None:
        """Give the connection back."""
        self._client.give_back(self._origin, self._connection)


class DirectClient:
    """Opens connections and keeps them.  ``context`` is needed for https; without it only http is possible."""

    def __init__(
        self,
        *,
        connect_timeout_s: float,
        idle_timeout_s: float,
        context: ssl.SSLContext | None,
        stall_timeout_s: float = math.inf,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._context = context
        self._resting: dict[Origin, list[HttpConnection]] = {}

    async def open(self, request: HttpRequest) -> DirectAnswer:
        """Send a request and return its answer, as far as the head.

        A server may close a kept connection at the moment a request arrives on it.  If that happens before any byte of
        an answer, the request is sent once more, on a new connection.

        Raises:
            NousError: ``provider_unavailable`` if the server cannot be reached or breaks off; ``provider_error`` if
                its certificate is not accepted, or the request cannot be written as HTTP.
        """
        target = target_of(request.url)
        head = encode_head(request, target)
        kept = self._take(target.origin)
        if kept is not None:
            try:
                return await self._exchange(kept, target, head, request)
            except NousError as error:
                if kept.has_answer or not is_cut(error):
                    raise
        return await self._exchange(await self._connect(target.origin), target, head, request)

    async def _exchange(
        self, connection: HttpConnection, target: Target, head: bytes, request: HttpRequest
    ) -> DirectAnswer:
        try:
            await connection.send(head, *request.parts)
            await connection.receive_head()
        except BaseException:
            connection.close()
            raise
        return DirectAnswer(self, target.origin, connection)

    def give_back(self, origin: Origin, connection: HttpConnection) -> None:
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

    def _take(self, origin: Origin) -> HttpConnection | None:
        resting = self._resting.get(origin)
        while resting:
            connection = resting.pop()
            if connection.is_alive(time.monotonic(), KEEPALIVE_S):
                return connection
            connection.close()
        return None

    async def _connect(self, origin: Origin) -> HttpConnection:
        try:
            sock = await within(self._connect_timeout_s, self._dial, origin, discard=_close)
        except TimeoutError:
            raise client_fault("ConnectTimeout") from None
        except ssl.SSLCertVerificationError as error:
            raise fault_of_exception(error) from None
        except (OSError, UnicodeError):
            raise client_fault("ConnectError") from None
        return HttpConnection(sock, self._idle_timeout_s, self._stall_timeout_s)

    async def _dial(self, origin: Origin) -> socket.socket:
        sock = await dial(origin.host, origin.port)
        if origin.scheme == "http":
            return sock
        assert self._context is not None
        return await secure(sock, self._context, origin.host)


async def _close(sock: socket.socket) -> None:
    sock.close()


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
