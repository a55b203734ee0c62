"""Checkpoints and pruning on files: the chain goes on, others go on, and a fault leaves one file or the other."""

from __future__ import annotations

import errno
import stat
import tempfile
from pathlib import Path

import anyio
import pytest

from nous.errors import NousError
from nous.store.disk import Disk, temp_path
from nous.store.faults import FaultyDisk, until_none_fires
from nous.store.locks import LockProfile, try_lock, unlock
from nous.store.rewrite import PruneReport
from nous.store.session import Session
from nous.store.session_format import LeafMove, encode_line
from nous.store.sessions import SessionStore
from nous.store.verify import verify_session
from tests.unit.store.helpers import LATER, NOW, Tolerated, append_row, compaction, message, path_ids, verify_chain

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path)


def compacted(store: SessionStore, first_kept: str = "") -> Session:
    """A session of abcdef, compacted at f."""
    session = store.create("s1", NOW)
    append_row(session, "abcdef")
    assert session.try_append(compaction("k1", "f", first_kept))
    return session


def full_ids(session: Session, leaf_id: str | None = None) -> list[str]:
    return [known.message.id for known in session.full_path(leaf_id)]


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


class CountingDisk(Disk):
    """Counts what is written and renamed, and writes down in which order."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self.calls.append("write")
        return super().write(fd, data)

    def sync(self, fd: int) -> None:
        self.calls.append("sync")
        super().sync(fd)

    def rename(self, source: str, target: str) -> None:
        self.calls.append("rename")
        super().rename(source, target)

    def sync_directory(self, path: str) -> None:
        self.calls.append("sync_directory")
        super().sync_directory(path)


class TestCheckpoint:
    async def test_it_stands_at_the_leaf(self, store: SessionStore, tmp_path: Path) -> None:
        session = store.create("s1", NOW)
        append_row(session, "ab")
        await session.checkpoint("p1", LATER)
        entry = verify_chain(tmp_path / "s1.ndjson")[-1]
        assert (entry["type"], entry["id"], entry["parent_id"], entry["created_at"]) == ("checkpoint", "p1", "b", LATER)
        assert (session.leaf_id, session.updated_at, path_ids(session)) == ("b", NOW, ["a", "b"])

    async def test_at_the_leaf_that_another_process_has_moved(self, store: SessionStore, tmp_path: Path) -> None:
        session = store.create("s1", NOW)
        append_row(session, "ab")
        SessionStore(tmp_path).get("s1").try_append(LeafMove(id="l1", parent_id="b", leaf_id="a", created_at=NOW))
        await session.checkpoint("p1", NOW)
        assert SessionStore(tmp_path).get("s1").leaf_id == session.leaf_id == "a"

    async def test_of_an_empty_session(self, store: SessionStore, tmp_path: Path) -> None:
        session = store.create("s1", NOW)
        await session.checkpoint("p1", NOW)
        assert (await session.prune()).removed_messages == 0
        append_row(session, "a")
        assert path_ids(SessionStore(tmp_path).get("s1")) == ["a"]

    async def test_an_id_is_taken_once(self, store: SessionStore) -> None:
        session = store.create("s1", NOW)
        await session.checkpoint("p1", NOW)
        with pytest.raises(NousError, match="taken"):
            await session.checkpoint("p1", NOW)


class TestPrune:
    async def test_everything_and_the_sequence_goes_on(self, store: SessionStore, tmp_path: Path) -> None:
        path = tmp_path / "s1.ndjson"
        session = compacted(store)
        await session.checkpoint("p1", NOW)
        before = verify_chain(path)
        size = path.stat().st_size
        report = await session.prune()
        after = verify_chain(path)
        assert report == PruneReport(
            removed_messages=6, lines_before=9, lines_after=3, bytes_before=size, bytes_after=path.stat().st_size
        )
        assert [entry["type"] for entry in after] == ["session", "compaction", "checkpoint"]
        assert (after[0]["n"], after[0]["prev"]) == (before[-1]["n"] + 1, before[-1]["digest"])
        append_row(session, "gh")
        for seen in (session, SessionStore(tmp_path).get("s1")):
            assert (path_ids(seen), full_ids(seen), seen.leaf_id) == (["k1", "g", "h"], ["g", "h"], "h")
            assert seen.messages["g"].message.parent_id == "f"
        assert [entry["n"] for entry in verify_chain(path)] == [9, 10, 11, 12, 13]
        assert verify_session(path).ok

    async def test_twice(self, store: SessionStore, tmp_path: Path) -> None:
        session = compacted(store, "e")
        await session.checkpoint("p1", NOW)
        await session.prune()
        assert (path_ids(session), full_ids(session)) == (["k1", "e", "f"], ["e", "f"])
        append_row(session, "gh")
        session.try_append(compaction("k2", "h", "h"))
        assert (await session.prune()).removed_messages == 2, "g and h stand behind the checkpoint"
        await session.checkpoint("p2", NOW)
        assert (await session.prune()).removed_messages == 1
        assert [entry["id"] for entry in verify_chain(tmp_path / "s1.ndjson")] == ["s1", "h", "k2", "p2"]
        assert path_ids(SessionStore(tmp_path).get("s1")) == ["k2", "h"]

    async def test_what_stays_keeps_its_bytes(self, store: SessionStore, tmp_path: Path) -> None:
        session = compacted(store, "d")
        await session.checkpoint("p1", NOW)

        def contents() -> dict[str, str]:
            entries = verify_chain(tmp_path / "s1.ndjson")[1:]
            lines = (tmp_path / "s1.ndjson").read_text(encoding="utf-8").split("\n")[1:]
            return {entry["id"]: line.split(',"n":')[0] for entry, line in zip(entries, lines, strict=False)}

        before = contents()
        await session.prune()
        after = contents()
        assert list(after) == ["d", "e", "f", "k1", "p1"]
        assert after == {entry_id: before[entry_id] for entry_id in after}

    async def test_without_a_reason_the_file_is_not_touched(self, store: SessionStore, tmp_path: Path) -> None:
        path = tmp_path / "s1.ndjson"
        session = compacted(store)
        for has_checkpoint in (False, True):
            if has_checkpoint:
                await session.checkpoint("p1", NOW)
            before = (path.read_bytes(), path.stat().st_ino)
            report = await session.prune(retain=6 if has_checkpoint else 0)
            assert (report.removed_messages, report.lines_after) == (0, report.lines_before)
            assert (path.read_bytes(), path.stat().st_ino) == before

    async def test_the_newest_are_retained(self, store: SessionStore) -> None:
        session = compacted(store)
        await session.checkpoint("p1", NOW)
        await session.prune(retain=2)
        assert (list(session.messages), full_ids(session, "e")) == (["e", "f"], ["e"])
        assert path_ids(session, "e") == ["k1", "e"]

    async def test_a_branch_of_what_was_pruned(self, store: SessionStore, tmp_path: Path) -> None:
        session = compacted(store, "e")
        append_row(session, "g")
        session.try_append(message("y", "d"))
        session.try_append(compaction("k2", "y"))
        await session.checkpoint("p1", NOW)
        await session.prune()
        store.branch("s1", "s2", NOW)
        store.branch("s1", "s3", NOW, "f")
        again = SessionStore(tmp_path)
        assert (path_ids(again.get("s2")), again.get("s2").leaf_id) == (["k2"], "y")
        assert (path_ids(again.get("s3")), full_ids(again.get("s3"))) == (["k1", "e", "f"], ["e", "f"])
        for session_id in ("s2", "s3"):
            branch = again.get(session_id)
            append_row(branch, ["new"])
            assert path_ids(SessionStore(tmp_path).get(session_id))[-1] == "new"
            assert verify_session(tmp_path / f"{session_id}.ndjson").ok

    async def test_a_branch_that_was_copied_is_one_after_pruning_too(self, store: SessionStore, tmp_path: Path) -> None:
        compacted(store)
        branch = store.branch("s1", "s2", NOW)
        await branch.checkpoint("p1", NOW)
        await branch.prune()
        again = SessionStore(tmp_path).get("s2")
        assert (again.parent_id, path_ids(again)) == ("s1", ["k1"])

    async def test_a_torn_tail_is_kept_aside_first(self, store: SessionStore, tmp_path: Path) -> None:
        session = compacted(store)
        await session.checkpoint("p1", NOW)
        with (tmp_path / "s1.ndjson").open("ab") as file:
            file.write(b"torn")
        await session.prune()
        assert [torn.size for torn in session.take_recovered()] == [4]
        verify_chain(tmp_path / "s1.ndjson")

    async def test_modes_and_names(self, store: SessionStore, tmp_path: Path) -> None:
        session = compacted(store)
        await session.checkpoint("p1", NOW)
        lock = (tmp_path / "s1.lock").stat().st_ino
        await session.prune()
        assert stat.S_IMODE((tmp_path / "s1.ndjson").stat().st_mode) == 0o600
        assert names(tmp_path) == {"s1.ndjson", "s1.lock", ".leases"}
        assert (tmp_path / "s1.lock").stat().st_ino == lock

    async def test_a_held_lock_is_waited_for(self, tmp_path: Path) -> None:
        session = compacted(SessionStore(tmp_path, profile=LockProfile(timeout_ms=10, retry_ms=5)))
        await session.checkpoint("p1", NOW)
        lock = try_lock(Disk(), str(tmp_path / "s1.lock"))
        assert lock is not None
        for refused in (session.prune, lambda: session.checkpoint("p2", NOW)):
            with pytest.raises(NousError) as caught:
                await refused()
            assert caught.value.code == "state_contention"
        unlock(Disk(), lock)
        assert (await session.prune()).removed_messages == 6

    async def test_a_deleted_session_is_gone(self, store: SessionStore, tmp_path: Path) -> None:
        session = compacted(store)
        (tmp_path / "s1.ndjson").unlink()
        with pytest.raises(NousError) as caught:
            await session.prune()
        assert caught.value.code == "session_not_found"


class TestOthers:
    async def test_they_go_on_with_the_new_file(self, store: SessionStore, tmp_path: Path) -> None:
        session = compacted(store, "f")
        other = SessionStore(tmp_path).get("s1")
        held = other.path()
        await session.checkpoint("p1", NOW)
        await session.prune()
        assert other.try_append(message("g", "f"))
        assert path_ids(other) == ["k1", "f", "g"]
        assert [known.message.id for known in held] == ["k1", "f"]
        append_row(store.get("s1"), "h")
        assert path_ids(session) == ["k1", "f", "g", "h"]
        verify_chain(tmp_path / "s1.ndjson")

    async def test_what_they_appended_is_not_lost(self, store: SessionStore, tmp_path: Path) -> None:
        session = compacted(store, "f")
        await session.checkpoint("p1", NOW)
        append_row(SessionStore(tmp_path).get("s1"), "gh")
        await session.prune()
        assert path_ids(SessionStore(tmp_path).get("s1")) == ["k1", "f", "g", "h"]

    async def test_a_failed_sync_takes_nothing_out_of_the_new_file(self, store: SessionStore, tmp_path: Path) -> None:
        """The file that was appended to is gone; what is in its place is durable and of another."""
        compacted(store, "f")
        disk = FaultyDisk(1, operations=frozenset({"sync"}))
        mine = SessionStore(tmp_path, disk=disk).get("s1")
        append_row(mine, "g")
        size = (tmp_path / "s1.ndjson").stat().st_size
        other = SessionStore(tmp_path).get("s1")
        await other.checkpoint("p1", NOW)
        await other.prune()
        # Appended to until it is of the very size at which the old one ended.
        room = size - (tmp_path / "s1.ndjson").stat().st_size
        shortest = len(encode_line(message("h", "f", "."), other._log.link)[0])
        other.try_append(message("h", "f", "." * (1 + room - shortest)))
        assert (tmp_path / "s1.ndjson").stat().st_size == size
        whole = (tmp_path / "s1.ndjson").read_bytes()
        with pytest.raises(NousError):
            mine.sync()
        assert (tmp_path / "s1.ndjson").read_bytes() == whole

    async def test_the_next_sync_makes_the_new_name_durable(self, store: SessionStore, tmp_path: Path) -> None:
        compacted(store)
        disk = CountingDisk()
        mine = SessionStore(tmp_path, disk=disk).get("s1")
        append_row(mine, "g")
        mine.sync()
        append_row(mine, "h")
        mine.sync()
        assert disk.calls == ["write", "sync", "sync_directory", "write", "sync"]
        other = SessionStore(tmp_path).get("s1")
        await other.checkpoint("p1", NOW)
        await other.prune()
        append_row(mine, "i")
        disk.calls.clear()
        mine.sync()
        assert disk.calls == ["sync", "sync_directory"]


CODES = pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])


class TestFaults:
    def test_the_order_is_what_makes_it_durable(self, store: SessionStore, tmp_path: Path) -> None:
        compacted(store)
        disk = CountingDisk()
        session = SessionStore(tmp_path, disk=disk).get("s1")
        anyio.run(session.checkpoint, "p1", NOW)
        disk.calls.clear()
        anyio.run(session.prune)
        assert disk.calls == ["write", "sync", "rename", "sync_directory"]

    @CODES
    def test_the_old_file_or_the_new_one(self, tmp_path: Path, code: int) -> None:
        def attempt(disk: FaultyDisk) -> None:
            directory = Path(tempfile.mkdtemp(dir=tmp_path))
            compacted(SessionStore(directory), "e")
            anyio.run(SessionStore(directory).get("s1").checkpoint, "p1", NOW)
            old = (directory / "s1.ndjson").read_bytes()
            session = SessionStore(directory).get("s1")
            session._disk = disk
            with Tolerated("io_failure") as failure:
                anyio.run(session.prune)
            session._disk = Disk()
            entries = [entry["id"] for entry in verify_chain(directory / "s1.ndjson")]
            if failure.happened and (directory / "s1.ndjson").read_bytes() == old:
                assert entries[-1] == "p1"
            else:
                assert entries == ["s1", "e", "f", "k1", "p1"]
            assert names(directory) == {"s1.ndjson", "s1.lock", ".leases"}
            # Whatever happened, this process and others go on.
            append_row(session, "g")
            session.sync()
            for seen in (session, SessionStore(directory).get("s1")):
                assert path_ids(seen) == ["k1", "e", "f", "g"]
            verify_chain(directory / "s1.ndjson")

        assert until_none_fires(attempt, code) >= 7


class TestSweep:
    def test_what_killed_writers_left_goes_and_what_living_ones_write_stays(
        self, store: SessionStore, tmp_path: Path
    ) -> None:
        store.create("s1", NOW)
        store.create("s2", NOW)
        temps = [Path(temp_path(str(tmp_path / f"{name}.ndjson"))) for name in ("s1", "s2")]
        others = [tmp_path / name for name in (".other.tmp", ".a.b.ndjson.tmp", "s1.ndjson.tmp", ".ndjson.tmp")]
        for path in (*temps, *others):
            path.touch()
        lock = try_lock(Disk(), str(tmp_path / "s2.lock"))
        assert lock is not None
        store.sweep()
        unlock(Disk(), lock)
        assert [path.exists() for path in temps] == [False, True]
        assert all(path.exists() for path in others)
        store.sweep()
        assert not temps[1].exists()

    def test_without_the_directory_there_is_nothing_to_do(self, tmp_path: Path) -> None:
        SessionStore(tmp_path / "no").sweep()
        assert list(tmp_path.iterdir()) == []

    def test_a_leftover_is_no_obstacle(self, store: SessionStore, tmp_path: Path) -> None:
        session = compacted(store)
        anyio.run(session.checkpoint, "p1", NOW)
        leftover = Path(temp_path(str(tmp_path / "s1.ndjson")))
        leftover.write_bytes(b"x" * 100_000)
        anyio.run(session.prune)
        verify_chain(tmp_path / "s1.ndjson")
        assert not leftover.exists()

    def test_a_link_in_its_place_is_not_followed(self, store: SessionStore, tmp_path: Path) -> None:
        session = compacted(store)
        anyio.run(session.checkpoint, "p1", NOW)
        target = tmp_path / "target"
        target.write_bytes(b"mine")
        Path(temp_path(str(tmp_path / "s1.ndjson"))).symlink_to(target)
        with pytest.raises(NousError):
            anyio.run(session.prune)
        assert target.read_bytes() == b"mine"
        anyio.run(session.prune)
        assert len(session.messages) == 0
