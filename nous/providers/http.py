"""The one room that speaks HTTP.  Its clients are imported when the first call, or ``warm``, makes one.

Plain bodies of known length (Content-Length always), no redirects, no cookies, no compression, no proxy to this
machine.  What goes wrong leaves as a :class:`nous.errors.NousError`; nothing of the request is in it.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio

from nous.errors import NousError
from nous.providers.adapter import HttpRequest
from nous.providers.answer import Answer
from nous.providers.faults import MAX_RETRY_AFTER_MS, Reply, parse_retry_after
from nous.providers.settings import DEFAULT_CONNECT_TIMEOUT_MS, DEFAULT_STREAM_IDLE_TIMEOUT_MS, is_loopback_url
from nous.system.threads import run_in_thread
from nous.telemetry.fields import REDACTED
from nous.telemetry.log import MIN_SECRET_CHARACTERS

if TYPE_CHECKING:
    from nous.providers.direct import DirectClient
    from nous.providers.proxied import ProxiedClient

MAX_REPLY_BYTES: Final = 64 * 1024
"""How much of an answer that is not a stream is read: error objects are small."""

MAX_DOCUMENT_BYTES: Final = 8 * 1024 * 1024
"""How much of a document that was asked for is read: the longest list of models is a few megabytes."""

DRAIN_MS: Final = 250
"""How long the end of a finished answer may take, so that its connection can serve the next call."""

_HOST: Final = r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d+)?"
_REST: Final = r"(?:/[A-Za-z0-9_.~!$&'()*+,;=:@%/-]*)?(?:\?[A-Za-z0-9_.~!$&'()*+,;=:@%/?-]*)?"
_PLAIN_URL: Final = re.compile(f"https?://{_HOST}{_REST}")
"""Addresses that go into a request as they are; others have to be encoded first.  Source: RFC 3986."""

_PROXY_VARIABLES: Final = ("http_proxy", "https_proxy", "all_proxy")


class ByteStream:
    """The body of one answer.  ``read`` gives everything that one network read delivered, ``b""`` at the end."""

    def __init__(self, answer: Answer) -> None:
        self.read = answer.read

    async def drain(self) -> None:
        """Read to the end, which is near, and throw it away."""
        with anyio.move_on_after(DRAIN_MS / 1000), suppress(NousError):
            while await self.read():
                pass


class Route(NamedTuple):
    """How a server is reached, and so by which client."""

    is_local: bool
    is_direct: bool
    scheme: str


_OPEN_HEADERS: Final = frozenset({"accept", "content-type", "anthropic-version"})
"""Headers that nous itself sets, to values that everybody knows."""


class HttpRoom:
    """Makes a client once and keeps its connections alive between calls.

    One client serves this machine and one the rest of the world (which may be behind a proxy); a daemon with one
    provider has one.  ``builds`` counts them.
    """

    def __init__(
        self,
        *,
        connect_timeout_ms: int = DEFAULT_CONNECT_TIMEOUT_MS,
        stream_idle_timeout_ms: int = DEFAULT_STREAM_IDLE_TIMEOUT_MS,
    ) -> None:
        self.builds = 0
        self._connect_timeout_s = connect_timeout_ms / 1000
        self._idle_timeout_s = stream_idle_timeout_ms / 1000
        self._clients: dict[Route, DirectClient | ProxiedClient] = {}
        self._building = anyio.Lock()

    async def warm(self, url: str) -> None:
        """Make the client for ``url`` now, in a thread: that takes longer than a first answer should."""
        await self._client_for(url)

    @asynccontextmanager
    async def post(self, request: HttpRequest, fault: Callable[[Reply], NousError]) -> AsyncIterator[ByteStream]:
        """Send ``request`` and give the event stream it is answered with.

        Leaving the context closes the connection at once, unless the answer was read to its end.

        Raises:
            NousError: what ``fault`` says of an answer that is not an event stream; ``provider_unavailable`` if the
                provider cannot be reached or breaks off.
        """
        async with self._answered(request) as answer:
            if not _is_event_stream(answer):
                raise fault(await self._read_reply(answer))
            yield ByteStream(answer)

    async def fetch(self, request: HttpRequest, fault: Callable[[Reply], NousError]) -> bytes:
        """Return the body that ``request`` is answered with.

        Raises:
            NousError: what ``fault`` says of an answer other than 200; ``provider_unavailable`` if the provider
                cannot be reached or breaks off; ``provider_error`` if the body is longer than a document may be.
        """
        async with self._answered(request) as answer:
            if answer.status != 200:
                raise fault(await self._read_reply(answer))
            body = bytearray()
            while data := await answer.read():
                body += data
                if len(body) > MAX_DOCUMENT_BYTES:
                    raise NousError("provider_error", f"the answer is longer than {MAX_DOCUMENT_BYTES} bytes")
            return bytes(body)

    async def aclose(self) -> None:
        """Close all connections.  The room may be used again afterwards."""
        clients = [*self._clients.values()]
        self._clients.clear()
        for client in clients:
            await client.aclose()

    @asynccontextmanager
    async def _answered(self, request: HttpRequest) -> AsyncIterator[Answer]:
        """Send ``request``; within, also what whoever reads the answer says of it, no error repeats a secret."""
        with without_secrets(request.headers):
            client = await self._client_for(request.url)
            answer = await client.open(request)
            try:
                yield answer
            finally:
                await answer.aclose()

    async def _read_reply(self, answer: Answer) -> Reply:
        """Read the beginning of the answer; a body that does not come leaves the status to speak for itself."""
        parts: list[bytes] = []
        size = 0
        with anyio.move_on_after(self._idle_timeout_s), suppress(NousError):
            while size < MAX_REPLY_BYTES and (data := await answer.read()):
                parts.append(data)
                size += len(data)
        return Reply(
            status=answer.status,
            content_type=_media_type(answer),
            body=b"".join(parts)[:MAX_REPLY_BYTES],
            retry_after_ms=_retry_after_ms(answer),
        )

    async def _client_for(self, url: str) -> DirectClient | ProxiedClient:
        route = route_to(url)
        client = self._clients.get(route)
        if client is not None:
            return client
        async with self._building:
            if route not in self._clients:
                self._clients[route] = await run_in_thread(self._build, route)
                self.builds += 1
            return self._clients[route]

    def _build(self, route: Route) -> DirectClient | ProxiedClient:
        try:
            return self._build_direct(route) if route.is_direct else self._build_proxied(route)
        except Exception as error:
            cause = f"the HTTP client cannot be made ({type(error).__name__}): proxy or certificate variables?"
            raise NousError("provider_error", cause) from None

    def _build_direct(self, route: Route) -> DirectClient:
        from nous.providers.dial import make_tls_context
        from nous.providers.direct import DirectClient

        return DirectClient(
            connect_timeout_s=self._connect_timeout_s,
            idle_timeout_s=self._idle_timeout_s,
            context=make_tls_context() if route.scheme == "https" else None,
        )

    def _build_proxied(self, route: Route) -> ProxiedClient:
        from nous.providers.proxied import ProxiedClient

        return ProxiedClient(
            connect_timeout_s=self._connect_timeout_s,
            idle_timeout_s=self._idle_timeout_s,
            trust_env=not route.is_local,
        )


@contextmanager
def without_secrets(headers: Mapping[str, str]) -> Iterator[None]:
    """What leaves here as an error repeats no header of the request, whatever the provider put into its words."""
    try:
        yield
    except NousError as error:
        cause = _conceal(error.cause, headers)
        if cause == error.cause:
            raise
        raise NousError(
            error.code, cause, hint=error.hint, retry_after_ms=error.retry_after_ms, data=error.data
        ) from None


def _conceal(cause: str | None, headers: Mapping[str, str]) -> str | None:
    for name, value in headers.items():
        secret = value.removeprefix("Bearer ")
        if cause is not None and name.lower() not in _OPEN_HEADERS and len(secret) >= MIN_SECRET_CHARACTERS:
            cause = cause.replace(secret, REDACTED)
    return cause


def route_to(url: str) -> Route:
    """Return how ``url`` is reached: by httpx if a proxy may stand in between, or if the address has to be encoded."""
    is_local, is_plain, scheme = _facts_of(url)
    return Route(is_local, is_plain and (is_local or not proxies_are_set()), scheme)


@lru_cache(maxsize=64)
def _facts_of(url: str) -> tuple[bool, bool, str]:
    return is_loopback_url(url), _PLAIN_URL.fullmatch(url) is not None, url.partition(":")[0]


def proxies_are_set() -> bool:
    """Whether there are proxies; which of them count for whom, httpx knows."""
    if any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXY_VARIABLES):
        return True
    if sys.platform == "darwin":
        from urllib.request import getproxies

        return bool(getproxies())
    return False


def _retry_after_ms(answer: Answer) -> int | None:
    """Return how long the answer asks to wait; some vendors say it more exactly than the standard lets them."""
    exact_ms = answer.headers.get("retry-after-ms", "")
    if exact_ms.isascii() and exact_ms.isdigit() and len(exact_ms) < 10:
        return min(int(exact_ms), MAX_RETRY_AFTER_MS)
    return parse_retry_after(answer.headers.get("retry-after"), answer.headers.get("date"), time.time())


def _media_type(answer: Answer) -> str:
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_event_stream(answer: Answer) -> bool:
    """Return whether this is what was asked for.  A server that names no type at all is believed."""
    encoding = answer.headers.get("content-encoding", "identity")
    return answer.status == 200 and encoding == "identity" and _media_type(answer) in ("text/event-stream", "")
