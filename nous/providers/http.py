"""The one room that speaks HTTP: the only importer of httpx, and that at the first call or at ``warm``.

Plain bodies of known length (Content-Length always), no redirects, no cookies, no compression, no proxy to this
machine.  What goes wrong leaves as a :class:`nous.errors.NousError`; nothing of the request is in it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import anyio
from anyio import to_thread

from nous import __version__
from nous.errors import NousError
from nous.providers.adapter import HttpRequest
from nous.providers.faults import MAX_RETRY_AFTER_MS, Reply, fault_of_exception, parse_retry_after
from nous.providers.settings import DEFAULT_CONNECT_TIMEOUT_MS, DEFAULT_STREAM_IDLE_TIMEOUT_MS, is_loopback_url
from nous.telemetry.fields import REDACTED
from nous.telemetry.log import MIN_SECRET_CHARACTERS

if TYPE_CHECKING:
    import httpx

MAX_REPLY_BYTES: Final = 64 * 1024
"""How much of an answer that is not a stream is read: error objects are small."""

MAX_DOCUMENT_BYTES: Final = 8 * 1024 * 1024
"""How much of a document that was asked for is read: the longest list of models is a few megabytes."""

KEEPALIVE_MS: Final = 55_000
"""An idle connection is kept a little shorter than the minute after which most servers close theirs."""

DRAIN_MS: Final = 250
"""How long the end of a finished answer may take, so that its connection can serve the next call."""

CLOSE_MS: Final = 2_000
"""Closing a connection waits for nothing of the peer; the bound is there for a broken one."""


class ByteStream:
    """The body of one answer, read in a task of its own.

    ``read`` gives everything that one network read delivered, however many HTTP chunks that was.  The task is at
    most one network read ahead of the reader: that is the back-pressure.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._parts: list[bytes] = []
        self._ready = anyio.Event()
        self._wanted = anyio.Event()
        self._ended = False
        self._failure: NousError | None = None

    async def read(self) -> bytes:
        """Return the next bytes, or ``b""`` at the end.

        Raises:
            NousError: the connection broke (``cut``) or was silent for too long (``idle``).
        """
        self._wanted.set()
        await self._ready.wait()
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._wanted = anyio.Event()
            if not self._ended:
                self._ready = anyio.Event()
            return data
        if self._failure is not None:
            raise self._failure
        return b""

    async def drain(self) -> None:
        """Read to the end, which is near, and throw it away."""
        with anyio.move_on_after(DRAIN_MS / 1000), suppress(NousError):
            while await self.read():
                pass

    async def pump(self) -> None:
        """Move chunks from the network to the reader until the end.  Never raises but for cancellation."""
        try:
            with mapped_errors():
                async for chunk in self._response.aiter_raw():
                    self._parts.append(chunk)
                    self._ready.set()
                    # All that is already here is taken along; only a reader that has not asked stops it.
                    if not self._wanted.is_set():
                        await self._wanted.wait()
        except NousError as error:
            self._failure = error
        self._ended = True
        self._ready.set()


_OPEN_HEADERS: Final = frozenset({"accept", "content-type", "anthropic-version"})
"""Headers that nous itself sets, to values that everybody knows."""


class HttpRoom:
    """Makes the client once and keeps its connections alive between calls.

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
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self._building = anyio.Lock()

    async def warm(self, url: str) -> None:
        """Make the client for ``url`` now, in a thread: importing it takes longer than a first answer should."""
        await self._client_for(url)

    @asynccontextmanager
    async def post(self, request: HttpRequest, fault: Callable[[Reply], NousError]) -> AsyncIterator[ByteStream]:
        """Send ``request`` and give the event stream it is answered with.

        Leaving the context closes the connection at once, unless the answer was read to its end.

        Raises:
            NousError: what ``fault`` says of an answer that is not an event stream; ``provider_unavailable`` if the
                provider cannot be reached or breaks off.
        """
        async with self._answered(request) as response:
            if not _is_event_stream(response):
                raise fault(await self._read_reply(response))
            stream = ByteStream(response)
            # Not "async with": what the caller raises must come out as it is, not in a group.
            tasks = anyio.create_task_group()
            await tasks.__aenter__()
            tasks.start_soon(stream.pump)
            try:
                yield stream
            finally:
                tasks.cancel_scope.cancel()
                await tasks.__aexit__(None, None, None)

    async def fetch(self, request: HttpRequest, fault: Callable[[Reply], NousError]) -> bytes:
        """Return the body that ``request`` is answered with.

        Raises:
            NousError: what ``fault`` says of an answer other than 200; ``provider_unavailable`` if the provider
                cannot be reached or breaks off; ``provider_error`` if the body is longer than a document may be.
        """
        async with self._answered(request) as response:
            if response.status_code != 200:
                raise fault(await self._read_reply(response))
            body = bytearray()
            with mapped_errors():
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > MAX_DOCUMENT_BYTES:
                        raise NousError("provider_error", f"the answer is longer than {MAX_DOCUMENT_BYTES} bytes")
            return bytes(body)

    async def aclose(self) -> None:
        """Close all connections.  The room may be used again afterwards."""
        clients = [*self._clients.values()]
        self._clients.clear()
        for client in clients:
            with anyio.move_on_after(CLOSE_MS / 1000, shield=True), suppress(Exception):
                await client.aclose()

    @asynccontextmanager
    async def _answered(self, request: HttpRequest) -> AsyncIterator[httpx.Response]:
        """Send ``request``; within, also what whoever reads the answer says of it, no error repeats a secret."""
        with without_secrets(request.headers):
            async with self._sent(request) as response:
                yield response

    @asynccontextmanager
    async def _sent(self, request: HttpRequest) -> AsyncIterator[httpx.Response]:
        client = await self._client_for(request.url)
        with mapped_errors():
            content = request.body if request.method == "POST" else None
            message = client.build_request(request.method, request.url, headers=request.headers, content=content)
            response = await client.send(message, stream=True)
        try:
            yield response
        finally:
            # A connection that cannot be closed properly is gone too.
            with anyio.move_on_after(CLOSE_MS / 1000, shield=True), suppress(Exception):
                await response.aclose()

    async def _read_reply(self, response: httpx.Response) -> Reply:
        """Read the beginning of the answer; a body that does not come leaves the status to speak for itself."""
        parts: list[bytes] = []
        size = 0
        with anyio.move_on_after(self._idle_timeout_s), suppress(NousError), mapped_errors():
            async for chunk in response.aiter_raw():
                parts.append(chunk)
                size += len(chunk)
                if size >= MAX_REPLY_BYTES:
                    break
        return Reply(
            status=response.status_code,
            content_type=_media_type(response),
            body=b"".join(parts)[:MAX_REPLY_BYTES],
            retry_after_ms=_retry_after_ms(response),
        )

    async def _client_for(self, url: str) -> httpx.AsyncClient:
        local = is_loopback_url(url)
        async with self._building:
            if local not in self._clients:
                self._clients[local] = await to_thread.run_sync(self._build, local)
                self.builds += 1
            return self._clients[local]

    def _build(self, local: bool) -> httpx.AsyncClient:
        from http.cookiejar import CookieJar, DefaultCookiePolicy

        try:
            import httpx

            return httpx.AsyncClient(
                headers={
                    "user-agent": f"nous/{__version__}",
                    "accept": "text/event-stream",
                    "accept-encoding": "identity",
                },
                timeout=httpx.Timeout(self._idle_timeout_s, connect=self._connect_timeout_s, pool=None),
                limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_MS / 1000),
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                trust_env=not local,
                follow_redirects=False,
            )
        except Exception as error:
            cause = f"the HTTP client cannot be made ({type(error).__name__}): proxy or certificate variables?"
            raise NousError("provider_error", cause) from None


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


@contextmanager
def mapped_errors() -> Iterator[None]:
    """The border: whatever is raised inside leaves as a :class:`NousError`; cancellation passes untouched."""
    try:
        yield
    except Exception as error:
        raise fault_of_exception(error) from None


def _retry_after_ms(response: httpx.Response) -> int | None:
    """Return how long the answer asks to wait; some vendors say it more exactly than the standard lets them."""
    exact_ms = str(response.headers.get("retry-after-ms", ""))
    if exact_ms.isascii() and exact_ms.isdigit() and len(exact_ms) < 10:
        return min(int(exact_ms), MAX_RETRY_AFTER_MS)
    return parse_retry_after(response.headers.get("retry-after"), response.headers.get("date"), time.time())


def _media_type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _is_event_stream(response: httpx.Response) -> bool:
    """Return whether this is what was asked for.  A server that names no type at all is believed."""
    encoding = response.headers.get("content-encoding", "identity")
    return response.status_code == 200 and encoding == "identity" and _media_type(response) in ("text/event-stream", "")
