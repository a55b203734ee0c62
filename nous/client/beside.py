"""Tasks that run beside a block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio

Task = Callable[[], Coroutine[Any, Any, None]]


@asynccontextmanager
async def run_beside(*tasks: Task) -> AsyncIterator[None]:
    """Run tasks while the block runs, and cancel them when it has ended.

    Also where the block is cancelled from outside they live on until it has ended: what it does last may need them.
    An exception of the block leaves as it is; only one of the tasks comes wrapped into a group.
    """
    failure: Exception | None = None
    scopes = [anyio.CancelScope(shield=True) for _ in tasks]
    async with anyio.create_task_group() as group:
        for task, scope in zip(tasks, scopes, strict=True):
            group.start_soon(_run_within, task, scope)
        try:
            yield
        except Exception as error:
            failure = error
        finally:
            for scope in scopes:
                scope.cancel()
    if failure is not None:
        raise failure


async def _run_within(task: Task, scope: anyio.CancelScope) -> None:
    with scope:
        await task()
