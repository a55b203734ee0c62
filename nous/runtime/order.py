"""Commands that change things take turns, in the order they arrived."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class Turn:
    """The right to change things.  May be given up before the command is answered."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._held = True

    def release(self) -> None:
        if self._held:
            self._held = False
            self._order.pass_on()


class Order:
    """``turn`` waits for every change that asked before; ``busy`` says whether one is under way or waiting.

    A change asks (:meth:`ask`) at the moment it is read, before its task runs; tasks start in the order they were made.
    """

    def __init__(self) -> None:
        self._lock = anyio.Lock(fast_acquire=True)
        self._asked = 0
        self._settled = anyio.Event()

    @property
    def busy(self) -> bool:
        return self._asked > 0

    def ask(self) -> None:
        self._asked += 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """Hold the turn that :meth:`ask` asked for."""
        await self._lock.acquire()
        turn = Turn(self)
        try:
            yield turn
        finally:
            turn.release()

    def pass_on(self) -> None:
        """Give the turn to the next one.  For :class:`Turn`."""
        self._lock.release()
        self._asked -= 1
        if not self._asked:
            settled, self._settled = self._settled, anyio.Event()
            settled.set()

    async def settled(self) -> None:
        """Wait until no change is under way."""
        while self._asked:
            await self._settled.wait()
