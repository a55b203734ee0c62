"""The order of changes: commands that change something take turns, in the order in which they were read."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import anyio


class Turn:
    """A place in an :class:`Order`, from the moment it was asked for until it is released.

    ``async with turn`` waits for its place and releases it at the end.  However that ends, also when the wait is
    cancelled, the place is given up: nobody behind it waits for ever.
    """

    def __init__(self, order: Order, owner: object | None) -> None:
        self.owner = owner
        self.is_aside = False
        self._order = order
        self._came = anyio.Event()
        self._on_release: Callable[[], None] = lambda: None

    def on_release(self, call: Callable[[], None]) -> None:
        """Have ``call`` called when the place is given up."""
        self._on_release = call

    def call(self) -> None:
        """Let the holder begin.  For :class:`Order`."""
        self._came.set()

    def release(self) -> None:
        """Give up the place, held or still waited for.  May be repeated."""
        if self._order.remove(self):
            self._on_release()

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        """Let the turns of other owners go ahead while the body runs, then wait for this place again.

        Turns of the same owner stay behind this one.  If the body raises, the place is not waited for.
        """
        self._came = anyio.Event()
        self._order.step_aside(self)
        try:
            yield
        finally:
            self._order.step_back(self)
        await self._came.wait()

    async def __aenter__(self) -> Self:
        try:
            if not self._came.is_set():
                await self._came.wait()
        except BaseException:
            self.release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.release()


class Order:
    """Turns, one at a time, in the order in which they were asked for, but for those that stand aside."""

    def __init__(self) -> None:
        self._turns: deque[Turn] = deque()
        self._holder: Turn | None = None

    @property
    def busy(self) -> bool:
        """Whether a turn is held or waited for."""
        return bool(self._turns)

    def ask(self, owner: object | None = None) -> Turn:
        """Return a place behind all that were asked for before.  Whoever asked releases it.

        Turns of one ``owner`` (a connection) never overtake each other, also where one stands aside.
        """
        turn = Turn(self, owner)
        self._turns.append(turn)
        self._call_next()
        return turn

    def remove(self, turn: Turn) -> bool:
        """Take out a turn and let the next one begin; return whether it was still there.  For :class:`Turn`."""
        if turn not in self._turns:
            return False
        self._turns.remove(turn)
        if self._holder is turn:
            self._holder = None
        self._call_next()
        return True

    def step_aside(self, turn: Turn) -> None:
        """Let others hold the turn that ``turn`` holds.  For :class:`Turn`."""
        turn.is_aside = True
        self._holder = None
        self._call_next()

    def step_back(self, turn: Turn) -> None:
        """Let ``turn`` hold the turn again, as the first of those that may.  For :class:`Turn`."""
        turn.is_aside = False
        self._call_next()

    def _call_next(self) -> None:
        if self._holder is not None:
            return
        behind: set[int] = set()
        for turn in self._turns:
            if turn.is_aside:
                behind.add(id(turn.owner))
            elif id(turn.owner) not in behind:
                self._holder = turn
                turn.call()
                return
