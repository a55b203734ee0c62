"""Sessions over files: what is made, found, shared between processes, recovered and refused."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from nous.errors import NousError
from nous.protocol.entries import ModelChange
from nous.store.disk import Disk
from nous.store.locks import LockProfile, try_lock, unlock
from nous.store.session_format import ORIGIN, LeafMove, SessionHeader, encode_line
from nous.store.sessions import SessionStore
from tests.unit.store.helpers import LATER, NOW, append_row, compaction, message, path_ids, verify_chain

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path)


def other(tmp_path: Path) -> SessionStore:
    """Another process's store, as far as the disk can tell."""
    return SessionStore(tmp_path)


def refused(store: SessionStore, session_id: str) -> tuple[str, str | None]:
    with pytest.raises(NousError) as caught:
        store.get(session_id)
    return caught.value.code, caught.value.cause


def move(move_id: str, leaf_id: str, parent_id: str = "") -> LeafMove:
    return LeafMove(id=move_id, parent_id=parent_id, leaf_id=leaf_id, created_at=LATER)


class FlickeringDisk(Disk):
    """Gives wrong bytes for some of the reads that go on behind what is known."""

    flickers = 0

    def read_at(self, fd: int, count: int, offset: int) -> bytes:
        data = super().read_at(fd, count, offset)
        if self.flickers and offset and count > 100:
            self.flickers -= 1
            return data[:-2] + b"?\n"
        return data


class TestMaking:
    def test_a_new_session_is_a_file(self, store: SessionStore, tmp_path: Path) -> None:
        session = store.create("s1", NOW)
        session.sync()
        assert (session.id, session.parent_id, session.created_at, session.leaf_id) == ("s1", "", NOW, "")
        assert session.updated_at == NOW
        assert len(session.path()) == 0
        path = tmp_path / "s1.ndjson"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [entry["type"] for entry in verify_chain(path)] == ["session"]
        assert {p.name for p in tmp_path.iterdir()} == {"s1.lock", "s1.ndjson"}
        assert store.get("s1") is session

    def test_an_id_is_taken_once(self, store: SessionStore, tmp_path: Path) -> None:
        append_row(store.create("s1", NOW), "a")
        before = (tmp_path / "s1.ndjson").read_bytes()
        with pytest.raises(NousError) as caught:
            other(tmp_path).create("s1", LATER)
        assert caught.value.code == "session_error"
        assert (tmp_path / "s1.ndjson").read_bytes() == before

    @pytest.mark.parametrize("session_id", ["", ".", "..", "../x", "a/b", "a.b", "a\n", "ü", "a b", "x" * 129])
    def test_ids_that_are_no_safe_names(self, store: SessionStore, tmp_path: Path, session_id: str) -> None:
        with pytest.raises(NousError) as caught:
            store.create(session_id, NOW)
        assert caught.value.code == "session_error"
        assert not store.exists(session_id)
        assert refused(store, session_id)[0] == "session_not_found"
        assert list(tmp_path.iterdir()) == []

    def test_the_longest_id(self, store: SessionStore) -> None:
        session_id = "aZ0_-" * 25 + "abc"
        store.create(session_id, NOW)
        assert store.exists(session_id)

    def test_without_its_directory_nothing_exists(self, tmp_path: Path) -> None:
        store = SessionStore(tmp_path / "no")
        assert not store.exists("s1")
        assert refused(store, "s1")[0] == "session_not_found"
        with pytest.raises(NousError) as caught:
            store.create("s1", NOW)
        assert caught.value.code == "io_failure"


class TestAppending:
    def test_entries_are_read_back(self, store: SessionStore, tmp_path: Path) -> None:
        session = store.create("s1", NOW)
        append_row(session, "abc")
        assert session.try_append(move("m1", "a", "c"))
        append_row(session, "d")
        entries = verify_chain(tmp_path / "s1.ndjson")
        assert [(e["n"], e["id"]) for e in entries] == [(0, "s1"), (1, "a"), (2, "b"), (3, "c"), (4, "m1"), (5, "d")]
        for seen in (session, other(tmp_path).get("s1")):
            assert seen.leaf_id == "d"
            assert path_ids(seen) == ["a", "d"]
            assert path_ids(seen, "c") == ["a", "b", "c"]
            assert list(seen.messages) == ["a", "b", "c", "d"]
            assert seen.messages["d"].message == message("d", "a")

    def test_the_active_leaf_survives(self, store: SessionStore, tmp_path: Path) -> None:
        session = store.create("s1", NOW)
        append_row(session, "ab")
        session.try_append(move("m1", "a"))
        again = other(tmp_path).get("s1")
        assert (again.leaf_id, again.updated_at) == ("a", LATER)

    def test_nothing_is_left_open(self, store: SessionStore) -> None:
        before = len(list(Path("/dev/fd").iterdir()))
        session = store.create("s1", NOW)
        append_row(session, "abc")
        session.sync()
        store.get("s1")
        assert len(list(Path("/dev/fd").iterdir())) == before

    def test_compactions_are_read_back(self, store: SessionStore, tmp_path: Path) -> None:
        session = store.create("s1", NOW)
        append_row(session, "abc")
        assert session.try_append(compaction("k1", "c", "b"))
        assert session.try_append(ModelChange(id="p1", parent_id="c", provider="x", model="y", created_at=NOW))
        append_row(session, "d")
        for seen in (session, other(tmp_path).get("s1")):
            assert seen.leaf_id == "d"
            assert path_ids(seen) == ["k1", "b", "c", "d"]
            assert [known.message.id for known in seen.path("d", "")] == ["a", "b", "c", "d"]
            assert [known.message.id for known in seen.full_path()] == ["a", "b", "c", "d"]
            assert [known.message.id for known in seen.full_path("b")] == ["a", "b"]
            assert list(seen.messages) == ["a", "b", "c", "d"]
            assert seen.compaction(seen.path().compaction_id) == compaction("k1", "c", "b")
            assert seen.compaction("") is None
            change = seen.model_at("d")
            assert change is not None
            assert change.model == "y"
        verify_chain(tmp_path / "s1.ndjson")

    def test_what_another_process_compacts_holds_here_too(self, store: SessionStore, tmp_path: Path) -> None:
        mine = store.create("s1", NOW)
        append_row(mine, "abc")
        path = mine.path()
        other(tmp_path).get("s1").try_append(compaction("k1", "c", "c"))
        assert path_ids(mine) == ["a", "b", "c"]
        store.get("s1")
        assert path_ids(mine) == ["k1", "c"]
        assert [known.message.id for known in path] == ["a", "b", "c"]

    @pytest.mark.parametrize(
        "entry", [message("a"), message("x", "y"), message("m1"), move("a", "a"), move("m2", "x"), message("")]
    )
    def test_what_does_not_fit_is_refused_unwritten(self, store: SessionStore, tmp_path: Path, entry: LeafMove) -> None:
        session = store.create("s1", NOW)
        append_row(session, "a")
        session.try_append(move("m1", "a"))
        before = (tmp_path / "s1.ndjson").read_bytes()
        with pytest.raises(NousError) as caught:
            session.try_append(entry)
        assert caught.value.code == "session_error"
        assert (tmp_path / "s1.ndjson").read_bytes() == before
        append_row(session, "b")

    def test_what_could_not_be_read_back_is_not_written(
        self, store: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nous.store.session.MAX_LINE_BYTES", 500)
        session = store.create("s1", NOW)
        with pytest.raises(NousError) as caught:
            session.try_append(message("a", text="x" * 500))
        assert caught.value.code == "session_error"
        assert len(verify_chain(tmp_path / "s1.ndjson")) == 1

    def test_unknown_leaves_are_refused(self, store: SessionStore) -> None:
        session = store.create("s1", NOW)
        for ask in (session.path, session.full_path):
            with pytest.raises(NousError) as caught:
                ask("x")
            assert caught.value.code == "command_rejected"

    def test_a_deleted_session_is_gone(self, store: SessionStore, tmp_path: Path) -> None:
        session = store.create("s1", NOW)
        (tmp_path / "s1.ndjson").unlink()
        with pytest.raises(NousError) as caught:
            session.try_append(message("a"))
        assert caught.value.code == "session_not_found"
        assert refused(store, "s1")[0] == "session_not_found"
        assert not store.exists("s1")


class TestSharing:
    def test_each_sees_what_the_other_appended(self, store: SessionStore, tmp_path: Path) -> None:
        mine = store.create("s1", NOW)
        theirs = other(tmp_path).get("s1")
        append_row(mine, "ab")
        assert theirs.leaf_id == "", "nothing is read unasked"
        append_row(theirs, "x")
        assert theirs.messages["x"].message.parent_id == ""
        assert theirs.try_append(message("y", "b")), "what others appended counts when appending"
        assert store.get("s1") is mine
        assert path_ids(mine) == ["a", "b", "y"]
        verify_chain(tmp_path / "s1.ndjson")

    def test_an_id_that_another_took_is_refused(self, store: SessionStore, tmp_path: Path) -> None:
        mine = store.create("s1", NOW)
        append_row(other(tmp_path).get("s1"), "a")
        with pytest.raises(NousError) as caught:
            mine.try_append(message("a"))
        assert caught.value.code == "session_error"
        assert path_ids(mine) == ["a"]

    def test_a_replaced_file_is_read_anew(self, store: SessionStore, tmp_path: Path) -> None:
        mine = store.create("s1", NOW)
        append_row(mine, "ab")
        header, link = encode_line(SessionHeader(format=1, id="s1", created_at=LATER), ORIGIN)
        line, _ = encode_line(message("z"), link)
        (tmp_path / "new").write_bytes(header + line)
        (tmp_path / "new").rename(tmp_path / "s1.ndjson")
        append_row(mine, "")
        assert mine.try_append(message("c", "z"))
        assert (mine.created_at, path_ids(mine)) == (LATER, ["z", "c"])
        assert [e["id"] for e in verify_chain(tmp_path / "s1.ndjson")] == ["s1", "z", "c"]

    def test_a_file_rewritten_to_the_same_size_is_read_anew(self, store: SessionStore, tmp_path: Path) -> None:
        """Another process took an entry back and appended one of equal length."""
        path = tmp_path / "s1.ndjson"
        mine = store.create("s1", NOW)
        append_row(mine, "a")
        kept = path.stat().st_size
        append_row(mine, "b")
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.truncate(kept)
        append_row(other(tmp_path).get("s1"), "c")
        assert path.stat().st_size == size
        append_row(mine, "")
        assert mine.try_append(message("d", "c"))
        assert path_ids(mine) == ["a", "c", "d"]
        verify_chain(path)

    def test_a_shrunk_file_is_read_anew(self, store: SessionStore, tmp_path: Path) -> None:
        path = tmp_path / "s1.ndjson"
        mine = store.create("s1", NOW)
        append_row(mine, "a")
        kept = path.read_bytes()
        append_row(mine, "b")
        path.write_bytes(kept)
        append_row(other(tmp_path).get("s1"), ["a-long-name"])
        assert path_ids(store.get("s1")) == ["a", "a-long-name"]

    @pytest.mark.parametrize(("is_known", "flickers"), [(True, 1), (True, 2), (False, 1)])
    def test_a_tail_that_is_rewritten_while_it_is_read(
        self, store: SessionStore, tmp_path: Path, is_known: bool, flickers: int
    ) -> None:
        """What others cut and write over looks damaged for a moment; only what stays so is damage."""
        append_row(store.create("s1", NOW), "a")
        disk = FlickeringDisk()
        reader = SessionStore(tmp_path, disk=disk)
        if is_known:
            assert path_ids(reader.get("s1")) == ["a"]
        append_row(store.get("s1"), "b")
        disk.flickers = flickers
        assert path_ids(reader.get("s1")) == ["a", "b"]
        assert disk.flickers == 0

    def test_a_header_of_another_session_is_refused(self, store: SessionStore, tmp_path: Path) -> None:
        store.create("s1", NOW)
        (tmp_path / "s1.ndjson").rename(tmp_path / "s2.ndjson")
        code, cause = refused(store, "s2")
        assert code == "session_corrupt"
        assert cause == "s2.ndjson, line 1: it names the session 's1'"


class TestContention:
    async def test_a_held_lock_is_not_waited_for(self, store: SessionStore, tmp_path: Path) -> None:
        session = store.create("s1", NOW)
        lock = try_lock(Disk(), str(tmp_path / "s1.lock"))
        assert lock is not None
        assert not session.try_append(message("a"))
        assert len(session.messages) == 0
        unlock(Disk(), lock)
        await session.append(message("a"))
        assert path_ids(session) == ["a"]

    async def test_waiting_ends_in_contention(self, tmp_path: Path) -> None:
        session = SessionStore(tmp_path, profile=LockProfile(timeout_ms=10, retry_ms=5)).create("s1", NOW)
        lock = try_lock(Disk(), str(tmp_path / "s1.lock"))
        assert lock is not None
        with pytest.raises(NousError) as caught:
            await session.append(message("a"))
        unlock(Disk(), lock)
        assert caught.value.code == "state_contention"
        assert set(caught.value.data) == {"waited_ms", "attempts", "owner_pid", "held_ms"}
        assert len(session.messages) == 0

    def test_readers_do_not_mind_the_lock(self, store: SessionStore, tmp_path: Path) -> None:
        append_row(store.create("s1", NOW), "a")
        lock = try_lock(Disk(), str(tmp_path / "s1.lock"))
        assert lock is not None
        assert path_ids(other(tmp_path).get("s1")) == ["a"]
        unlock(Disk(), lock)


class TestTornTails:
    def test_a_torn_tail_is_kept_aside_and_reported_once(self, store: SessionStore, tmp_path: Path) -> None:
        session = store.create("s1", NOW)
        append_row(session, "a")
        path = tmp_path / "s1.ndjson"
        whole = path.read_bytes()
        for number, torn in enumerate([b'{"type":"mess', b"\x00" * 40], start=1):
            with path.open("ab") as file:
                file.write(torn)
            assert path_ids(other(tmp_path).get("s1")) == path_ids(session), "readers repair nothing"
            assert path.read_bytes() == whole + torn
            append_row(session, [f"b{number}"])
            assert [(Path(t.path).name, t.size) for t in session.take_recovered()] == [
                (f"s1.ndjson.torn-{number}", len(torn))
            ]
            assert session.take_recovered() == []
            kept = tmp_path / f"s1.ndjson.torn-{number}"
            assert kept.read_bytes() == torn
            assert stat.S_IMODE(kept.stat().st_mode) == 0o600
            whole = path.read_bytes()
        verify_chain(path)
        assert path_ids(session) == ["a", "b1", "b2"]

    def test_every_cut_within_the_last_entry(self, store: SessionStore, tmp_path: Path) -> None:
        append_row(store.create("s1", NOW), "abc")
        path = tmp_path / "s1.ndjson"
        data = path.read_bytes()
        start = data.rindex(b"\n", 0, -1) + 1
        for cut in range(start, len(data)):
            path.write_bytes(data[:cut])
            session = other(tmp_path).get("s1")
            assert path_ids(session) == ["a", "b"]
            append_row(session, "d")
            assert [torn.size for torn in session.take_recovered()] == [cut - start][: cut > start]
            assert [e["id"] for e in verify_chain(path)] == ["s1", "a", "b", "d"]

    def test_every_cut_within_the_header_is_no_session(self, store: SessionStore, tmp_path: Path) -> None:
        store.create("s1", NOW)
        path = tmp_path / "s1.ndjson"
        data = path.read_bytes()
        for cut in range(len(data)):
            path.write_bytes(data[:cut])
            assert refused(other(tmp_path), "s1") == ("session_not_found", "s1")


class TestDamage:
    @pytest.fixture
    def path(self, store: SessionStore, tmp_path: Path) -> Path:
        append_row(store.create("s1", NOW), "abc")
        append_row(store.create("s2", NOW), "a")
        return tmp_path / "s1.ndjson"

    @pytest.mark.parametrize("line", [1, 2, 3, 4])
    def test_a_changed_byte_anywhere_names_its_line(self, path: Path, tmp_path: Path, line: int) -> None:
        data = path.read_bytes()
        lines = data.split(b"\n")
        start = sum(len(text) + 1 for text in lines[: line - 1])
        for at in range(start, start + len(lines[line - 1])):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            code, cause = refused(other(tmp_path), "s1")
            assert code == "session_corrupt"
            assert cause is not None
            assert cause.startswith(f"s1.ndjson, line {line}: ")
        assert path_ids(other(tmp_path).get("s2")) == ["a"], "the others work"

    @pytest.mark.parametrize(
        ("edit", "line"),
        [
            (lambda lines: [lines[0], *lines[2:]], 2),
            (lambda lines: [*lines[:2], lines[1], *lines[2:]], 3),
            (lambda lines: [lines[0], lines[2], lines[1], lines[3], b""], 2),
            (lambda lines: [*lines[:2], b"", *lines[2:]], 3),
            (lambda lines: [*lines[:3], b"{}", b""], 4),
            (lambda lines: [b"", *lines], 1),
        ],
    )
    def test_moved_lines_are_damage(self, path: Path, tmp_path: Path, edit: object, line: int) -> None:
        assert callable(edit)
        path.write_bytes(b"\n".join(edit(path.read_bytes().split(b"\n"))))
        code, cause = refused(other(tmp_path), "s1")
        assert code == "session_corrupt"
        assert cause is not None
        assert cause.startswith(f"s1.ndjson, line {line}: ")

    def test_a_damaged_session_takes_no_more(self, path: Path, store: SessionStore) -> None:
        session = store.get("s1")
        damaged = path.read_bytes().replace(b'"text":"b"', b'"text":"B"')
        path.write_bytes(damaged[:-3] + b'x"}\n')
        with pytest.raises(NousError) as caught:
            session.try_append(message("d", "c"))
        assert caught.value.code == "session_corrupt"
        assert refused(store, "s1")[0] == "session_corrupt"

    def test_intact_lines_that_do_not_fit_the_tree(self, path: Path, tmp_path: Path) -> None:
        header, link = encode_line(SessionHeader(format=1, id="s1", created_at=NOW), ORIGIN)
        line, _ = encode_line(message("b", "a"), link)
        path.write_bytes(header + line)
        assert refused(other(tmp_path), "s1") == (
            "session_corrupt",
            "s1.ndjson, line 2: there is no message 'a' to follow",
        )

    def test_what_a_newer_version_wrote_is_not_damage(self, path: Path, tmp_path: Path) -> None:
        header, link = encode_line(SessionHeader(format=1, id="s1", created_at=NOW), ORIGIN)
        line, _ = encode_line(SessionHeader(format=1, id="nested", created_at=NOW), link)
        path.write_bytes(header + line)
        code, cause = refused(other(tmp_path), "s1")
        assert code == "session_error"
        assert cause is not None
        assert cause.startswith("s1.ndjson, line 2: ")
        path.write_bytes(encode_line(SessionHeader(format=9, id="s1", created_at=NOW), ORIGIN)[0])
        assert refused(other(tmp_path), "s1")[0] == "session_error"

    def test_a_directory_in_its_place_is_an_io_failure(self, store: SessionStore, tmp_path: Path) -> None:
        (tmp_path / "s3.ndjson").mkdir()
        assert refused(store, "s3")[0] == "io_failure"
        assert not store.exists("s3")


class TestBranching:
    def test_a_branch_starts_with_the_path(self, store: SessionStore, tmp_path: Path) -> None:
        source = store.create("s1", NOW)
        append_row(source, "abc")
        source.try_append(move("m1", "a"))
        append_row(source, "d")
        whole = store.branch("s1", "s2", LATER)
        part = store.branch("s1", "s3", LATER, "b")
        assert (whole.parent_id, whole.created_at, path_ids(whole)) == ("s1", LATER, ["a", "d"])
        assert (part.leaf_id, path_ids(part)) == ("b", ["a", "b"])
        part.sync()
        append_row(part, "x")
        again = other(tmp_path).get("s3")
        assert (again.parent_id, path_ids(again)) == ("s1", ["a", "b", "x"])
        assert again.messages["a"].message == source.messages["a"].message
        assert path_ids(store.get("s1")) == ["a", "d"]
        verify_chain(tmp_path / "s3.ndjson")

    def test_a_branch_sees_what_others_appended(self, store: SessionStore, tmp_path: Path) -> None:
        store.create("s1", NOW)
        append_row(other(tmp_path).get("s1"), "a")
        assert path_ids(store.branch("s1", "s2", NOW)) == ["a"]

    def test_a_branch_is_compacted_where_its_source_is(self, store: SessionStore, tmp_path: Path) -> None:
        source = store.create("s1", NOW)
        append_row(source, "ab")
        source.try_append(compaction("k1", "b", "b"))
        append_row(source, "c")
        source.try_append(message("x", "a"))
        source.try_append(compaction("k2", "x", "a"))
        source.try_append(ModelChange(id="p1", parent_id="c", provider="x", model="y", created_at=NOW))
        store.branch("s1", "s2", LATER, "c")
        store.branch("s1", "s3", LATER, "b")
        store.branch("s1", "s4", LATER, "a")
        again = other(tmp_path)
        assert path_ids(again.get("s2")) == ["k1", "b", "c"]
        assert [known.message.id for known in again.get("s2").full_path()] == ["a", "b", "c"]
        assert again.get("s2").model_at("c") == source.model_at("c") is not None
        assert (path_ids(again.get("s3")), again.get("s3").leaf_id) == (["k1", "b"], "b")
        assert again.get("s3").model_at("b") is None
        assert path_ids(again.get("s4")) == ["a"]
        verify_chain(tmp_path / "s2.ndjson")

    def test_a_branch_of_nothing(self, store: SessionStore) -> None:
        store.create("s1", NOW)
        assert path_ids(store.branch("s1", "s2", NOW)) == []

    @pytest.mark.parametrize(
        ("source", "leaf", "code"), [("no", None, "session_not_found"), ("s1", "x", "command_rejected")]
    )
    def test_what_is_not_there_is_refused_unwritten(
        self, store: SessionStore, tmp_path: Path, source: str, leaf: str | None, code: str
    ) -> None:
        store.create("s1", NOW)
        with pytest.raises(NousError) as caught:
            store.branch(source, "s2", NOW, leaf)
        assert caught.value.code == code
        assert not (tmp_path / "s2.ndjson").exists()

    def test_a_branch_that_was_cut_is_no_session(self, store: SessionStore, tmp_path: Path) -> None:
        append_row(store.create("s1", NOW), "ab")
        store.branch("s1", "s2", NOW)
        path = tmp_path / "s2.ndjson"
        data = path.read_bytes()
        for cut in range(0, len(data), 7):
            path.write_bytes(data[:cut])
            assert refused(other(tmp_path), "s2") == ("session_not_found", "s2")


class TestMemory:
    def test_sessions_in_use_stay_the_same_object(self, store: SessionStore) -> None:
        first = store.create("s0", NOW)
        for n in range(1, 100):
            store.create(f"s{n}", NOW)
        assert store.get("s0") is first

    def test_sessions_out_of_use_are_forgotten(self, store: SessionStore) -> None:
        for n in range(100):
            store.create(f"s{n}", NOW)
        assert len(store._live) < 40

    def test_evicted_sessions_are_read_again(self, store: SessionStore) -> None:
        session = store.create("s1", NOW)
        append_row(session, "a")
        store.evict("s1")
        store.evict("unknown")
        again = store.get("s1")
        assert again is not session
        assert path_ids(again) == ["a"]
        append_row(session, "b")
        assert path_ids(store.get("s1")) == ["a", "b"], "both go on through the file"
