"""Between a run's trace and its listeners: events leave only once they are as durable as promised.

Events that call for a sync, and all that come after them, wait until session and trace were synced, side by side;
whatever queues up meanwhile shares the next sync.  Everything else leaves at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from nous.engine.emitter import Event
from nous.errors import NousError, as_nous_error
from nous.runtime.hub import Hub

HELD_BOUND_BYTES: Final = 1024 * 1024
"""A disk that syncs slowly may hold this much of a run's output before the run is held back."""


class _Batch(NamedTuple):
    events: Sequence[Event]
    offset: int
    sync: bool
    last: bool


class Publisher:
    """``offset`` is how far into the trace file everything has been published, ``seq`` the last event of that.

    Nothing leaves before :meth:`open`.
    """

    def __init__(self, run_id: str, hub: Hub, syncs: Sequence[Callable[[], None]]) -> None:
        self.offset = 0
        self.seq = 0
        self.finished = anyio.Event()
        self._run_id = run_id
        self._hub = hub
        self._syncs = syncs
        self._held: deque[_Batch] = deque()
        self._held_bytes = 0
        self._syncing = False
        self._opened = False
        self._settled = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._before_last: Callable[[], None] = lambda: None
        self._on_failure: Callable[[NousError], None] = lambda error: None

    def bind(
        self,
        tasks: TaskGroup,
        *,
        before_last: Callable[[], None],
        on_failure: Callable[[NousError], None],
    ) -> None:
        """``before_last`` is called just before the last event leaves; ``on_failure`` if a sync fails."""
        self._tasks = tasks
        self._before_last = before_last
        self._on_failure = on_failure

    def put(self, events: Sequence[Event], offset: int, *, sync: bool, last: bool) -> None:
        batch = _Batch(events, offset, sync and bool(self._syncs), last)
        if self._opened and not batch.sync and not self._syncing:
            self._release(batch)
            return
        self._held.append(batch)
        self._held_bytes += sum(len(e.line) for e in events)
        if self._opened:
            self._start_sync()

    def open(self) -> None:
        """Begin to publish; what came up before has waited."""
        self._opened = True
        if self._held:
            self._start_sync()

    def _start_sync(self) -> None:
        if not self._syncing and self._tasks is not None:
            self._syncing = True
            self._tasks.start_soon(self._sync)

    def put_untraced(self, lines: Sequence[bytes]) -> None:
        """Send the end of a run whose trace broke; what was held was never durable and is dropped.

        Nothing is sent of a run that was never opened: its prompt is answered with the error instead.
        """
        self._held.clear()
        self._before_last()
        if self._opened:
            self._hub.announce(b"".join(lines))
        self.finished.set()

    async def room(self) -> None:
        """Wait while the disk is the slow one, then while a listener is."""
        while self._held_bytes > HELD_BOUND_BYTES:
            await self._settled.wait()
        if self._hub.congested:
            await self._hub.room()

    async def _sync(self) -> None:
        while self._held:
            batches = list(self._held)
            self._held.clear()
            if any(b.sync for b in batches):
                try:
                    await run_side_by_side(self._syncs)
                except OSError as error:
                    self._on_failure(as_nous_error(error))
                    return
                except NousError as error:
                    self._on_failure(error)
                    return
            for batch in batches:
                self._held_bytes -= sum(len(e.line) for e in batch.events)
                self._release(batch)
            settled, self._settled = self._settled, anyio.Event()
            settled.set()
        self._syncing = False

    def _release(self, batch: _Batch) -> None:
        self.offset = batch.offset
        if batch.events:
            self.seq = batch.events[-1].seq
        if batch.last:
            self._before_last()
        self._hub.publish(self._run_id, batch.events)
        if batch.last:
            self.finished.set()


async def run_side_by_side(calls: Sequence[Callable[[], None]]) -> None:
    """Run blocking calls in worker threads at the same time; the first failure is raised, alone."""
    errors: list[Exception] = []

    async def run(call: Callable[[], None]) -> None:
        try:
            await anyio.to_thread.run_sync(call)
        except (OSError, NousError) as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(run, call)
    if errors:
        raise errors[0]
