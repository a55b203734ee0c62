"""The publisher: nothing leaves before the run is open, nor before it is as durable as promised."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from nous.engine.emitter import EmittedEvent
from nous.errors import NousError
from nous.protocol.events import MessageEnd, MessageUpdate
from nous.runtime.hub import Hub, Listener
from nous.runtime.outbox import Outbox
from nous.runtime.publisher import HELD_BOUND_BYTES, BeginSync, Publisher
from nous.runtime.syncs import Syncs
from nous.store import disk as store
from nous.store.sync_job import SyncJob
from nous.transport.memory import memory_pair
from tests.support.home import bounded

pytestmark = pytest.mark.anyio


def delta(seq: int, size: int = 0) -> EmittedEvent:
    return EmittedEvent(MessageUpdate, seq, None, b"%d%b\n" % (seq, b"x" * size))


def end(seq: int) -> EmittedEvent:
    return EmittedEvent(MessageEnd, seq, None, b"%d.\n" % seq)


class Disk(store.Disk):
    """A disk whose syncs take until the test lets them go; ``error`` is what they come to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        self.settled = 0
        self.go = threading.Event()
        self.error = error

    def sync(self, fd: int) -> None:
        self.calls += 1
        assert self.go.wait(20)
        self.go.clear()
        if isinstance(self.error, OSError):
            raise self.error

    def begin(self) -> SyncJob:
        return SyncJob(self, os.open(os.devnull, os.O_RDONLY), None, self.settle)

    def settle(self, error: OSError | None) -> None:
        self.settled += 1
        if self.error is not None:
            raise NousError("io_failure", str(self.error))


class Bench:
    """A publisher, what came out of it, and what it called."""

    def __init__(self, files: Sequence[BeginSync]) -> None:
        self.hub = Hub()
        self.client, theirs = memory_pair(1 << 22)
        self.hub.add(Listener(Outbox(theirs), paced=False, bound_bytes=1 << 30, on_overrun=lambda: None))
        self.publisher = Publisher("r", self.hub, Syncs(), files)
        self.failures: list[NousError] = []
        self.before_last: list[int] = []

    async def heard(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += await self.client.receive()
        return data


@asynccontextmanager
async def bench(*files: BeginSync) -> AsyncIterator[Bench]:
    made = Bench(files)
    with bounded():
        made.publisher.bind(
            before_last=lambda: made.before_last.append(made.publisher.seq),
            on_failure=made.failures.append,
        )
        yield made


async def test_nothing_leaves_before_the_run_is_open() -> None:
    async with bench() as b:
        b.publisher.put([delta(1)], 10, sync=False, last=False)
        await checkpoint()
        assert (b.publisher.seq, b.publisher.offset) == (0, 0)
        b.publisher.open()
        assert await b.heard(2) == b"1\n"
        b.publisher.put([delta(2)], 20, sync=False, last=False)
        assert (b.publisher.seq, b.publisher.offset) == (2, 20)


async def test_an_event_that_must_be_durable_waits_and_so_does_all_behind_it() -> None:
    disk = Disk()
    async with bench(disk.begin) as b:
        b.publisher.open()
        b.publisher.put([delta(1)], 10, sync=False, last=False)
        b.publisher.put([end(2)], 20, sync=True, last=False)
        b.publisher.put([delta(3)], 30, sync=False, last=False)
        assert b.publisher.seq == 1
        disk.go.set()
        assert await b.heard(7) == b"1\n2.\n3\n"
        assert (b.publisher.seq, b.publisher.offset) == (3, 30)
        assert disk.calls >= 1


async def test_what_queues_up_meanwhile_shares_the_next_sync() -> None:
    disk = Disk()
    async with bench(disk.begin) as b:
        b.publisher.open()
        b.publisher.put([end(1)], 10, sync=True, last=False)
        while not disk.calls:
            await checkpoint()
        for seq in range(2, 10):
            b.publisher.put([end(seq)], seq * 10, sync=True, last=False)
        disk.go.set()
        while b.publisher.seq < 1 or disk.calls < 2:
            await checkpoint()
        disk.go.set()
        await b.heard(27)
        assert (disk.calls, b.publisher.seq) == (2, 9)


async def test_the_last_event_is_announced_just_before_it_leaves() -> None:
    async with bench() as b:
        b.publisher.open()
        b.publisher.put([delta(1)], 10, sync=False, last=False)
        b.publisher.put([end(2)], 20, sync=True, last=True)
        assert b.before_last == [2]
        assert b.publisher.finished.is_set()
        assert await b.heard(5) == b"1\n2.\n"


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), NousError("io_failure", "gone")])
async def test_what_could_not_be_made_durable_is_never_sent(error: Exception) -> None:
    disk = Disk(error)
    async with bench(disk.begin) as b:
        b.publisher.open()
        b.publisher.put([end(1)], 10, sync=True, last=False)
        disk.go.set()
        while not b.failures:
            await checkpoint()
        assert [failure.code for failure in b.failures] == ["io_failure"]
        b.publisher.fail()
        assert b.publisher.finished.is_set()
        b.publisher.put_untraced([b"untraced\n"])
        assert await b.heard(9) == b"untraced\n"


async def test_the_end_of_a_run_that_failed_before_it_was_open_waits_for_that() -> None:
    async with bench() as b:
        b.publisher.fail()
        b.publisher.put([end(1)], 10, sync=False, last=True)
        b.publisher.put_untraced([b"untraced\n"])
        b.hub.announce(b"before\n")
        b.publisher.open()
        b.publisher.open()
        b.hub.announce(b"after\n")
        assert await b.heard(22) == b"before\nuntraced\nafter\n"


async def test_a_disk_that_syncs_slowly_holds_the_run_back() -> None:
    disk = Disk()
    async with bench(disk.begin) as b:
        b.publisher.open()
        await b.publisher.room()
        b.publisher.put([end(1)], 10, sync=True, last=False)
        b.publisher.put([delta(2, HELD_BOUND_BYTES)], 20, sync=False, last=False)
        held = anyio.Event()

        async def wait() -> None:
            await b.publisher.room()
            held.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            for _ in range(10):
                await checkpoint()
            assert not held.is_set()
            disk.go.set()
            await held.wait()


async def test_a_sync_begins_before_the_run_is_open_and_nothing_leaves_for_it() -> None:
    disk = Disk()
    async with bench(disk.begin) as b:
        b.publisher.put([delta(1)], 10, sync=False, last=False)
        b.publisher.put([end(2)], 20, sync=True, last=False)
        disk.go.set()
        while not disk.settled:
            await checkpoint()
        b.publisher.put([delta(3)], 30, sync=False, last=False)
        assert (b.publisher.seq, b.publisher.offset) == (0, 0)
        b.publisher.open()
        assert (b.publisher.seq, b.publisher.offset) == (3, 30)
        assert await b.heard(7) == b"1\n2.\n3\n"


async def test_what_waits_for_no_sync_leaves_when_the_run_is_opened() -> None:
    disk = Disk()
    async with bench(disk.begin) as b:
        b.publisher.put([delta(1)], 10, sync=False, last=False)
        b.publisher.put([end(2)], 20, sync=True, last=False)
        b.publisher.open()
        assert await b.heard(2) == b"1\n"
        disk.go.set()
        assert await b.heard(3) == b"2.\n"


async def test_one_of_two_files_that_cannot_be_synced_is_enough_and_both_are_settled() -> None:
    good, bad = Disk(), Disk(OSError(28, "No space left on device"))
    async with bench(good.begin, bad.begin) as b:
        b.publisher.open()
        b.publisher.put([end(1)], 10, sync=True, last=False)
        bad.go.set()
        good.go.set()
        while not b.failures:
            await checkpoint()
        assert (good.settled, bad.settled, b.publisher.seq) == (1, 1, 0)


async def test_a_sync_that_cannot_even_begin_is_a_failure_too() -> None:
    disk = Disk()

    def refuse() -> SyncJob:
        raise NousError("io_failure", "gone")

    async with bench(refuse, disk.begin) as b:
        b.publisher.open()
        b.publisher.put([end(1)], 10, sync=True, last=False)
        assert not b.failures
        disk.go.set()
        while not b.failures:
            await checkpoint()
        assert (disk.settled, b.publisher.seq) == (1, 0)


async def test_nothing_leaves_any_more_once_a_run_was_broken_off() -> None:
    disk = Disk()
    async with bench(disk.begin) as b:
        b.publisher.open()
        b.publisher.put([end(1)], 10, sync=True, last=False)
        b.publisher.fail()
        b.publisher.put_untraced([b"untraced\n"])
        disk.go.set()
        while not disk.settled:
            await checkpoint()
        assert await b.heard(9) == b"untraced\n"
        assert (b.publisher.seq, b.failures) == (0, [])


async def test_a_sync_that_failed_before_the_run_is_open_is_told_of_once_it_is() -> None:
    """A prompt is not refused for it: its entry may be in the session already, and it was being answered."""
    disk = Disk(OSError(5, "Input/output error"))
    async with bench(disk.begin) as b:
        b.publisher.put([end(1)], 10, sync=True, last=False)
        disk.go.set()
        while not disk.settled:
            await checkpoint()
        b.publisher.put([end(2)], 20, sync=True, last=False)
        await checkpoint()
        assert (b.failures, disk.calls) == ([], 1)
        b.publisher.open()
        assert [failure.code for failure in b.failures] == ["io_failure"]
        assert b.publisher.seq == 0


async def test_a_run_that_was_held_back_before_it_was_open_goes_on_then() -> None:
    disk = Disk()
    async with bench(disk.begin) as b:
        b.publisher.put([end(1)], 10, sync=True, last=False)
        b.publisher.put([delta(2, HELD_BOUND_BYTES)], 20, sync=False, last=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(b.publisher.room)
            disk.go.set()
            while not disk.settled:
                await checkpoint()
            await checkpoint()
            b.publisher.open()


async def test_a_defect_behind_a_sync_fails_the_run() -> None:
    disk = Disk()

    def fail() -> None:
        raise ZeroDivisionError

    async with bench(disk.begin) as b:
        b.publisher.bind(before_last=fail, on_failure=b.failures.append)
        b.publisher.open()
        b.publisher.put([end(1)], 10, sync=True, last=True)
        disk.go.set()
        while not b.failures:
            await checkpoint()
        assert [failure.code for failure in b.failures] == ["internal_error"]
