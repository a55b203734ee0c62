"""A provider made of an adapter and an HTTP client: request out, items in, one list per network read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final

from nous.errors import NousError
from nous.ports.model import ModelItem, ModelRequest
from nous.providers.adapter import Adapter, HttpRequest, ItemParser, finish_stream
from nous.providers.api_base import ApiBase
from nous.providers.faults import ErrorReply, is_cut
from nous.providers.http import ByteStream, HttpRoom
from nous.providers.patience import Patience
from nous.providers.sse import MAX_EVENT_BYTES, SseParser

TAIL_MS: Final = 5_000
"""How long, in all, the end of an answer is waited for after its finish, when only its usage may follow."""

MAX_BARREN_BYTES: Final = 2 * MAX_EVENT_BYTES
"""How much a server may send without a single item in it: keep-alives, events without content, one long event."""


class VendorProvider:
    """See :class:`nous.ports.model.Provider` for what it promises.

    ``room`` may be shared between providers.  ``base`` is an address that may lack its ``/v1``.
    """

    def __init__(self, adapter: Adapter, room: HttpRoom, base: ApiBase | None = None) -> None:
        self.name = adapter.name
        self.model = adapter.model
        self._adapter = adapter
        self._room = room
        self._base = base

    @property
    def builds(self) -> int:
        """How many HTTP clients were built."""
        return self._room.builds

    @property
    def summarises(self) -> bool:
        """Whether compactions may ask it for a summary."""
        return True

    async def warm(self) -> None:
        """Make the client before the first call needs it."""
        await self._room.warm(self._adapter.url)

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[list[ModelItem]]]:
        """Make a model call."""
        return self._stream(request)

    @asynccontextmanager
    async def _stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[list[ModelItem]]]:
        async with self._opened(self._adapter.build(request)) as body:
            items = ItemStream(body, self._adapter.parser(request.tools))
            yield items
            if items.done:
                await body.drain()

    @asynccontextmanager
    async def _opened(self, request: HttpRequest) -> AsyncIterator[ByteStream]:
        async with AsyncExitStack() as stack:

            async def send(placed: HttpRequest, fault: Callable[[ErrorReply], NousError]) -> ByteStream:
                return await stack.enter_async_context(self._room.post(placed, fault))

            fault = self._adapter.fault
            yield await (send(request, fault) if self._base is None else self._base.ask(request, fault, send))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._room.aclose()


class ItemStream:
    """Iterates over the lists of items of one answer.  ``done``: the vendor said that nothing follows.

    What a server sends without an item in it is bounded, in bytes (``MAX_BARREN_BYTES``) and in time (the body's
    ``stall_timeout_s``, and after the finish ``TAIL_MS``), all reads since the last item together.
    """

    def __init__(self, body: ByteStream, parser: ItemParser) -> None:
        self._body = body
        self._events = SseParser()
        self._parser = parser
        self._over = False
        self._failure: NousError | None = None
        self._barren_bytes = 0
        self._barren_since_s = 0.0
        self._tail: Patience | None = None

    @property
    def done(self) -> bool:
        """Whether the answer has come to its end."""
        return self._parser.done

    def __aiter__(self) -> ItemStream:
        return self

    async def __anext__(self) -> list[ModelItem]:
        while True:
            if self._failure is not None:
                raise self._failure
            if self._over:
                raise StopAsyncIteration
            data = await (self._read_tail() if self._parser.finished else self._body.read())
            if items := self._parse(data):
                if self._barren_bytes:
                    self._barren_bytes, self._tail = 0, None
                return items
            self._count_barren(data)

    def _count_barren(self, data: bytes) -> None:
        if not self._barren_bytes:
            self._barren_since_s = self._body.waited_s
        self._barren_bytes += len(data)
        if self._barren_bytes > MAX_BARREN_BYTES:
            cause = f"malformed: {MAX_BARREN_BYTES} bytes came that hold nothing of an answer"
            failure = NousError("provider_error", cause)
        elif self._body.waited_s - self._barren_since_s > self._body.stall_timeout_s:
            failure = NousError("provider_unavailable", "idle: bytes came, but nothing of the answer in time")
        else:
            return
        if not self._parser.finished:
            self._failure = self._failure or failure
        else:
            self._tail = Patience(0)

    async def _read_tail(self) -> bytes:
        """Read after a finish reason; silence ends the answer there.

        A connection that breaks does not: where the server wanted its answer to end is not known then.
        """
        received: list[bytes] = []

        async def read() -> None:
            try:
                received.append(await self._body.read())
            except NousError as error:
                if is_cut(error):
                    self._failure = error
                received.append(b"")

        self._tail = self._tail or Patience(TAIL_MS / 1000)
        await self._tail.wait(read)
        if self._failure is not None:
            raise self._failure
        return received[0] if received else b""

    def _parse(self, data: bytes) -> list[ModelItem]:
        """Return the items of ``data``.  A failure in it waits until those before it were handed over."""
        items: list[ModelItem] = []
        try:
            if not data:
                self._over = True
                finish_stream(self._events, self._parser, items)
            else:
                self._parse_events(data, items)
        except NousError as error:
            self._failure = error
        return items

    def _parse_events(self, data: bytes, items: list[ModelItem]) -> None:
        feed = self._parser.feed
        for event in self._events.feed(data):
            feed(event, items)
            if self._parser.done:
                self._over = True
                return
