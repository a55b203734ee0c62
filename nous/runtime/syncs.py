"""Makes files durable while the loop goes on: by the kernel itself where it offers that, else in threads.

A sync stands between every message and its ``message_end``, so it begins at once.  anyio's worker threads would begin
it only after several turns of the loop, behind all that a run's first steps have to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import anyio

from nous.store.sync_job import SyncJob
from nous.system.threads import WorkThreads

if TYPE_CHECKING:
    from nous.system.kernel_sync import KernelSync


class _Group:
    """Jobs that were begun together: how much of them is under way, and what happens when nothing is."""

    __slots__ = ("left", "on_done")

    def __init__(self, left: int, on_done: Callable[[], None]) -> None:
        self.left = left
        self.on_done = on_done

    def end_one(self) -> None:
        self.left -= 1
        if not self.left:
            self.on_done()


class Syncs:
    """Belongs to the loop's thread.  ``use_kernel``: false to do without it, as on a system that does not offer it."""

    def __init__(self, *, use_kernel: bool = True) -> None:
        self._threads = WorkThreads()
        self._kernel: KernelSync | None = None
        self._may_ask_kernel = use_kernel
        self._tickets = 0
        self._taken: dict[int, tuple[SyncJob, _Group]] = {}
        self._waiting: set[anyio.CancelScope] = set()
        self._may_hold = True
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, jobs: Sequence[SyncJob], on_done: Callable[[], None]) -> None:
        """Sync side by side from now on; call ``on_done`` in the loop, later, once all of it has ended."""
        loop = asyncio.get_running_loop()
        if not jobs:
            loop.call_soon(on_done)
            return
        group = _Group(len(jobs), on_done)
        left = self._hand_over(jobs, group) if self._may_ask_kernel else jobs
        for job in left:
            self._threads.start(job.run, group.end_one)

    async def finish(self, job: SyncJob | None) -> None:
        """Sync, if there is something to do, and settle it.  Raises as :meth:`SyncJob.settle`.

        Once begun it is waited for, cancelled or not: what it came to has to be taken note of.  Unless :meth:`let_go`
        was called: then a cancelled wait ends, and the disk keeps the file.
        """
        if job is None:
            return
        done = anyio.Event()
        self.start([job], done.set)
        with anyio.CancelScope(shield=self._may_hold) as scope:
            self._waiting.add(scope)
            try:
                await done.wait()
            finally:
                self._waiting.discard(scope)
        job.settle()

    def let_go(self) -> None:
        """From now on whoever waits can be cancelled: the process is to end, also while a disk hangs."""
        self._may_hold = False
        for scope in tuple(self._waiting):
            scope.shield = False

    def close(self) -> None:
        """Give back what the system lent; what is under way is left to it.  Nothing may be started any more."""
        if self._kernel is not None:
            assert self._loop is not None
            if not self._loop.is_closed():
                self._loop.remove_reader(self._kernel.fd)
            self._kernel.close()
            self._kernel = None
        self._may_ask_kernel = False
        self._threads.close()

    def _hand_over(self, jobs: Sequence[SyncJob], group: _Group) -> list[SyncJob]:
        """Let the kernel sync; return the jobs of which it did not take everything."""
        kernel = self._find_kernel()
        if kernel is None:
            return list(jobs)
        parts = [(job, *part) for job in jobs for part in job.descriptors()]
        taken = kernel.submit([(fd, data_only) for _, fd, data_only in parts], self._tickets)
        for ticket, (job, *_) in enumerate(parts[:taken], self._tickets):
            self._taken[ticket] = (job, group)
        self._tickets += taken
        whole = {id(job) for job, *_ in parts} - {id(job) for job, *_ in parts[taken:]}
        left = [job for job in jobs if id(job) not in whole]
        group.left = taken + len(left)
        return left

    def _find_kernel(self) -> KernelSync | None:
        if self._kernel is None:
            from nous.system.kernel_sync import KernelSync

            loop = asyncio.get_running_loop()
            try:
                kernel = KernelSync()
                try:
                    loop.add_reader(kernel.fd, self._collect)
                except OSError:
                    kernel.close()
                    raise
            except OSError:
                self._may_ask_kernel = False
                return None
            self._loop, self._kernel = loop, kernel
        return self._kernel

    def _collect(self) -> None:
        assert self._kernel is not None
        assert self._loop is not None
        done: list[_Group] = []
        for ticket, error in self._kernel.collect():
            job, group = self._taken.pop(ticket)
            job.note(error)
            group.left -= 1
            if not group.left:
                done.append(group)
        # All are taken note of before anybody is told: whoever fails at that keeps nobody else waiting.
        for group in done[1:]:
            self._loop.call_soon(group.on_done)
        if done:
            done[0].on_done()
