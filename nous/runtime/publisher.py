"""Between a run's trace and its listeners: events leave only once they are as durable as promised.

Events that call for a sync, and all that come after them, wait until session and trace were synced, side by side;
whatever queues up meanwhile shares the next sync.  Everything else leaves at once.  A sync begins when it is called
for, also while the run is not open yet: asking the model takes about as long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import anyio

from nous.engine.emitter import EmittedEvent
from nous.errors import NousError, as_nous_error
from nous.runtime.hub import Hub
from nous.runtime.syncs import Syncs
from nous.store.sync_job import SyncJob
from nous.telemetry.log import get_log

log = get_log("runtime")

HELD_BOUND_BYTES: Final = 1024 * 1024
"""A disk that syncs slowly may hold this much of a run's output before the run is held back."""

BeginSync = Callable[[], SyncJob | None]
"""Returns what makes a file durable as it is now, or ``None`` if it is; raises ``io_failure``."""


class _Batch(NamedTuple):
    number: int
    events: Sequence[EmittedEvent]
    offset: int
    sync: bool
    last: bool


class Publisher:
    """``offset`` is how far into the trace file everything has been published, ``seq`` the last event of that.

    Nothing leaves before :meth:`open`.
    """

    def __init__(self, run_id: str, hub: Hub, syncs: Syncs, files: Sequence[BeginSync]) -> None:
        self.offset = 0
        self.seq = 0
        self.finished = anyio.Event()
        self._run_id = run_id
        self._hub = hub
        self._syncs = syncs
        self._files = files
        self._held: deque[_Batch] = deque()
        self._held_bytes = 0
        # Batches are numbered from 1: so many were put, so many are durable.
        self._put = 0
        self._durable = 0
        self._syncing = False
        self._opened = False
        self._failed = False
        # What went wrong before the run was open.
        self._failure: NousError | None = None
        # The end of a run that failed.
        self._untraced = b""
        self._settled = anyio.Event()
        self._before_last: Callable[[], None] = lambda: None
        self._on_failure: Callable[[NousError], None] = lambda error: None

    def bind(self, *, before_last: Callable[[], None], on_failure: Callable[[NousError], None]) -> None:
        """``before_last`` is called just before the last event leaves; ``on_failure`` if a sync fails."""
        self._before_last = before_last
        self._on_failure = on_failure

    def put(self, events: Sequence[EmittedEvent], offset: int, *, sync: bool, last: bool) -> None:
        """Take the events of one step; ``offset`` is how long the trace is with them."""
        if self._failed:
            return
        self._put += 1
        batch = _Batch(self._put, events, offset, sync and bool(self._files), last)
        if self._opened and not self._held and not batch.sync:
            self._release([batch])
            return
        self._held.append(batch)
        self._held_bytes += sum(len(e.line) for e in events)
        if batch.sync and not self._syncing and self._failure is None:
            self._sync()

    def open(self) -> None:
        """Begin to publish; what came up before has waited, also that a sync failed: a prompt is not refused for it.

        May be repeated.
        """
        if self._opened:
            return
        self._opened = True
        if self._untraced:
            self._hub.announce(self._untraced)
        elif self._failure is not None:
            self._on_failure(self._failure)
        else:
            self._release_ready()

    def fail(self) -> None:
        """Publish nothing more of the trace; what is held is dropped, for it was never durable."""
        self._failed = True
        self._held.clear()
        self._held_bytes = 0
        self.finished.set()
        self._settle()

    def put_untraced(self, lines: Sequence[bytes]) -> None:
        """Send the end of a run that failed, as soon as the run is open."""
        self._before_last()
        self._untraced = b"".join(lines)
        if self._opened:
            self._hub.announce(self._untraced)

    async def room(self) -> None:
        """Wait while the disk is the slow one, then while a listener is."""
        while self._held_bytes > HELD_BOUND_BYTES:
            await self._settled.wait()
        if self._hub.congested:
            await self._hub.room()

    def _sync(self) -> None:
        """Begin to make durable what was put so far."""
        number = self._put
        jobs: list[SyncJob] = []
        errors: list[NousError] = []
        for begin in self._files:
            try:
                job = begin()
            except NousError as error:
                errors.append(error)
            else:
                jobs += [] if job is None else [job]
        self._syncing = True
        self._syncs.start(jobs, lambda: self._take_note(jobs, errors, number))

    def _take_note(self, jobs: Sequence[SyncJob], errors: list[NousError], number: int) -> None:
        """A sync of all up to ``number`` has ended."""
        try:
            self._end_sync(jobs, errors, number)
        except Exception as error:
            # A defect: this run fails.  Nobody else would notice, for it is the loop that has called.
            log.error("run_crashed", run_id=self._run_id, error=repr(error))
            self._fail(as_nous_error(error))

    def _fail(self, error: NousError) -> None:
        if self._opened:
            self._on_failure(error)
        else:
            self._failure = error

    def _end_sync(self, jobs: Sequence[SyncJob], errors: list[NousError], number: int) -> None:
        self._syncing = False
        for job in jobs:
            try:
                job.settle()
            except NousError as error:
                errors.append(error)
        if self._failed:
            return
        if errors:
            self._fail(errors[0])
            return
        self._durable = number
        if any(batch.sync and batch.number > number for batch in self._held):
            self._sync()
        self._release_ready()

    def _release_ready(self) -> None:
        """Publish, in one piece, what is held and waits for nothing."""
        ready: list[_Batch] = []
        while self._opened and self._held and (self._held[0].number <= self._durable or not self._held[0].sync):
            batch = self._held.popleft()
            self._held_bytes -= sum(len(e.line) for e in batch.events)
            ready.append(batch)
        if ready:
            self._release(ready)
        self._settle()

    def _settle(self) -> None:
        settled, self._settled = self._settled, anyio.Event()
        settled.set()

    def _release(self, batches: Sequence[_Batch]) -> None:
        last = batches[-1]
        events = last.events if len(batches) == 1 else [e for batch in batches for e in batch.events]
        self.offset = last.offset
        if events:
            self.seq = events[-1].seq
        if last.last:
            self._before_last()
        self._hub.publish(self._run_id, events)
        if last.last:
            self.finished.set()
