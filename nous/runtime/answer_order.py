"""The answers of a connection on their way to its outbox: in the order of their commands where the mode wants that."""

from __future__ import annotations

from collections import deque

import anyio

from nous.runtime.outbox import Outbox


class AnswerPlace:
    """Where the answer to one command goes.  ``put`` is called once."""

    def __init__(self, order: AnswerOrder) -> None:
        self.line: bytes | None = None
        self._order = order
        self._is_next = anyio.Event()

    def put(self, line: bytes) -> None:
        """Send the answer, behind those of earlier commands."""
        self._order.settle(self, line)

    async def until_next(self) -> None:
        """Wait until all earlier commands are answered."""
        await self._is_next.wait()

    def call(self) -> None:
        """Note that all earlier commands are answered.  For :class:`AnswerOrder`."""
        self._is_next.set()


class AnswerOrder:
    """Hands out places.  ``held_bytes`` is what waits here for the answers of earlier commands."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._places: deque[AnswerPlace] = deque()
        self.held_bytes = 0

    def place(self, *, in_order: bool) -> AnswerPlace:
        """Return the place of a command that was just read; without ``in_order`` its answer waits for no other."""
        place = AnswerPlace(self)
        if in_order:
            self._places.append(place)
        if not in_order or self._places[0] is place:
            place.call()
        return place

    def settle(self, place: AnswerPlace, line: bytes) -> None:
        """Take an answer.  For :class:`AnswerPlace`."""
        if place not in self._places:
            self._outbox.put(line)
            return
        place.line = line
        self.held_bytes += len(line)
        while self._places and (ready := self._places[0].line) is not None:
            self._places.popleft()
            self.held_bytes -= len(ready)
            self._outbox.put(ready)
        if self._places:
            self._places[0].call()
