"""Leases say who uses a session, also across processes, and never outlive their holder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from nous.errors import NousError
from nous.store.leases import LEASES_NAME, Leases
from nous.store.locks import STANDARD, LockProfile
from nous.store.sessions import SessionStore
from tests.unit.store.helpers import NOW, append_row, compaction, message

pytestmark = pytest.mark.anyio

BRIEF = LockProfile(timeout_ms=20, retry_ms=1)
HOLDER = """
import sys, anyio
from pathlib import Path
from nous.store.leases import Leases
from nous.store.locks import STANDARD

async def main():
    await Leases(Path(sys.argv[1])).hold("s1", "run", STANDARD)
    print("held", flush=True)
    sys.stdin.read()

anyio.run(main)
"""


def left_in(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / LEASES_NAME).iterdir())


def start_holder(directory: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", HOLDER, str(directory)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def test_uses_are_shared_and_removers_are_alone(tmp_path: Path) -> None:
    one, other = Leases(tmp_path), Leases(tmp_path)
    first = await one.hold("s1", "run", STANDARD)
    second = await other.hold("s1", "run", STANDARD)
    assert other.try_exclude("s1") is None
    assert not other.is_in_use("s1", ("active",))
    first.release()
    assert other.is_in_use("s1")
    second.release()
    second.release()
    assert not other.is_in_use("s1")
    excluded = one.try_exclude("s1")
    assert excluded is not None
    with pytest.raises(NousError) as caught:
        await other.hold("s1", "active", BRIEF)
    assert caught.value.code == "state_contention"
    for lease in excluded:
        lease.release()
    (await other.hold("s1", "active", BRIEF)).release()


async def test_the_last_holder_leaves_nothing_behind(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    first, second = [await leases.hold("s1", "active", STANDARD) for _ in range(2)]
    first.release()
    assert left_in(tmp_path) == ["s1.active"]
    second.release()
    assert left_in(tmp_path) == []


async def test_a_holder_that_is_killed_holds_nothing(tmp_path: Path) -> None:
    with start_holder(tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        leases = Leases(tmp_path)
        assert leases.is_in_use("s1")
        session = SessionStore(tmp_path).create("s1", NOW)
        with pytest.raises(NousError) as caught:
            await session.prune()
        assert (caught.value.code, caught.value.cause) == ("command_rejected", "run_in_progress")
        holder.kill()
        holder.wait()
    assert left_in(tmp_path) == ["s1.run"]
    assert not leases.is_in_use("s1")
    assert left_in(tmp_path) == []
    await session.prune()


async def test_a_use_waits_for_a_remover(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    excluded = leases.try_exclude("s1")
    assert excluded is not None
    async with anyio.create_task_group() as tasks:

        async def free() -> None:
            for lease in excluded:
                lease.release()

        tasks.start_soon(free)
        lease = await leases.hold("s1", "run", LockProfile(timeout_ms=60_000, retry_ms=5))
    lease.release()


async def test_pruning_is_refused_while_a_run_needs_what_would_go(tmp_path: Path) -> None:
    store = SessionStore(tmp_path)
    session = store.create("s1", NOW)
    append_row(session, ["a", "b", "c"])
    await session.append(compaction("k", "c", "c"))
    await session.append(message("d", "c"))
    await session.checkpoint("p", NOW)
    before = session.path("d", "")
    lease = await store.leases.hold("s1", "run", STANDARD)
    with pytest.raises(NousError):
        await SessionStore(tmp_path).get("s1").prune()
    store.get("s1")
    assert [known.message.id for known in store.get("s1").path("d", "")] == [known.message.id for known in before]
    lease.release()
    assert (await SessionStore(tmp_path).get("s1").prune()).removed_messages == 2
