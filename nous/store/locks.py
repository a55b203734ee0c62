"""The lock of a log: flock on ``<id>.lock``, with its owner written inside.

The lock's file is never renamed or removed and opened anew for each acquisition, so that nobody can hold a lock on
a file that is no longer the one others look at.  A dead owner frees it by itself.  Taking it never blocks: who finds
it held comes back later, a bounded number of times.  Source of the rules: docs/hardening/adr.md, "Locks".
"""

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
import msgspec
from msgspec import Struct

from nous.errors import NousError
from nous.store.disk import Disk
from nous.system.regular_file import read_regular_file


class LockProfile(Struct, frozen=True, kw_only=True):
    """How patient a writer is.

    It waits ``timeout_ms`` in all, never longer than ``retry_ms`` between two tries, and calls an owner that has
    held the lock for ``stale_after_ms`` stuck.
    """

    timeout_ms: int
    retry_ms: int
    stale_after_ms: int = 30_000


STANDARD: Final = LockProfile(timeout_ms=2_000, retry_ms=50)
SWARM: Final = LockProfile(timeout_ms=10_000, retry_ms=20)
PROFILES: Final = {"standard": STANDARD, "swarm": SWARM}
"""By the names that NOUS_SESSION_LOCK_PROFILE takes."""


class Owner(Struct, frozen=True):
    """Who holds a lock (or held it last): process id, and since when in Unix milliseconds."""

    pid: int
    since_ms: int


_MAX_OWNER_BYTES: Final = 4096

_owners = msgspec.json.Decoder(Owner)


def try_lock(disk: Disk, path: str) -> int | None:
    """Take the lock if it is free and return the descriptor that holds it, else ``None``.  Never blocks."""
    fd = disk.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        disk.close(fd)
        return None
    except BaseException:
        disk.close(fd)
        raise
    # Of fixed width, so that one write replaces the last owner.  A courtesy: that it fails is no reason to stop.
    with suppress(OSError):
        os.pwrite(fd, b'{"pid":%10d,"since_ms":%14d}\n' % (os.getpid(), time.time_ns() // 1_000_000), 0)
    return fd


def unlock(disk: Disk, fd: int) -> None:
    """Free the lock, also where a child that is just being started still has a copy of the descriptor."""
    try:
        fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        disk.close(fd)


def read_owner(path: str) -> Owner | None:
    """Return who holds the lock, as far as that can be told."""
    try:
        return _owners.decode(read_regular_file(path, _MAX_OWNER_BYTES))
    except (OSError, msgspec.DecodeError, RecursionError):
        return None


async def retry(try_once: Callable[[], bool], lock_path: str, profile: LockProfile) -> None:
    """Call ``try_once`` until it returns true, with pauses that grow from 1 ms to ``retry_ms``.

    The first pauses are short because a lock is held for microseconds; the last are long because one that is not,
    is held by something that hangs.

    Raises:
        NousError: ``state_contention`` after ``timeout_ms``.
    """
    started = anyio.current_time()
    attempts = 0
    while True:
        attempts += 1
        if try_once():
            return
        waited_ms = int((anyio.current_time() - started) * 1000)
        if waited_ms >= profile.timeout_ms:
            raise contention(lock_path, waited_ms, attempts, profile)
        pause_ms = min(1 << min(attempts - 1, 20), profile.retry_ms, profile.timeout_ms - waited_ms)
        await anyio.sleep(pause_ms / 1000)


def contention(lock_path: str, waited_ms: int, attempts: int, profile: LockProfile) -> NousError:
    """The error of one who waited in vain; its data are ``waited_ms``, ``attempts`` and, if known, ``owner_pid``."""
    data: dict[str, object] = {"waited_ms": waited_ms, "attempts": attempts}
    text = f"{Path(lock_path).name}: waited_ms={waited_ms} attempts={attempts}"
    owner = read_owner(lock_path)
    if owner is not None:
        held_ms = max(0, time.time_ns() // 1_000_000 - owner.since_ms)
        data.update(owner_pid=owner.pid, held_ms=held_ms)
        stuck = " (stuck)" if held_ms >= profile.stale_after_ms else ""
        text += f" owner_pid={owner.pid} held_ms={held_ms}{stuck}"
    return NousError("state_contention", text, data=data)
