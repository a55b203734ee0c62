"""Making files durable beside the loop: by the kernel and in threads, with the same outcome."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from nous.errors import NousError
from nous.runtime.syncs import Syncs
from nous.store.disk import Disk
from nous.store.faults import FaultyDisk
from nous.store.sync_job import SyncJob
from nous.system.threads import MAX_THREADS
from tests.support.home import bounded

pytestmark = pytest.mark.anyio

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel syncs on Linux only")


class File:
    """A file that becomes durable, and what it was told."""

    def __init__(self, path: Path, disk: Disk | None = None, *, named: bool = False) -> None:
        path.write_bytes(b"text")
        self.fd = os.open(path, os.O_WRONLY)
        self.told: list[OSError | None] = []
        self.job = SyncJob(disk or Disk(), self.fd, str(path.parent) if named else None, self.told.append)


class HeldDisk(Disk):
    """Syncs side by side or not at all: none ends before ``count`` have begun."""

    def __init__(self, count: int) -> None:
        self._all = threading.Barrier(count, timeout=20)

    def sync(self, fd: int) -> None:
        self._all.wait()


async def sync(syncs: Syncs, *files: File) -> None:
    done = anyio.Event()
    with bounded():
        syncs.start([file.job for file in files], done.set)
        assert not done.is_set()
        await done.wait()
    for file in files:
        file.job.settle()


@pytest.mark.parametrize("use_kernel", [True, False])
async def test_files_become_durable_and_are_closed(tmp_path: Path, use_kernel: bool) -> None:
    syncs = Syncs(use_kernel=use_kernel)
    files = [File(tmp_path / f"f{n}", named=n % 2 == 0) for n in range(5)]
    await sync(syncs, *files)
    assert [file.told for file in files] == [[None]] * 5
    for file in files:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(file.fd)
    syncs.close()
    syncs.close()


@pytest.mark.parametrize("use_kernel", [True, False])
async def test_what_cannot_be_synced_says_so_and_the_others_are(tmp_path: Path, use_kernel: bool) -> None:
    """A pipe has nothing that could be durable: the system refuses it with EINVAL."""
    syncs = Syncs(use_kernel=use_kernel)
    good = File(tmp_path / "f")
    told: list[OSError | None] = []
    reader, writer = os.pipe()
    pipe = SyncJob(Disk(), writer, None, told.append)
    done = anyio.Event()
    with bounded():
        syncs.start([good.job, pipe], done.set)
        await done.wait()
    pipe.settle()
    good.job.settle()
    os.close(reader)
    assert good.told == [None]
    assert [error.errno for error in told if error is not None] == [errno.EINVAL]


@pytest.mark.parametrize("use_kernel", [True, False])
async def test_many_at_once_are_all_done(tmp_path: Path, use_kernel: bool) -> None:
    """More than the kernel takes at once, and more than there are threads."""
    syncs = Syncs(use_kernel=use_kernel)
    files = [File(tmp_path / f"f{n}") for n in range(300)]
    left = len(files)
    done = anyio.Event()

    def note() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    with bounded():
        for file in files:
            syncs.start([file.job], note)
        await done.wait()
    for file in files:
        file.job.settle()
    assert {repr(file.told) for file in files} == {"[None]"}


async def test_a_disk_that_is_not_the_real_one_is_asked_itself(tmp_path: Path) -> None:
    disk = FaultyDisk(1, operations=frozenset({"sync"}))
    file = File(tmp_path / "f", disk)
    await sync(Syncs(), file)
    assert disk.fired
    assert [error.errno for error in file.told if error is not None] == [errno.EIO]


class BrokenDisk(Disk):
    def sync(self, fd: int) -> None:
        raise ZeroDivisionError


async def test_a_defect_of_the_disk_seam_is_never_taken_for_durable(tmp_path: Path) -> None:
    file = File(tmp_path / "f", BrokenDisk())
    await sync(Syncs(), file)
    assert [(error.errno, error.strerror) for error in file.told if error] == [(errno.EIO, "ZeroDivisionError")]


@linux
async def test_who_fails_at_being_told_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    syncs = Syncs()
    files = [File(tmp_path / f"f{n}") for n in range(20)]
    told: list[int] = []
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context["message"]))
    done = anyio.Event()

    def tell(number: int) -> None:
        told.append(number)
        if len(told) == len(files):
            done.set()
        raise ZeroDivisionError

    with bounded():
        for number, file in enumerate(files):
            syncs.start([file.job], partial(tell, number))
        # So that many have ended by the time anybody looks.
        await anyio.to_thread.run_sync(os.sync)
        await done.wait()
    for file in files:
        file.job.settle()
    assert sorted(told) == list(range(20))
    assert len(complaints) == 20


async def test_threads_sync_side_by_side(tmp_path: Path) -> None:
    disk = HeldDisk(MAX_THREADS)
    await sync(Syncs(), *(File(tmp_path / f"f{n}", disk) for n in range(MAX_THREADS)))


async def test_nothing_to_sync_is_done_later_too() -> None:
    """Whoever starts something is not called back before that has returned."""
    await sync(Syncs())


async def test_one_job_can_be_waited_for(tmp_path: Path) -> None:
    syncs = Syncs()
    file = File(tmp_path / "f")
    with bounded():
        await syncs.finish(None)
        await syncs.finish(file.job)
    assert file.told == [None]

    def refuse(error: OSError | None) -> None:
        raise NousError("io_failure", "f")

    job = SyncJob(Disk(), os.open(tmp_path / "f", os.O_WRONLY), None, refuse)
    with bounded(), pytest.raises(NousError) as refused:
        await syncs.finish(job)
    assert refused.value.code == "io_failure"


async def test_who_waits_is_not_let_go_before_it_has_ended(tmp_path: Path) -> None:
    disk = HeldDisk(2)
    file = File(tmp_path / "f", disk)
    syncs = Syncs()
    with bounded():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(syncs.finish, file.job)
            await checkpoint()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await checkpoint()
                assert not file.told
                await anyio.to_thread.run_sync(disk.sync, -1)
    assert file.told == [None]


async def test_who_is_let_go_can_be_cancelled_while_the_disk_hangs(tmp_path: Path) -> None:
    disk = HeldDisk(3)
    early, late = File(tmp_path / "f", disk), File(tmp_path / "g", disk)
    syncs = Syncs()
    with bounded():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(syncs.finish, early.job)
            await checkpoint()
            tasks.cancel_scope.cancel()
            syncs.let_go()
            tasks.start_soon(syncs.finish, late.job)
        assert (early.told, late.told) == ([], [])
        await anyio.to_thread.run_sync(disk.sync, -1)


@linux
async def test_a_kernel_that_cannot_be_listened_to_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
    syncs = Syncs()
    for name in ("f", "g"):
        file = File(tmp_path / name)
        await sync(syncs, file)
        assert file.told == [None]
    syncs.close()


@linux
async def test_a_kernel_that_offers_nothing_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    syncs = Syncs()
    await sync(syncs, File(tmp_path / "f"))
    monkeypatch.undo()
    await sync(syncs, File(tmp_path / "g"))
    assert any(thread.name == "nous-work" for thread in threading.enumerate())
    syncs.close()
