"""The order of changes: commands that change something take turns, in the order in which they were read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio


class Turn:
    """A place in an :class:`Order`, from the moment it was asked for until it is released.

    ``async with turn`` waits for its place and releases it at the end.  However that ends, also when the wait is
    cancelled, the place is given up: nobody behind it waits for ever.
    """

    def __init__(self, order: Order) -> None:
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
    """Turns, one at a time, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._turns: deque[Turn] = deque()

    @property
    def busy(self) -> bool:
        """Whether a turn is held or waited for."""
        return bool(self._turns)

    def ask(self) -> Turn:
        """Return a place behind all that were asked for before.  Whoever asked releases it."""
        turn = Turn(self)
        self._turns.append(turn)
        if len(self._turns) == 1:
            turn.call()
        return turn

    def remove(self, turn: Turn) -> bool:
        """Take out a turn and let the next one begin; return whether it was still there.  For :class:`Turn`."""
        if turn not in self._turns:
            return False
        self._turns.remove(turn)
        if self._turns:
            self._turns[0].call()
        return True
