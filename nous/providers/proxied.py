"""httpx2 as a client for what :mod:`nous.providers.direct` does not do: proxies, and addresses that need encoding.

The only importer of httpx2; it is imported when such a client is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import TaskGroup

from nous import __version__
from nous.errors import NousError
from nous.providers.adapter import HttpRequest
from nous.providers.direct import KEEPALIVE_S
from nous.providers.faults import client_fault, fault_of_exception, is_cut
from nous.providers.patience import Patience, within

if TYPE_CHECKING:
    import ssl

    import httpx2

MAX_KEPT_TRIED: Final = 4
"""How many kept connections may turn out to be closed before the request fails."""

CLOSE_MS: Final = 2_000
"""Closing a connection waits for nothing of the peer; the bound is there for a broken one."""


class ProxiedAnswer:
    """See :class:`nous.providers.answer.HttpAnswer`.  The body is read in a task of its own.

    The task is at most one network read ahead of the reader, and passes on all that has arrived as one piece: httpx2
    yields each HTTP chunk on its own.
    """

    def __init__(self, response: httpx2.Response, idle_timeout_s: float) -> None:
        self._idle_timeout_s = idle_timeout_s
        self.waited_s = 0.0
        self.status = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        self._response = response
        self._parts: list[bytes] = []
        self._ready = anyio.Event()
        self._wanted = anyio.Event()
        self._ended = False
        self._failure: NousError | None = None
        self._tasks: TaskGroup | None = None

    async def start(self) -> None:
        """Begin to read the body."""
        # Not "async with": what the reader raises must come out as it is, not in a group.
        tasks = anyio.create_task_group()
        await tasks.__aenter__()
        tasks.start_soon(self._pump)
        self._tasks = tasks

    async def read(self) -> bytes:
        """Return some of the body, or ``b""`` at its end."""
        self._wanted.set()
        patience = Patience(self._idle_timeout_s)
        await patience.wait(self._ready.wait)
        self.waited_s += patience.take_used_s()
        if not self._ready.is_set():
            raise client_fault("ReadTimeout")
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

    async def aclose(self) -> None:
        """Close the answer and its connection."""
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(None, None, None)
        # A connection that cannot be closed properly is gone too.
        with anyio.move_on_after(CLOSE_MS / 1000, shield=True), suppress(Exception):
            await self._response.aclose()

    async def _pump(self) -> None:
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


class _Attempt:
    """What is known of one request from the names of httpcore2's trace events."""

    def __init__(self) -> None:
        self.is_on_kept_connection = True
        self.has_answer = False

    async def note(self, event: str, _info: object) -> None:
        if event.startswith("connection.connect"):
            self.is_on_kept_connection = False
        elif event.endswith("receive_response_headers.complete"):
            self.has_answer = True


class ProxiedClient:
    """Making one imports httpx2, which takes a while.  ``context`` is needed for https.  ``proxy_url``: see
    :mod:`nous.providers.proxies`; the environment is not read here.
    """

    def __init__(
        self,
        *,
        connect_timeout_s: float,
        idle_timeout_s: float,
        stall_timeout_s: float = math.inf,
        context: ssl.SSLContext | None = None,
        proxy_url: str | None = None,
    ) -> None:
        from http.cookiejar import CookieJar, DefaultCookiePolicy

        import httpx2

        self._idle_timeout_s = idle_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._client = httpx2.AsyncClient(
            headers={"user-agent": f"nous/{__version__}", "accept": "text/event-stream", "accept-encoding": "identity"},
            timeout=httpx2.Timeout(idle_timeout_s, connect=connect_timeout_s, pool=None),
            limits=httpx2.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_S),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            trust_env=False,
            verify=True if context is None else context,
            proxy=proxy_url,
            follow_redirects=False,
        )

    async def open(self, request: HttpRequest) -> ProxiedAnswer:
        """Send a request and return its answer, as far as the head.  Raises what a failure is mapped to.

        As in :meth:`nous.providers.direct.DirectClient.open`, a kept connection that is closed before any byte of an
        answer is replaced; httpx2 may keep several of them.
        """
        for _ in range(MAX_KEPT_TRIED):
            attempt = _Attempt()
            try:
                return await self._open(request, attempt)
            except NousError as error:
                if not attempt.is_on_kept_connection or attempt.has_answer or not is_cut(error):
                    raise
        return await self._open(request, _Attempt())

    async def _open(self, request: HttpRequest, attempt: _Attempt) -> ProxiedAnswer:
        client = self._client
        with mapped_errors():
            content = request.body if request.method == "POST" else None
            message = client.build_request(request.method, request.url, headers=request.headers, content=content)
            message.extensions["trace"] = attempt.note
            try:
                send = partial(client.send, message, stream=True)
                response = await within(self._stall_timeout_s, send, discard=_close)
            except TimeoutError:
                raise client_fault("ReadTimeout") from None
            # From here on the answer counts the time itself.
            message.extensions["timeout"]["read"] = None
            answer = ProxiedAnswer(response, self._idle_timeout_s)
        await answer.start()
        return answer

    async def aclose(self) -> None:
        """Close all connections."""
        with anyio.move_on_after(CLOSE_MS / 1000, shield=True), suppress(Exception):
            await self._client.aclose()


async def _close(response: httpx2.Response) -> None:
    await response.aclose()


@contextmanager
def mapped_errors() -> Iterator[None]:
    """The border: whatever is raised inside leaves as a :class:`NousError`; cancellation passes untouched."""
    try:
        yield
    except Exception as error:
        raise fault_of_exception(error) from None
