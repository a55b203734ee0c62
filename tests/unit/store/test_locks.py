from __future__ import annotations

import json
import os
from pathlib import Path

import anyio
import pytest

from nous.errors import NousError
from nous.store.disk import Disk
from nous.store.faults import FaultyDisk
from nous.store.locks import PROFILES, STANDARD, SWARM, LockProfile, contention, read_owner, retry, try_lock, unlock
from tests.unit.store.helpers import spawn

pytestmark = pytest.mark.anyio

BRIEF = LockProfile(timeout_ms=20, retry_ms=4)


@pytest.fixture
def lock_path(tmp_path: Path) -> str:
    return str(tmp_path / "s1.lock")


def take(lock_path: str) -> int:
    fd = try_lock(Disk(), lock_path)
    assert fd is not None
    return fd


def test_the_profiles_are_those_of_the_contract() -> None:
    assert (STANDARD.timeout_ms, STANDARD.retry_ms) == (2_000, 50)
    assert (SWARM.timeout_ms, SWARM.retry_ms) == (10_000, 20)
    assert PROFILES == {"standard": STANDARD, "swarm": SWARM}


def test_one_holder_at_a_time(lock_path: str) -> None:
    fd = take(lock_path)
    inode = Path(lock_path).stat().st_ino
    assert try_lock(Disk(), lock_path) is None
    unlock(Disk(), fd)
    unlock(Disk(), take(lock_path))
    assert Path(lock_path).stat().st_ino == inode, "the lock's file stays"


def test_the_owner_is_written_inside(lock_path: str) -> None:
    assert read_owner(lock_path) is None
    fd = take(lock_path)
    owner = read_owner(lock_path)
    unlock(Disk(), fd)
    assert owner is not None
    assert owner.pid == os.getpid()
    assert json.loads(Path(lock_path).read_bytes()) == {"pid": os.getpid(), "since_ms": owner.since_ms}
    assert Path(lock_path).stat().st_mode & 0o777 == 0o600


def test_freed_also_where_a_child_has_a_copy(lock_path: str) -> None:
    fd = take(lock_path)
    copy = os.dup(fd)
    try:
        unlock(Disk(), fd)
        unlock(Disk(), take(lock_path))
    finally:
        os.close(copy)


def test_a_dead_owner_frees_it(lock_path: str) -> None:
    with spawn("lock_holder.py", lock_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert try_lock(Disk(), lock_path) is None
        owner = read_owner(lock_path)
        holder.kill()
        holder.wait()
    assert owner is not None
    assert owner.pid == holder.pid
    unlock(Disk(), take(lock_path))


def test_what_cannot_be_locked_is_an_error_and_leaks_nothing(tmp_path: Path) -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        try_lock(Disk(), str(tmp_path / "no" / "s1.lock"))
    with pytest.raises(OSError, match="Input/output error"):
        try_lock(FaultyDisk(1), str(tmp_path / "s1.lock"))
    held = take(str(tmp_path / "s2.lock"))
    assert try_lock(Disk(), str(tmp_path / "s2.lock")) is None
    unlock(Disk(), held)
    assert len(list(Path("/dev/fd").iterdir())) == before


async def test_retry_stops_at_the_first_success(lock_path: str) -> None:
    answers = iter([False, False, True, False])
    await retry(lambda: next(answers), lock_path, STANDARD)
    assert list(answers) == [False]


async def test_retry_passes_errors_on(lock_path: str) -> None:
    def refuse() -> bool:
        raise NousError("session_corrupt")

    with pytest.raises(NousError) as caught:
        await retry(refuse, lock_path, STANDARD)
    assert caught.value.code == "session_corrupt"


async def test_waiting_is_bounded_and_says_for_whom(lock_path: str) -> None:
    fd = take(lock_path)
    tries = []

    def attempt() -> bool:
        tries.append(try_lock(Disk(), lock_path))
        return tries[-1] is not None

    with pytest.raises(NousError) as caught:
        await retry(attempt, lock_path, BRIEF)
    unlock(Disk(), fd)
    error = caught.value
    assert (error.code, error.retryable) == ("state_contention", True)
    waited_ms = error.data["waited_ms"]
    assert isinstance(waited_ms, int)
    assert waited_ms >= BRIEF.timeout_ms
    assert error.data["attempts"] == len(tries)
    assert len(tries) > 3, "the first pauses are short"
    assert error.data["owner_pid"] == os.getpid()
    assert error.cause is not None
    assert error.cause.startswith(f"s1.lock: waited_ms={waited_ms} attempts={len(tries)} owner_pid={os.getpid()}")
    assert not error.cause.endswith("(stuck)")


async def test_no_pause_goes_past_the_end_of_the_waiting(lock_path: str) -> None:
    hour_ms = 3_600_000
    with anyio.fail_after(60), pytest.raises(NousError) as caught:
        await retry(lambda: False, lock_path, LockProfile(timeout_ms=10, retry_ms=hour_ms))
    assert caught.value.code == "state_contention"


def test_an_old_owner_is_called_stuck(lock_path: str) -> None:
    Path(lock_path).write_text('{"pid":17,"since_ms":1000}', encoding="utf-8")
    error = contention(lock_path, 5, 1, STANDARD)
    assert error.cause is not None
    assert error.cause.endswith("(stuck)")
    assert error.data["owner_pid"] == 17


def test_an_unreadable_owner_is_left_out(lock_path: str) -> None:
    Path(lock_path).write_bytes(b"\xff{")
    assert contention(lock_path, 5, 1, STANDARD).data == {"waited_ms": 5, "attempts": 1}
