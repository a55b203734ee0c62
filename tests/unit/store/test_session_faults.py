"""A disk that fails at its n-th call, n = 1, 2, ... until none does: what was acknowledged is there, nothing else."""

from __future__ import annotations

import errno
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nous.errors import NousError
from nous.store.disk import Disk
from nous.store.faults import FaultyDisk, until_none_fires
from nous.store.locks import try_lock, unlock
from nous.store.session_format import Entry, LeafMove
from nous.store.sessions import SessionStore
from tests.unit.store.helpers import NOW, Tolerated, append_row, message, path_ids, verify_chain

ENTRIES: list[Entry] = [
    message("a"),
    message("b", "a", "text " * 50),
    LeafMove(id="m1", parent_id="b", leaf_id="a", created_at=NOW),
    message("c", "a"),
]

CODES = pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])


def acknowledge(store: SessionStore) -> list[str] | None:
    """Do what a run does, syncing each entry, until something fails; return what was acknowledged."""
    acknowledged: list[str] | None = None
    with Tolerated("io_failure"):
        session = store.create("s1", NOW)
        session.sync()
        acknowledged = []
        for entry in ENTRIES:
            assert session.try_append(entry)
            session.sync()
            acknowledged.append(entry.id)
    return acknowledged


def entries_on_disk(directory: Path, *, may_be_torn: bool = False) -> list[str] | None:
    with Tolerated("session_not_found") as missing:
        SessionStore(directory).get("s1")
    if missing.happened:
        return None
    return [entry["id"] for entry in verify_chain(directory / "s1.ndjson", may_be_torn=may_be_torn)[1:]]


@CODES
def test_reopened_it_is_what_was_acknowledged(tmp_path: Path, code: int) -> None:
    def attempt(disk: FaultyDisk) -> None:
        directory = Path(tempfile.mkdtemp(dir=tmp_path))
        acknowledged = acknowledge(SessionStore(directory, disk=disk))
        found = entries_on_disk(directory)
        # Only the making of the session is not undone: an empty one that nobody knows of does no harm.
        assert found == acknowledged or (found == [] and acknowledged is None)

    assert until_none_fires(attempt, code) > 20


@CODES
def test_a_disk_that_stays_broken_loses_nothing(tmp_path: Path, code: int) -> None:
    order = [entry.id for entry in ENTRIES]
    at = 1
    while True:
        directory = Path(tempfile.mkdtemp(dir=tmp_path))
        disk = FaultyDisk(at, code, stays=True)
        acknowledged = acknowledge(SessionStore(directory, disk=disk)) or []
        found = entries_on_disk(directory, may_be_torn=True) or []
        assert found[: len(acknowledged)] == acknowledged
        assert found == order[: len(found)]
        assert len(found) <= len(acknowledged) + 1
        if not disk.fired:
            break
        at += 1
    assert acknowledged == order


@CODES
def test_the_session_goes_on_after_a_fault(tmp_path: Path, code: int) -> None:
    """The same object, the same entry again: as if nothing had been."""

    def attempt(disk: FaultyDisk) -> None:
        directory = Path(tempfile.mkdtemp(dir=tmp_path))
        SessionStore(directory).create("s1", NOW)
        session = SessionStore(directory).get("s1")
        session._disk = disk
        for entry in ENTRIES:
            with Tolerated("io_failure") as first:
                assert session.try_append(entry)
                session.sync()
            if first.happened:
                assert session.try_append(entry)
                session.sync()
        assert entries_on_disk(directory) == [entry.id for entry in ENTRIES]
        assert path_ids(session) == ["a", "c"]
        assert not list(directory.glob("*.torn-*"))

    assert until_none_fires(attempt, code) >= 20


@CODES
def test_a_branch_is_whole_or_not_there(tmp_path: Path, code: int) -> None:
    def attempt(disk: FaultyDisk) -> None:
        directory = Path(tempfile.mkdtemp(dir=tmp_path))
        append_row(SessionStore(directory).create("s1", NOW), "abc")
        with Tolerated("io_failure") as failure:
            SessionStore(directory, disk=disk).branch("s1", "s2", NOW)
        if failure.happened:
            assert not (directory / "s2.ndjson").exists()
        else:
            assert path_ids(SessionStore(directory).get("s2")) == ["a", "b", "c"]

    assert until_none_fires(attempt, code) >= 3


@CODES
def test_a_torn_tail_under_faults(tmp_path: Path, code: int) -> None:
    def attempt(disk: FaultyDisk) -> None:
        directory = Path(tempfile.mkdtemp(dir=tmp_path))
        append_row(SessionStore(directory).create("s1", NOW), "a")
        with (directory / "s1.ndjson").open("ab") as file:
            file.write(b"torn")
        with Tolerated("io_failure"):
            SessionStore(directory, disk=disk).get("s1").try_append(message("b", "a"))
        again = SessionStore(directory).get("s1")
        append_row(again, "z")
        assert [entry["id"] for entry in verify_chain(directory / "s1.ndjson")] in (
            ["s1", "a", "z"],
            ["s1", "a", "b", "z"],
        )
        assert {kept.read_bytes() for kept in directory.glob("*.torn-*")} == {b"torn"}

    assert until_none_fires(attempt, code) >= 7


class TestSync:
    def test_a_failed_sync_takes_back_what_was_not_acknowledged(self, tmp_path: Path) -> None:
        store = SessionStore(tmp_path, disk=FaultyDisk(2, operations=frozenset({"sync"})))
        session = store.create("s1", NOW)
        append_row(session, "a")
        session.sync()
        append_row(session, "bc")
        with pytest.raises(NousError) as caught:
            session.sync()
        assert (caught.value.code, caught.value.cause) == ("io_failure", "s1.ndjson: Input/output error")
        assert path_ids(store.get("s1")) == ["a"]
        append_row(session, "bcd")
        session.sync()
        assert path_ids(SessionStore(tmp_path).get("s1")) == ["a", "b", "c", "d"]

    def test_a_second_sync_does_not_hide_the_first_failure(self, tmp_path: Path) -> None:
        session = SessionStore(tmp_path, disk=FaultyDisk(1, operations=frozenset({"sync"}))).create("s1", NOW)
        for _ in range(3):
            with pytest.raises(NousError):
                session.sync()

    def test_what_others_built_on_is_not_taken_back(self, tmp_path: Path) -> None:
        store = SessionStore(tmp_path, disk=FaultyDisk(1, operations=frozenset({"sync"})))
        SessionStore(tmp_path).create("s1", NOW)
        session = store.get("s1")
        append_row(session, "a")
        append_row(SessionStore(tmp_path).get("s1"), "b")
        with pytest.raises(NousError):
            session.sync()
        assert [entry["id"] for entry in verify_chain(tmp_path / "s1.ndjson")] == ["s1", "a", "b"]

    def test_only_its_own_entries_are_taken_back(self, tmp_path: Path) -> None:
        store = SessionStore(tmp_path, disk=FaultyDisk(1, operations=frozenset({"sync"})))
        SessionStore(tmp_path).create("s1", NOW)
        session = store.get("s1")
        append_row(session, "a")
        append_row(SessionStore(tmp_path).get("s1"), "b")
        append_row(session, "cd")
        with pytest.raises(NousError):
            session.sync()
        assert [entry["id"] for entry in verify_chain(tmp_path / "s1.ndjson")] == ["s1", "a", "b"]

    def test_what_is_appended_while_it_fails_goes_too(self, tmp_path: Path) -> None:
        """It stands behind what is lost; and what would have followed it hears of the disk, not of a wrong parent."""
        disk = BusyDisk()
        session = SessionStore(tmp_path, disk=disk).create("s1", NOW)
        session.sync()
        append_row(session, "a")
        disk.meanwhile = lambda: append_row(session, "b")
        with pytest.raises(NousError):
            session.sync()
        assert entries_on_disk(tmp_path) == []
        with pytest.raises(NousError) as caught:
            session.try_append(message("c", "b"))
        assert (caught.value.code, caught.value.cause) == (
            "io_failure",
            "s1.ndjson: what it follows could not be made durable",
        )
        append_row(session, "d")
        session.sync()
        with pytest.raises(NousError) as caught:
            session.try_append(message("c", "b"))
        assert caught.value.code == "session_error"
        assert path_ids(SessionStore(tmp_path).get("s1")) == ["d"]

    def test_nothing_is_taken_back_under_anothers_lock(self, tmp_path: Path) -> None:
        session = SessionStore(tmp_path, disk=FaultyDisk(2, operations=frozenset({"sync"}))).create("s1", NOW)
        session.sync()
        append_row(session, "a")
        lock = try_lock(Disk(), str(tmp_path / "s1.lock"))
        assert lock is not None
        with pytest.raises(NousError):
            session.sync()
        unlock(Disk(), lock)
        assert entries_on_disk(tmp_path) == ["a"]

    def test_with_nothing_new_there_is_nothing_to_sync(self, tmp_path: Path) -> None:
        disk = CountingDisk()
        store = SessionStore(tmp_path, disk=disk)
        session = store.create("s1", NOW)
        session.sync()
        assert disk.calls == ["sync", "sync_directory"]
        session.sync()
        append_row(SessionStore(tmp_path).get("s1"), "a")
        store.get("s1").sync()
        assert disk.calls == ["sync", "sync_directory"]
        append_row(session, "b")
        session.sync()
        assert disk.calls == ["sync", "sync_directory", "sync"]

    def test_another_thread_may_sync_while_this_one_appends(self, tmp_path: Path) -> None:
        session = SessionStore(tmp_path).create("s1", NOW)
        done = threading.Event()
        failures: list[NousError] = []

        def sync_until_done() -> None:
            while not done.is_set():
                try:
                    session.sync()
                except NousError as error:
                    failures.append(error)

        worker = threading.Thread(target=sync_until_done)
        worker.start()
        append_row(session, [f"m{n}" for n in range(500)])
        done.set()
        worker.join()
        assert failures == []
        assert len(verify_chain(tmp_path / "s1.ndjson")) == 501


class BusyDisk(Disk):
    """Does something while it syncs, and then fails once."""

    meanwhile: Callable[[], None] | None = None

    def sync(self, fd: int) -> None:
        if self.meanwhile is None:
            return super().sync(fd)
        doing, self.meanwhile = self.meanwhile, None
        doing()
        raise OSError(errno.EIO, "Input/output error")


class CountingDisk(Disk):
    """Writes down what is made durable."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def sync(self, fd: int) -> None:
        self.calls.append("sync")
        super().sync(fd)

    def sync_directory(self, path: str) -> None:
        self.calls.append("sync_directory")
        super().sync_directory(path)
