"""HTTP for all providers.  Its clients are imported when the first call, or ``warm``, makes one.

Bodies have a Content-Length; there are no redirects, no cookies, no compression and no proxy to this machine.  Failures
leave as a :class:`nous.errors.NousError` that holds nothing of the request.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio

from nous.errors import NousError
from nous.providers.adapter import HttpRequest
from nous.providers.answer import HttpAnswer
from nous.providers.faults import ErrorReply, client_fault, parse_milliseconds, parse_retry_after
from nous.providers.proxies import Proxy, find_proxy
from nous.providers.settings import (
    DEFAULT_CONNECT_TIMEOUT_MS,
    DEFAULT_STREAM_IDLE_TIMEOUT_MS,
    DEFAULT_STREAM_STALL_TIMEOUT_MS,
)
from nous.system.threads import run_in_thread
from nous.telemetry.fields import REDACTED
from nous.telemetry.log import MIN_SECRET_CHARACTERS

if TYPE_CHECKING:
    import ssl

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


class ByteStream:
    """The body of one answer.  ``read`` gives everything that one network read delivered, ``b""`` at the end.

    ``stall_timeout_s``: how long its reader may have waited between two things that it can use.
    """

    def __init__(self, answer: HttpAnswer, stall_timeout_s: float) -> None:
        self.read = answer.read
        self.stall_timeout_s = stall_timeout_s
        self._answer = answer

    @property
    def waited_s(self) -> float:
        """The seconds that were waited for bytes."""
        return self._answer.waited_s

    async def drain(self) -> None:
        """Read and discard the rest, as long as that takes no longer than ``DRAIN_MS``."""
        with anyio.move_on_after(DRAIN_MS / 1000), suppress(NousError):
            while await self.read():
                pass


class Route(NamedTuple):
    """How a server is reached, and so by which client."""

    scheme: str
    is_direct: bool
    proxy: Proxy | None


_OPEN_HEADERS: Final = frozenset({"accept", "content-type", "anthropic-version"})
"""Headers that nous itself sets, to values that are no secret."""


class HttpRoom:
    """Makes a client for each :class:`Route` once and keeps its connections alive between calls.

    A daemon with one provider has one.  ``builds`` counts them.
    """

    def __init__(
        self,
        *,
        connect_timeout_ms: int = DEFAULT_CONNECT_TIMEOUT_MS,
        stream_idle_timeout_ms: int = DEFAULT_STREAM_IDLE_TIMEOUT_MS,
        stream_stall_timeout_ms: int = DEFAULT_STREAM_STALL_TIMEOUT_MS,
    ) -> None:
        self.builds = 0
        self._connect_timeout_s = connect_timeout_ms / 1000
        self._idle_timeout_s = stream_idle_timeout_ms / 1000
        self._stall_timeout_s = stream_stall_timeout_ms / 1000
        self._clients: dict[Route, DirectClient | ProxiedClient] = {}
        self._building = anyio.Lock()

    async def warm(self, url: str) -> None:
        """Make the client for ``url`` now, in a thread: that takes longer than a first answer should."""
        await self._client_for(url)

    @asynccontextmanager
    async def post(self, request: HttpRequest, fault: Callable[[ErrorReply], NousError]) -> AsyncIterator[ByteStream]:
        """Send ``request`` and give the event stream it is answered with.

        Leaving the context closes the connection at once, unless the answer was read to its end.

        Raises:
            NousError: what ``fault`` says of an answer that is not an event stream; ``provider_unavailable`` if the
                provider cannot be reached or breaks off.
        """
        async with self._answered(request) as answer:
            if not _is_event_stream(answer):
                raise fault(await self._read_reply(answer))
            yield ByteStream(answer, self._stall_timeout_s)

    async def fetch(self, request: HttpRequest, fault: Callable[[ErrorReply], NousError]) -> bytes:
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
                if answer.waited_s > self._stall_timeout_s:
                    raise client_fault("ReadTimeout")
            return bytes(body)

    async def aclose(self) -> None:
        """Close all connections.  The room may be used again afterwards."""
        clients = [*self._clients.values()]
        self._clients.clear()
        for client in clients:
            await client.aclose()

    @asynccontextmanager
    async def _answered(self, request: HttpRequest) -> AsyncIterator[HttpAnswer]:
        """Send ``request``; within, also what whoever reads the answer says of it, no error repeats a secret."""
        with without_secrets(request.headers):
            client = await self._client_for(request.url)
            answer = await client.open(request)
            try:
                yield answer
            finally:
                await answer.aclose()

    async def _read_reply(self, answer: HttpAnswer) -> ErrorReply:
        """Read the beginning of the answer; a body that does not come leaves the status to speak for itself."""
        parts: list[bytes] = []
        size = 0
        with anyio.move_on_after(self._idle_timeout_s), suppress(NousError):
            while size < MAX_REPLY_BYTES and (data := await answer.read()):
                parts.append(data)
                size += len(data)
        return ErrorReply(
            status=answer.status,
            content_type=_media_type(answer),
            body=b"".join(parts)[:MAX_REPLY_BYTES],
            retry_after_ms=_retry_after_ms(answer),
        )

    async def _client_for(self, url: str) -> DirectClient | ProxiedClient:
        route = route_to(url, os.environ)
        client = self._clients.get(route)
        if client is not None:
            return client
        async with self._building:
            if route not in self._clients:
                self._clients[route] = await run_in_thread(self._build, route)
                self.builds += 1
            return self._clients[route]

    def _build(self, route: Route) -> DirectClient | ProxiedClient:
        from nous.providers.dial import make_tls_context

        try:
            context = make_tls_context() if route.scheme == "https" else None
        except Exception as error:
            cause = f"SSL_CERT_FILE or SSL_CERT_DIR: the certificates cannot be read ({type(error).__name__})"
            raise NousError("provider_error", cause, hint="Correct or unset the variable.") from None
        try:
            return self._build_direct(context) if route.is_direct else self._build_proxied(context, route.proxy)
        except Exception as error:
            cause = f"the HTTP client cannot be made ({type(error).__name__})"
            if route.proxy is not None:
                cause = f"{route.proxy.variable}: {cause}"
            raise NousError("provider_error", cause) from None

    def _build_direct(self, context: ssl.SSLContext | None) -> DirectClient:
        from nous.providers.direct import DirectClient

        return DirectClient(
            connect_timeout_s=self._connect_timeout_s,
            idle_timeout_s=self._idle_timeout_s,
            stall_timeout_s=self._stall_timeout_s,
            context=context,
        )

    def _build_proxied(self, context: ssl.SSLContext | None, proxy: Proxy | None) -> ProxiedClient:
        from nous.providers.proxied import ProxiedClient

        return ProxiedClient(
            connect_timeout_s=self._connect_timeout_s,
            idle_timeout_s=self._idle_timeout_s,
            stall_timeout_s=self._stall_timeout_s,
            context=context,
            proxy_url=None if proxy is None else proxy.url,
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
            error.code,
            cause,
            hint=error.hint,
            retry_after_ms=error.retry_after_ms,
            image_refused=error.image_refused,
            data=error.data,
        ) from None


def _conceal(cause: str | None, headers: Mapping[str, str]) -> str | None:
    for name, value in headers.items():
        secret = value.removeprefix("Bearer ")
        if cause is not None and name.lower() not in _OPEN_HEADERS and len(secret) >= MIN_SECRET_CHARACTERS:
            cause = cause.replace(secret, REDACTED)
    return cause


def route_to(url: str, environ: Mapping[str, str]) -> Route:
    """Return how ``url`` is reached: by httpx2 through a proxy, or if the address has to be encoded first.

    Raises:
        NousError: what :func:`find_proxy` raises.
    """
    proxy = find_proxy(url, environ)
    return Route(url.partition(":")[0], proxy is None and _is_plain_url(url), proxy)


@lru_cache(maxsize=64)
def _is_plain_url(url: str) -> bool:
    return _PLAIN_URL.fullmatch(url) is not None


def _retry_after_ms(answer: HttpAnswer) -> int | None:
    """Return how long the answer asks to wait; ``retry-after-ms`` is more exact than the standard's header."""
    exact_ms = parse_milliseconds(answer.headers.get("retry-after-ms", "").strip())
    if exact_ms is not None:
        return exact_ms
    return parse_retry_after(answer.headers.get("retry-after"), answer.headers.get("date"), time.time())


def _media_type(answer: HttpAnswer) -> str:
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_event_stream(answer: HttpAnswer) -> bool:
    """Return whether this is what was asked for.  A server that names no type at all is believed."""
    encoding = answer.headers.get("content-encoding", "").strip().lower()
    return answer.status == 200 and encoding in ("", "identity") and _media_type(answer) in ("text/event-stream", "")
