"""Tasks that run beside a block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio

Task = Callable[[], Coroutine[Any, Any, None]]


@asynccontextmanager
async def run_beside(*tasks: Task) -> AsyncIterator[None]:
    """Run tasks while the block runs, and cancel them when it ends.

    An exception of the block leaves as it is; only one of the tasks comes wrapped into a group.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        for task in tasks:
            group.start_soon(task)
        try:
            yield
        except Exception as error:
            failure = error
        finally:
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure
