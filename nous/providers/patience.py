"""Timeouts that count only the time in which this process ran.

A process that is stopped (SIGSTOP, a suspended machine) or starved finds its timers expired when it goes on, although
the bytes it waited for may lie in the socket.  A :class:`Patience` is spent in slices of at most a second, and a slice
counts once, however long the process was stopped within it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio
from anyio.lowlevel import checkpoint

T = TypeVar("T")

SLICE_S: Final = 1.0

_CHECKS_BEFORE_CANCELLING: Final = 3
"""Turns of the event loop between the last slice and the cancellation: what has arrived by then still counts."""


class Patience:
    """A time limit over any number of waits.  ``left_s`` is what remains of it."""

    __slots__ = ("_counted_s", "left_s")

    def __init__(self, seconds: float) -> None:
        self.left_s = self._counted_s = seconds

    def take_used_s(self) -> float:
        """Return what was waited since this was last called."""
        used_s = self._counted_s - self.left_s
        self._counted_s = self.left_s
        return used_s

    async def wait(self, function: Callable[..., Awaitable[object]], *arguments: object) -> bool:
        """Wait until ``function`` returns; it must bear being cancelled and called again.

        Returns:
            False once the limit is used up.  The caller then looks once more for what it waited for.
        """
        left_s = self.left_s
        while left_s > 0:
            length_s = left_s if left_s < SLICE_S else SLICE_S
            begun_s = time.monotonic()
            with anyio.move_on_after(length_s) as scope:
                await function(*arguments)
            spent_s = time.monotonic() - begun_s
            is_over = scope.cancelled_caught
            self.left_s = left_s = left_s - (length_s if is_over or spent_s > length_s else spent_s)
            if not is_over:
                return True
        return False


async def within(
    seconds: float,
    function: Callable[..., Awaitable[T]],
    *arguments: object,
    discard: Callable[[T], Awaitable[None]],
) -> T:
    """Return what ``function`` returns; it is cancelled after ``seconds`` in which this process ran.

    If the caller is cancelled after ``function`` has returned, nobody gets the result: it goes to ``discard``.

    Raises:
        TimeoutError: it was cancelled.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    async def count_down() -> None:
        patience = Patience(seconds)
        await patience.wait(anyio.sleep_forever)
        for _ in range(_CHECKS_BEFORE_CANCELLING):
            await checkpoint()
        tasks.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_down)
            try:
                results.append(await function(*arguments))
            except Exception as error:
                failures.append(error)
            tasks.cancel_scope.cancel()
    except BaseException:
        for result in results:
            with anyio.CancelScope(shield=True):
                await discard(result)
        raise
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError
    return results[0]
