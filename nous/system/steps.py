"""Long work in short steps, so that an event loop can serve others between them.

Work is a generator that yields wherever it may be interrupted and returns its result.  It is the same code for a
command line, which calls :func:`complete`, and for a daemon, which awaits :func:`complete_async`.  A step must take a
few milliseconds at most; whatever it relies on may have changed when it goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TypeVar

import anyio.lowlevel

T = TypeVar("T")
Steps = Generator[None, None, T]


def complete(steps: Steps[T]) -> T:
    """Do all steps at once and return the result.  Blocks."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


async def complete_async(steps: Steps[T]) -> T:
    """Do all steps and return the result; other tasks run between them.  Work of one step does not yield to the loop.

    Cancelled, this closes the generator, whose ``finally`` clauses run.
    """
    try:
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                result: T = stop.value
                return result
            await anyio.lowlevel.checkpoint()
    finally:
        steps.close()


def complete_later(steps: Steps[None]) -> None:
    """Do all steps between other work of the event loop that runs in this thread; without a loop, at once."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        complete(steps)
        return

    def step() -> None:
        try:
            next(steps)
        except StopIteration:
            return
        loop.call_soon(step)

    loop.call_soon(step)
