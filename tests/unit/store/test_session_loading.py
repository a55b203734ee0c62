"""A long session is read in steps, between which other tasks run."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from nous.errors import NousError
from nous.store.disk import Disk
from nous.store.lines import SLICE_BYTES
from nous.store.sessions import _KEPT_BYTES, SessionStore
from nous.system.steps import complete
from tests.unit.store.helpers import NOW, append_row, message, path_ids

pytestmark = pytest.mark.anyio

TEXT = "x" * 40_000
COUNT = 100
MIB = 1024 * 1024


class CountingDisk(Disk):
    """Counts what is read, in all and since it was last asked."""

    def __init__(self) -> None:
        self.total = 0
        self.recent = 0

    def read_at(self, fd: int, count: int, offset: int) -> bytes:
        data = super().read_at(fd, count, offset)
        self.total += len(data)
        self.recent += len(data)
        return data

    def take_recent(self) -> int:
        recent, self.recent = self.recent, 0
        return recent


def make_long(directory: Path, session_id: str = "s1", text: str = TEXT, count: int = COUNT) -> int:
    session = SessionStore(directory).create(session_id, NOW)
    for number in range(count):
        assert session.try_append(message(f"m{number}", session.leaf_id, text))
    return (directory / f"{session_id}.ndjson").stat().st_size


async def test_other_tasks_run_while_a_long_session_is_read(tmp_path: Path) -> None:
    size = make_long(tmp_path)
    disk = CountingDisk()
    store = SessionStore(tmp_path, disk=disk)
    slices: list[int] = []

    async def watch() -> None:
        while True:
            slices.append(disk.take_recent())
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        session = await store.load("s1")
        tasks.cancel_scope.cancel()
    assert len(session.messages) == COUNT
    assert max(slices) < 2 * SLICE_BYTES
    assert len([one for one in slices if one]) > size // SLICE_BYTES - 1
    assert disk.total < size * 1.2  # what a slice cuts is read again, and little more


async def test_tasks_that_ask_at_once_read_it_once(tmp_path: Path) -> None:
    size = make_long(tmp_path)
    disk = CountingDisk()
    store = SessionStore(tmp_path, disk=disk)
    found = []

    async def load() -> None:
        found.append(await store.load("s1"))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(load)
    assert len(set(map(id, found))) == 1
    assert disk.total < size * 1.2


async def test_a_load_that_is_cancelled_leaves_the_next_one_to_read(tmp_path: Path) -> None:
    make_long(tmp_path)
    store = SessionStore(tmp_path)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.load, "s1")
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert len((await store.load("s1")).messages) == COUNT


async def test_appending_goes_on_while_the_rest_is_read(tmp_path: Path) -> None:
    """Another process appends much, and so does a run of this one, before all of that is read."""
    store = SessionStore(tmp_path)
    mine = store.create("s1", NOW)
    append_row(mine, ["a"])
    theirs = SessionStore(tmp_path).get("s1")
    for number in range(COUNT):
        assert theirs.try_append(message(f"m{number}", theirs.leaf_id, TEXT))
    assert not mine.try_append(message("early", "a"))

    async def append() -> None:
        await mine.append(message("b", "a"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.load, "s1")
        tasks.start_soon(append)
        tasks.start_soon(store.load, "s1")
    assert len(mine.messages) == COUNT + 2
    assert path_ids(mine, "b") == ["a", "b"]
    assert list(SessionStore(tmp_path).get("s1").messages) == list(mine.messages)


async def test_a_file_that_is_replaced_while_it_is_read(tmp_path: Path) -> None:
    make_long(tmp_path)
    store, other = SessionStore(tmp_path), SessionStore(tmp_path)
    theirs = other.get("s1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.load, "s1")
        await anyio.lowlevel.checkpoint()
        await theirs.checkpoint("c1", NOW)
        await theirs.append(message("last", "m99"))
    session = await store.load("s1")
    assert list(session.messages) == list(other.get("s1").messages)


async def test_a_long_line_is_a_step_by_itself(tmp_path: Path) -> None:
    session = SessionStore(tmp_path).create("s1", NOW)
    append_row(session, ["a"])
    assert session.try_append(message("b", "a", "y" * 3 * SLICE_BYTES))
    assert session.try_append(message("c", "b"))
    assert path_ids(await SessionStore(tmp_path).load("s1")) == ["a", "b", "c"]
    assert path_ids(SessionStore(tmp_path).get("s1")) == ["a", "b", "c"]


async def test_damage_behind_the_first_slice_is_found(tmp_path: Path) -> None:
    make_long(tmp_path)
    path = tmp_path / "s1.ndjson"
    data = bytearray(path.read_bytes())
    data[-60_000] ^= 1
    path.write_bytes(data)
    store = SessionStore(tmp_path)
    for _ in range(2):
        with pytest.raises(NousError) as caught:
            await store.load("s1")
        assert caught.value.code == "session_corrupt"


async def test_what_stays_in_memory_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = make_long(tmp_path, "s0")
    for number in (1, 2, 3):
        make_long(tmp_path, f"s{number}")
    assert size < _KEPT_BYTES
    monkeypatch.setattr("nous.store.sessions._KEPT_BYTES", 2 * size + MIB)
    store = SessionStore(tmp_path)
    for number in range(4):
        complete(store.get(f"s{number}").refresh())
    assert store.kept_ids() == ["s2", "s3"]
    monkeypatch.setattr("nous.store.sessions._KEPT_BYTES", 1)
    store.get("s0")
    assert store.kept_ids() == ["s0"]
