"""The list of sessions: what it shows, that its index is only a cache, and what it costs to be right."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.errors import NousError
from nous.protocol.entries import ModelChange, SessionInfo
from nous.protocol.messages import Message
from nous.store.disk import Disk
from nous.store.faults import FaultyDisk
from nous.store.locks import try_lock, unlock
from nous.store.session_format import Checkpoint, LeafMove
from nous.store.session_index import (
    INDEX_NAME,
    LOCK_NAME,
    MAX_PAGE,
    SessionIndex,
    SessionPage,
    cursor_after,
    look_at_index,
)
from nous.store.sessions import SessionStore
from tests.unit.store.helpers import LATER, NOW, append_row, compaction, message, verify_chain


class ReadingDisk(Disk):
    """Counts the files that are opened and the bytes that are read."""

    def __init__(self) -> None:
        self.opened: Counter[str] = Counter()
        self.read = 0

    def open(self, path: str, flags: int) -> int:
        self.opened[os.path.basename(path)] += 1  # noqa: PTH119
        return super().open(path, flags)

    def read_at(self, fd: int, count: int, offset: int) -> bytes:
        data = super().read_at(fd, count, offset)
        self.read += len(data)
        return data


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path)


def settle(directory: Path) -> None:
    """Make all files look as if they had not been changed for long."""
    for path in directory.glob("*.ndjson"):
        info = path.stat()
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns - 10**9))


def listed(directory: Path, limit: int = 100, cursor: str | None = None, disk: Disk | None = None) -> SessionPage:
    """What another process lists."""
    return SessionIndex(directory, disk or Disk()).page(limit, cursor)


def ids(page: SessionPage) -> list[str]:
    return [info.session_id for info in page.sessions]


def at(second: int) -> str:
    return f"2026-11-21T10:00:{second:02}.000Z"


def append_at(store: SessionStore, session_id: str, message_id: str, created_at: str) -> None:
    session = store.get(session_id)
    session.try_append(Message(id=message_id, parent_id=session.leaf_id, role="user", text="x", created_at=created_at))


def many(store: SessionStore, count: int) -> list[str]:
    """Make sessions; the last one is the newest."""
    for n in range(count):
        append_at(store, store.create(f"s{n:03}", NOW).id, f"m{n}", at(n % 60) + f"-{n:03}")
    return [f"s{n:03}" for n in range(count)]


class TestShown:
    def test_nothing_without_the_directory(self, tmp_path: Path) -> None:
        assert listed(tmp_path / "no") == SessionPage([], None)
        assert listed(tmp_path) == SessionPage([], None)
        assert list(tmp_path.iterdir()) == []

    def test_a_session_without_messages(self, store: SessionStore) -> None:
        store.create("s1", NOW)
        assert store.list_sessions().sessions == [
            SessionInfo(session_id="s1", created_at=NOW, updated_at=NOW, message_count=0)
        ]

    def test_all_of_a_session(self, store: SessionStore, tmp_path: Path) -> None:
        session = store.create("s1", NOW)
        session.try_append(message("a", text="  The\nfirst\u2028 words " + "x" * 100))
        append_row(session, "bc")
        session.try_append(LeafMove(id="l1", parent_id="c", leaf_id="a", created_at=LATER))
        branch = store.branch("s1", "s2", LATER, "b")
        assert listed(tmp_path).sessions == [
            SessionInfo(
                session_id="s1",
                created_at=NOW,
                updated_at=LATER,
                message_count=3,
                leaf_id="a",
                snippet="The first words " + "x" * 64,
            ),
            SessionInfo(
                session_id="s2",
                parent_id="s1",
                created_at=LATER,
                updated_at=NOW,
                message_count=2,
                leaf_id=branch.leaf_id,
                snippet="The first words " + "x" * 64,
            ),
        ]

    def test_it_says_what_the_session_says(self, store: SessionStore, tmp_path: Path) -> None:
        """Every kind of entry as the last one."""
        session = store.create("s1", NOW)
        append_row(session, "ab")
        for entry in (
            compaction("k1", "b", "b"),
            LeafMove(id="l1", leaf_id="a", created_at=LATER),
            ModelChange(id="p1", provider="x", model="y", created_at=NOW),
            Checkpoint(id="p2", parent_id="b", created_at=at(50)),
            message("c", "a"),
            compaction("k2", "a"),
        ):
            assert session.try_append(entry)
            (info,) = listed(tmp_path).sessions
            assert (info.leaf_id, info.updated_at) == (session.leaf_id, session.updated_at)
            assert info.message_count == len(session.messages)

    def test_what_is_no_session_is_left_out(self, store: SessionStore, tmp_path: Path) -> None:
        append_row(store.create("s1", NOW), "ab")
        store.branch("s1", "s2", NOW)
        (tmp_path / "s2.ndjson").write_bytes((tmp_path / "s2.ndjson").read_bytes()[:-1])
        (tmp_path / "s3.ndjson").write_bytes(b"{}\n")
        (tmp_path / "s4.ndjson").write_bytes((tmp_path / "s1.ndjson").read_bytes())
        (tmp_path / "s5.ndjson").mkdir()
        (tmp_path / "s6.ndjson").touch()
        (tmp_path / "a.b.ndjson").touch()
        (tmp_path / "gone.ndjson").symlink_to(tmp_path / "nowhere")
        for _ in range(2):
            assert ids(store.list_sessions()) == ["s1"]

    def test_a_damaged_one_is_still_shown_as_far_as_it_goes(self, store: SessionStore, tmp_path: Path) -> None:
        append_row(store.create("s1", NOW), "abc")
        path = tmp_path / "s1.ndjson"
        path.write_bytes(path.read_bytes().replace(b'"text":"b"', b'"text":"B"'))
        assert [info.message_count for info in listed(tmp_path).sessions] == [3]

    def test_a_torn_tail_is_not_shown(self, store: SessionStore, tmp_path: Path) -> None:
        append_row(store.create("s1", NOW), "ab")
        path = tmp_path / "s1.ndjson"
        path.write_bytes(path.read_bytes()[:-1])
        assert [(info.message_count, info.leaf_id) for info in listed(tmp_path).sessions] == [(1, "a")]


class TestPages:
    def test_newest_first_and_each_once(self, store: SessionStore, tmp_path: Path) -> None:
        newest_first = sorted(many(store, 50), reverse=True)
        assert ids(store.list_sessions()) == newest_first
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = listed(tmp_path, 7, cursor)
            seen += ids(page)
            cursor = page.next_cursor
            if cursor is None:
                break
            assert len(page.sessions) == 7
        assert seen == newest_first

    def test_sessions_of_the_same_moment_have_an_order(self, store: SessionStore) -> None:
        for session_id in "bca":
            store.create(session_id, NOW)
        first = store.list_sessions(2)
        assert ids(first) == ["c", "b"]
        assert ids(store.list_sessions(2, first.next_cursor)) == ["a"]

    def test_the_last_page_has_no_cursor(self, store: SessionStore) -> None:
        many(store, 4)
        assert store.list_sessions(4).next_cursor is None
        assert store.list_sessions(3).next_cursor is not None

    def test_changes_between_pages_lose_nothing_that_did_not_change(self, store: SessionStore) -> None:
        many(store, 10)
        first = store.list_sessions(4)
        append_at(store, "s003", "new", "2027")
        store.create("s999", "2027")
        rest = store.list_sessions(100, first.next_cursor)
        assert ids(rest) == ["s005", "s004", "s002", "s001", "s000"]

    def test_a_page_can_end_anywhere(self, store: SessionStore) -> None:
        many(store, 10)
        page = store.list_sessions()
        for row, info in enumerate(page.sessions):
            assert ids(store.list_sessions(100, cursor_after(info))) == ids(page)[row + 1 :]

    @pytest.mark.parametrize("cursor", ["", "x", "~", "x~", "x~a.b", "x~../y"])
    def test_cursors_that_nobody_gave(self, store: SessionStore, cursor: str) -> None:
        with pytest.raises(NousError) as caught:
            store.list_sessions(5, cursor)
        assert caught.value.code == "invalid_payload"

    @pytest.mark.parametrize(("limit", "length"), [(-1, 1), (0, 1), (1, 1), (10**9, 3)])
    def test_limits_are_bounded(self, store: SessionStore, limit: int, length: int) -> None:
        many(store, 3)
        assert len(store.list_sessions(limit).sessions) == length
        assert MAX_PAGE == 500


class TestCache:
    def test_it_is_written_when_much_has_changed_and_then_read(self, store: SessionStore, tmp_path: Path) -> None:
        many(store, 100)
        settle(tmp_path)
        first = listed(tmp_path)
        index = tmp_path / INDEX_NAME
        assert stat.S_IMODE(index.stat().st_mode) == 0o600
        assert {path.name for path in tmp_path.glob(".*")} == {INDEX_NAME, LOCK_NAME}
        disk = ReadingDisk()
        assert listed(tmp_path, disk=disk) == first
        assert disk.opened == Counter({INDEX_NAME: 1}), "no session is read"

    def test_a_few_changes_are_not_worth_writing(self, store: SessionStore, tmp_path: Path) -> None:
        many(store, 10)
        assert len(listed(tmp_path).sessions) == 10
        assert not (tmp_path / INDEX_NAME).exists()

    def test_only_what_changed_is_read_again_and_only_its_end(self, store: SessionStore, tmp_path: Path) -> None:
        many(store, 100)
        session = store.get("s007")
        append_row(session, [f"long{n}" for n in range(200)])
        settle(tmp_path)
        disk = ReadingDisk()
        index = SessionIndex(tmp_path, disk)
        index.page(1, None)
        disk.opened.clear()
        disk.read = 0
        append_at(store, "s007", "more", "2027")
        (info,) = index.page(1, None).sessions
        assert (info.session_id, info.message_count, info.leaf_id) == ("s007", 202, "more")
        assert disk.opened == {"s007.ndjson": 1}
        assert disk.read < 500

    @pytest.mark.parametrize(
        "content",
        [b"", b"\x00" * 100, b"[]", b'{"format":1}', b'{"format":9,"rows":{}}', b'{"format":1,"rows":{"', b"\xff"],
    )
    def test_a_bad_index_is_no_index(self, store: SessionStore, tmp_path: Path, content: bytes) -> None:
        many(store, 3)
        (tmp_path / INDEX_NAME).write_bytes(content)
        assert ids(listed(tmp_path)) == ["s002", "s001", "s000"]

    def test_every_cut_of_the_index_is_no_index(self, store: SessionStore, tmp_path: Path) -> None:
        many(store, 70)
        settle(tmp_path)
        whole = listed(tmp_path)
        index = tmp_path / INDEX_NAME
        data = index.read_bytes()
        for cut in range(0, len(data), 997):
            index.write_bytes(data[:cut])
            assert listed(tmp_path) == whole

    def test_it_can_be_deleted(self, store: SessionStore, tmp_path: Path) -> None:
        many(store, 70)
        settle(tmp_path)
        whole = listed(tmp_path)
        (tmp_path / INDEX_NAME).unlink()
        assert listed(tmp_path) == whole
        assert (tmp_path / INDEX_NAME).exists()

    def test_deleted_sessions_leave_it(self, store: SessionStore, tmp_path: Path) -> None:
        many(store, 70)
        index = SessionIndex(tmp_path, Disk())
        assert len(index.page(500, None).sessions) == 70
        (tmp_path / "s003.ndjson").unlink()
        assert "s003" not in ids(index.page(500, None))

    def test_a_file_that_was_replaced_is_read_anew(self, store: SessionStore, tmp_path: Path) -> None:
        """Also by one of the same size: another inode, or another time, tells."""
        append_row(store.create("s1", NOW), "ab")
        settle(tmp_path)
        index = SessionIndex(tmp_path, Disk())
        assert index.page(1, None).sessions[0].leaf_id == "b"
        path = tmp_path / "s1.ndjson"
        size = path.stat().st_size
        path.unlink()
        append_row(SessionStore(tmp_path).create("s1", NOW), "ac")
        assert path.stat().st_size == size
        assert index.page(1, None).sessions[0].leaf_id == "c"

    def test_a_change_that_size_and_time_do_not_show(self, store: SessionStore, tmp_path: Path) -> None:
        """Two changes within one tick of the clock: a file is not trusted until some time has passed."""
        path = tmp_path / "s1.ndjson"
        append_row(store.create("s1", NOW), "a")
        kept = path.read_bytes()
        append_row(store.get("s1"), "b")
        index = SessionIndex(tmp_path, Disk())
        assert index.page(1, None).sessions[0].leaf_id == "b"
        before = path.stat()
        with path.open("r+b") as file:
            file.truncate(len(kept))
        append_row(store.get("s1"), "c")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = path.stat()
        assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
        assert index.page(1, None).sessions[0].leaf_id == "c"

    def test_somebody_else_is_writing_it(self, store: SessionStore, tmp_path: Path) -> None:
        many(store, 70)
        lock = try_lock(Disk(), str(tmp_path / LOCK_NAME))
        assert lock is not None
        index = SessionIndex(tmp_path, Disk())
        assert len(index.page(500, None).sessions) == 70
        assert not (tmp_path / INDEX_NAME).exists()
        unlock(Disk(), lock)
        index.page(500, None)
        assert (tmp_path / INDEX_NAME).exists(), "what could not be written is written later"

    @pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
    @pytest.mark.parametrize("operation", ["write", "sync", "rename", "sync_directory"])
    def test_that_it_cannot_be_written_is_no_failure(
        self, store: SessionStore, tmp_path: Path, operation: str, code: int
    ) -> None:
        many(store, 70)
        disk = FaultyDisk(1, code, frozenset({operation}), stays=True)
        assert len(listed(tmp_path, 500, disk=disk).sessions) == 70
        assert disk.fired
        assert [path.name for path in tmp_path.glob(".*.tmp")] == []
        assert len(listed(tmp_path, 500).sessions) == 70

    def test_a_directory_that_cannot_be_written(self, store: SessionStore, tmp_path: Path) -> None:
        many(store, 70)
        disk = FaultyDisk(72, errno.EROFS, frozenset({"open"}))  # behind the index and 70 sessions
        assert len(listed(tmp_path, 500, disk=disk).sessions) == 70
        assert disk.fired

    def test_no_directory_but_a_file_is_an_io_failure(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(NousError) as caught:
            listed(tmp_path / "file")
        assert caught.value.code == "io_failure"

    def test_a_file_that_cannot_be_read_is_left_out_for_now(self, store: SessionStore, tmp_path: Path) -> None:
        many(store, 3)
        disk = FaultyDisk(2, errno.EACCES, frozenset({"open"}))
        index = SessionIndex(tmp_path, disk)
        assert len(index.page(9, None).sessions) == 2
        assert len(index.page(9, None).sessions) == 3

    def test_what_a_crash_left_is_swept_unless_somebody_is_at_it(self, store: SessionStore, tmp_path: Path) -> None:
        store.sweep()
        assert list(tmp_path.iterdir()) == []
        temp = tmp_path / f"{INDEX_NAME}.tmp"
        temp.touch()
        lock = try_lock(Disk(), str(tmp_path / LOCK_NAME))
        assert lock is not None
        store.sweep()
        assert temp.exists()
        unlock(Disk(), lock)
        store.sweep()
        assert not temp.exists()


@given(st.data())
def test_the_list_is_always_what_the_sessions_are(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever is appended, torn or replaced between two looks."""
    directory = tmp_path_factory.mktemp("sessions")
    store = SessionStore(directory)
    index = SessionIndex(directory, Disk())
    for number in range(data.draw(st.integers(1, 12))):
        step = data.draw(st.sampled_from(["create", "append", "append", "move", "compact", "tear", "branch"]))
        known = [info.session_id for info in listed(directory).sessions]
        if step == "create" or not known:
            store.create(f"s{number}", at(number))
            continue
        session = store.get(data.draw(st.sampled_from(known)))
        messages = list(session.messages)
        if step == "append":
            append_at(store, session.id, f"m{number}", at(data.draw(st.integers(0, 59))))
        elif step == "branch":
            store.branch(session.id, f"s{number}", at(number))
        elif step == "tear":
            with (directory / f"{session.id}.ndjson").open("ab") as file:
                file.write(b'{"type":"message",')
        elif messages and step == "move":
            target = data.draw(st.sampled_from(messages))
            session.try_append(LeafMove(id=f"l{number}", leaf_id=target, created_at=at(number)))
        elif messages:
            session.try_append(compaction(f"k{number}", data.draw(st.sampled_from(messages))))
        if data.draw(st.booleans()):
            settle(directory)
        expected = sorted(
            (
                SessionInfo(
                    session_id=s.id,
                    parent_id=s.parent_id,
                    created_at=s.created_at,
                    updated_at=s.updated_at,
                    message_count=len(s.messages),
                    leaf_id=s.leaf_id,
                    snippet="x" if s.messages else "",
                )
                for s in (SessionStore(directory).get(path.stem) for path in directory.glob("*.ndjson"))
            ),
            key=lambda info: (info.updated_at, info.session_id),
            reverse=True,
        )
        for page in (index.page(100, None), listed(directory)):
            assert page.sessions == expected
    for path in directory.glob("*.ndjson"):
        verify_chain(path, may_be_torn=True)


def test_how_far_an_index_is_behind_can_be_told_without_touching_it(tmp_path: Path) -> None:
    assert look_at_index(tmp_path) == ("absent", 0)
    store = SessionStore(tmp_path)
    for n in range(66):
        append_row(store.create(f"ses-{n}", NOW), ["m"])
        os.utime(tmp_path / f"ses-{n}.ndjson", (1_000_000, 1_000_000))
    SessionStore(tmp_path).list_sessions(1, None)
    assert look_at_index(tmp_path) == ("fresh", 0)
    (tmp_path / "ses-0.ndjson").unlink()
    os.utime(tmp_path / "ses-1.ndjson", (2_000_000, 2_000_000))
    assert look_at_index(tmp_path) == ("fresh", 2)
    for n in range(1, 66):
        (tmp_path / f"ses-{n}.ndjson").unlink()
    before = (tmp_path / INDEX_NAME).stat().st_mtime_ns
    assert look_at_index(tmp_path) == ("behind", 66)
    assert (tmp_path / INDEX_NAME).stat().st_mtime_ns == before
    (tmp_path / INDEX_NAME).write_bytes(b"{")
    assert look_at_index(tmp_path) == ("damaged", 0)
