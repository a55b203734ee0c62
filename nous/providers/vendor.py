"""A provider that is an adapter over the HTTP room: request out, items in, one list per network read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import anyio

from nous.errors import NousError
from nous.ports.model import ModelItem, ModelRequest
from nous.providers.adapter import Adapter, ItemParser
from nous.providers.http import ByteStream, HttpRoom
from nous.providers.sse import SseParser

TAIL_MS: Final = 5_000
"""After its finish an answer has only its usage to report; a server that keeps the line open is not waited for."""


class VendorProvider:
    """See :class:`nous.ports.model.Provider` for what it promises.  ``room`` may be shared between providers."""

    def __init__(self, adapter: Adapter, room: HttpRoom) -> None:
        self.name = adapter.name
        self.model = adapter.model
        self._adapter = adapter
        self._room = room

    @property
    def builds(self) -> int:
        return self._room.builds

    @property
    def summarises(self) -> bool:
        return True

    async def warm(self) -> None:
        """Make the client before the first call needs it."""
        await self._room.warm(self._adapter.url)

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[list[ModelItem]]]:
        return self._stream(request)

    @asynccontextmanager
    async def _stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[list[ModelItem]]]:
        async with self._room.post(self._adapter.build(request), self._adapter.fault) as body:
            items = ItemStream(body, self._adapter.parser())
            yield items
            if items.done:
                await body.drain()

    async def aclose(self) -> None:
        await self._room.aclose()


class ItemStream:
    """Iterates over the lists of items of one answer.  ``done``: the vendor said that nothing follows."""

    def __init__(self, body: ByteStream, parser: ItemParser) -> None:
        self._body = body
        self._events = SseParser()
        self._parser = parser
        self._over = False
        self._failure: NousError | None = None

    @property
    def done(self) -> bool:
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
                return items

    async def _read_tail(self) -> bytes:
        """Read behind the finish, where neither a cut nor silence can spoil the answer."""
        with anyio.move_on_after(TAIL_MS / 1000):
            try:
                return await self._body.read()
            except NousError:
                return b""
        return b""

    def _parse(self, data: bytes) -> list[ModelItem]:
        """Return the items of ``data``.  A failure in it waits until those before it were handed over."""
        items: list[ModelItem] = []
        try:
            if not data:
                self._over = True
                self._parser.finish(items)
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
