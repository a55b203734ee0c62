"""Nothing of the store holds the interpreter's lock for long, also where it works in a thread beside the event loop."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
import pytest

from nous.ports.model import ContextMessage
from nous.protocol.entries import Compaction, SessionInfo
from nous.store.disk import Disk, replace_file
from nous.store.session import Session
from nous.store.session_index import INDEX_NAME, SessionIndex, _encoded, _read_index, _Row, look_at_index
from nous.store.session_scan import Scan
from nous.store.session_tree import SessionTree
from nous.store.sessions import SessionStore
from nous.system.steps import complete
from tests.unit.store.helpers import NOW, message

ROWS: Final = 20_000
MAX_PIECE_BYTES: Final = 1024 * 1024


class MeasuringDisk(Disk):
    """Notes the longest piece that is read or written at once."""

    longest = 0
    total = 0

    def read_at(self, fd: int, count: int, offset: int) -> bytes:
        self.longest = max(self.longest, count)
        return super().read_at(fd, count, offset)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self.longest = max(self.longest, len(data))
        self.total += len(data)
        return super().write(fd, data)


def row(number: int) -> _Row:
    info = SessionInfo(session_id=f"s{number}", created_at=NOW, updated_at=NOW, message_count=2, snippet="word " * 12)
    return _Row(f"s{number}", (1, 2, 3), Scan(end=400, seal="0" * 34, info=info))


def test_a_large_index_is_written_and_read_in_pieces_and_decoded_by_line(tmp_path: Path) -> None:
    disk = MeasuringDisk()
    rows = {f"s{number}": row(number) for number in range(ROWS)}
    replace_file(disk, str(tmp_path / INDEX_NAME), _encoded(rows))
    assert disk.total > 3 * MAX_PIECE_BYTES
    assert _read_index(disk, str(tmp_path)) == rows
    assert disk.longest <= MAX_PIECE_BYTES
    assert max(map(len, (tmp_path / INDEX_NAME).read_bytes().splitlines())) < 1000
    assert SessionIndex(tmp_path, disk).page(9, None).sessions == []
    assert (tmp_path / INDEX_NAME).read_bytes() == b'{"format":2,"rows":0}\n', "so much had changed"


def test_an_index_of_another_format_is_made_anew(tmp_path: Path) -> None:
    SessionStore(tmp_path).create("s1", NOW)
    (tmp_path / INDEX_NAME).write_bytes(b'{"format":1,"rows":{' + b" " * 100_000 + b"}}")
    assert look_at_index(tmp_path) == ("behind", 1)
    assert len(SessionIndex(tmp_path, Disk()).page(9, None).sessions) == 1


def test_a_fifo_in_the_place_of_the_index_is_no_index(tmp_path: Path) -> None:
    SessionStore(tmp_path).create("s1", NOW)
    os.mkfifo(tmp_path / INDEX_NAME)
    assert len(SessionIndex(tmp_path, Disk()).page(9, None).sessions) == 1


def long_tree(count: int) -> SessionTree:
    tree = SessionTree()
    for number in range(count):
        tree.add(message(f"m{number}", f"m{number - 1}" if number else ""))
    return tree


def test_a_long_path_takes_many_steps_and_then_none() -> None:
    tree = long_tree(10_000)
    steps = tree.path_in_steps("m9999")
    count = sum(1 for _ in steps)
    assert count > 10
    assert sum(1 for _ in tree.path_in_steps("m9999")) >= 9, "it is measured again, but not walked"
    assert len(tree.path("m9999")) == 10_000


def test_a_compaction_made_while_a_path_is_walked_is_in_force() -> None:
    tree = long_tree(5_000)
    steps = tree.path_in_steps("m4999")
    next(steps)
    tree.add(
        Compaction(
            id="c1",
            parent_id="m4999",
            first_kept_entry_id="m4998",
            summary="so far",
            tokens_before=1,
            by="deterministic",
            trigger="manual",
            created_at=NOW,
        )
    )
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        view = stop.value
    assert [item.message.id for item in view][1:] == ["m4998", "m4999"]
    assert view.compaction_id == "c1"


def test_one_path_under_two_names_grows_once() -> None:
    tree = long_tree(3)
    assert len(tree.path("m2")) == len(tree.path("m2", "")) == 3
    tree.add(message("m3", "m2"))
    assert [item.message.id for item in tree.path("m3")] == ["m0", "m1", "m2", "m3"]
    assert [item.message.id for item in tree.path("m3", "")] == ["m0", "m1", "m2", "m3"]


def test_messages_are_nothing_the_collector_looks_at() -> None:
    assert not gc.is_tracked(ContextMessage(message("m")))


class Cyclic:
    """What an adapter may leave at a message: it leads back to it."""

    def __init__(self, entry: ContextMessage) -> None:
        self.entry = entry


@pytest.mark.anyio
async def test_a_session_that_is_let_go_is_freed_in_steps(tmp_path: Path) -> None:
    store = SessionStore(tmp_path)
    session = store.create("s1", NOW)
    for number in range(1200):
        assert session.try_append(message(f"m{number}", session.leaf_id))
    marks = []
    for entry in session.messages.values():
        entry.before = Cyclic(entry)
        marks.append(weakref.ref(entry.before))
    gone: weakref.ref[Session] = weakref.ref(session)
    del session, entry
    store.evict("s1")
    assert gone() is None
    assert all(mark() is not None for mark in marks), "not within the call"
    left = [len(marks)]
    while left[-1]:
        await anyio.lowlevel.checkpoint()
        left.append(sum(mark() is not None for mark in marks))
    assert len(set(left)) > 2, left


def test_a_path_without_images_is_freed_with_its_messages() -> None:
    tree = long_tree(3)
    shown = tree.path("m2").shown(["m1"])
    marks = []
    for entry in shown:
        assert entry is not tree.messages[entry.message.id]
        entry.before = Cyclic(entry)
        marks.append(weakref.ref(entry.before))
    del shown, entry
    assert all(mark() is not None for mark in marks), "the path keeps it"
    tree.path("m2").shown(["m0"])
    assert not any(mark() is not None for mark in marks)


def test_without_a_loop_it_is_freed_at_once(tmp_path: Path) -> None:
    store = SessionStore(tmp_path)
    session = store.create("s1", NOW)
    assert session.try_append(message("a"))
    entry = session.messages["a"]
    entry.before = Cyclic(entry)
    mark = weakref.ref(entry.before)
    del session, entry
    store.evict("s1")
    assert mark() is None


def test_a_branch_of_a_long_session_is_made_in_many_steps(tmp_path: Path) -> None:
    store = SessionStore(tmp_path)
    session = store.create("s1", NOW)
    text = "x" * 50_000
    for number in range(40):
        assert session.try_append(message(f"m{number}", session.leaf_id, text))
    steps = store._branch(session, "s2", NOW, None)
    for _ in range(3):
        next(steps)
    assert not store.exists("s2")
    steps.close()
    assert {path.suffix for path in tmp_path.iterdir() if "s2" in path.name} <= {".lock"}
    complete(store._branch(session, "s2", NOW, None))
    assert len(SessionStore(tmp_path).get("s2").path()) == 40
