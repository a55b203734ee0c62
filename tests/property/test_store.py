"""The store against a plain list of entries, whatever is done to it and in which order; and reading traces against
reading all of them.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nous.errors import NousError
from nous.protocol.events import ThinkingUpdate, event_line, feature_line
from nous.protocol.events import WarningEvent as Warned
from nous.protocol.messages import Message
from nous.store.disk import Disk
from nous.store.faults import FaultyDisk
from nous.store.session import Session
from nous.store.session_format import Entry, LeafMove
from nous.store.sessions import SessionStore
from nous.store.torn import TornTail
from nous.store.trace_lines import event_head
from nous.store.trace_reader import iter_events, iter_line_batches, scan
from nous.store.trace_seek import find_start, last_seq, whole_lines_end
from tests.unit.store.helpers import NOW, Tolerated, header_line, input_line, verify_chain

T = TypeVar("T")

CHOICE = st.integers(0, 1000)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


class SwitchedDisk(Disk):
    """The real disk, or for a while one that fails."""

    def __init__(self) -> None:
        self.now: Disk = Disk()

    def open(self, path: str, flags: int) -> int:
        return self.now.open(path, flags)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return self.now.write(fd, data)

    def truncate(self, fd: int, size: int) -> None:
        self.now.truncate(fd, size)

    def sync(self, fd: int) -> None:
        self.now.sync(fd)


class StoreMachine(RuleBasedStateMachine):
    """Two processes (two stores) on the same sessions; the model is one list of entries per session."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="nous-store-"))
        self.disk = SwitchedDisk()
        self.stores = [SessionStore(self.directory, disk=self.disk), SessionStore(self.directory)]
        self.model: dict[str, list[Entry]] = {}
        self.numbers = count()

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    @initialize()
    def create(self) -> None:
        session_id = f"s{next(self.numbers)}"
        self.stores[0].create(session_id, NOW)
        self.model[session_id] = []

    @rule(choice=CHOICE, who=st.sampled_from([0, 1]), parent=CHOICE, text=TEXTS, at_leaf=st.booleans())
    def append(self, choice: int, who: int, parent: int, text: str, at_leaf: bool) -> None:
        session, entries = self.pick(choice, who)
        parent_id = leaf_of(entries) if at_leaf else one_of(["", *messages_of(entries)], parent)
        self.append_entry(session, entries, self.message(parent_id, text))

    @rule(choice=CHOICE, who=st.sampled_from([0, 1]), leaf=CHOICE)
    def move_leaf(self, choice: int, who: int, leaf: int) -> None:
        session, entries = self.pick(choice, who)
        if not messages_of(entries):
            return
        leaf_id = one_of(list(messages_of(entries)), leaf)
        number = next(self.numbers)
        self.append_entry(
            session, entries, LeafMove(id=f"l{number}", parent_id=leaf_of(entries), leaf_id=leaf_id, created_at=NOW)
        )

    @rule(choice=CHOICE, which=CHOICE)
    def append_again(self, choice: int, which: int) -> None:
        session, entries = self.pick(choice, 0)
        if not entries:
            return
        with pytest.raises(NousError, match="session cannot be used"):
            session.try_append(one_of(entries, which))

    @rule(choice=CHOICE, who=st.sampled_from([0, 1]), leaf=CHOICE, whole=st.booleans())
    def branch(self, choice: int, who: int, leaf: int, whole: bool) -> None:
        session, entries = self.pick(choice, who)
        known = messages_of(entries)
        leaf_id = None if whole or not known else one_of(list(known), leaf)
        new_id = f"s{next(self.numbers)}"
        made = self.stores[who].branch(session.id, new_id, NOW, leaf_id)
        assert made.parent_id == session.id
        self.model[new_id] = list(path_of(entries, leaf_of(entries) if leaf_id is None else leaf_id))

    @rule(choice=CHOICE, who=st.sampled_from([0, 1]))
    def evict(self, choice: int, who: int) -> None:
        self.stores[who].evict(one_of(list(self.model), choice))

    @rule(who=st.sampled_from([0, 1]))
    def reopen(self, who: int) -> None:
        self.stores[who] = SessionStore(self.directory, disk=self.disk if who == 0 else None)

    @precondition(lambda self: any(self.model.values()))
    @rule(choice=CHOICE, cut=CHOICE, then=st.booleans())
    def crash_within_the_last_entry(self, choice: int, cut: int, then: bool) -> None:
        """The last line is cut at any byte; what was torn off appears aside as soon as somebody writes."""
        grown = [session_id for session_id, entries in self.model.items() if entries]
        session_id = one_of(grown, choice)
        path = self.directory / f"{session_id}.ndjson"
        data = path.read_bytes()
        start = data.rindex(b"\n", 0, -1) + 1
        if not data.endswith(b"\n"):
            return  # it is torn already
        if len(lines := verify_chain(path)) == 1 + lines[0].get("copied", 0):
            return  # a branch that was never finished is no session: the unit tests see to that
        at = start + cut % (len(data) - start)
        path.write_bytes(data[:at])
        self.model[session_id].pop()
        if then:
            entries = self.model[session_id]
            session = self.stores[1].get(session_id)
            recovered = self.append_entry(session, entries, self.message(leaf_of(entries), "after"))
            assert [Path(torn.path).read_bytes() for torn in recovered] == [data[start:at]][: at > start]

    @rule(choice=CHOICE, at=st.integers(1, 8), code=st.sampled_from([errno.EIO, errno.ENOSPC]))
    def append_on_a_failing_disk(self, choice: int, at: int, code: int) -> None:
        session, entries = self.pick(choice, 0)
        entry = self.message(leaf_of(entries), "faulty")
        self.disk.now = FaultyDisk(at, code)
        with Tolerated("io_failure"):
            session.try_append(entry)
            session.sync()
            entries.append(entry)
        self.disk.now = Disk()

    @invariant()
    def every_session_is_what_the_model_says(self) -> None:
        for store in self.stores:
            for session_id, entries in self.model.items():
                session = store.get(session_id)
                assert [known.message for known in session.messages.values()] == list(messages_of(entries).values())
                assert session.leaf_id == leaf_of(entries)
                assert [known.message for known in session.path()] == path_of(entries, session.leaf_id)

    @rule(choice=CHOICE, who=st.sampled_from([0, 1]), leaf=CHOICE)
    def ask_for_a_path(self, choice: int, who: int, leaf: int) -> None:
        session, entries = self.pick(choice, who)
        leaf_id = one_of(["", *messages_of(entries)], leaf)
        assert [known.message for known in session.path(leaf_id)] == path_of(entries, leaf_id)

    def pick(self, choice: int, who: int) -> tuple[Session, list[Entry]]:
        session_id = one_of(list(self.model), choice)
        return self.stores[who].get(session_id), self.model[session_id]

    def message(self, parent_id: str, text: str) -> Message:
        return Message(id=f"m{next(self.numbers)}", parent_id=parent_id, role="user", text=text, created_at=NOW)

    def append_entry(self, session: Session, entries: list[Entry], entry: Entry) -> list[TornTail]:
        """Append as a run does; return the torn tails that were cut on the way."""
        assert session.try_append(entry)
        session.sync()
        entries.append(entry)
        verify_chain(self.directory / f"{session.id}.ndjson")
        return session.take_recovered()


def one_of(items: list[T], choice: int) -> T:
    return items[choice % len(items)]


def messages_of(entries: list[Entry]) -> dict[str, Message]:
    return {entry.id: entry for entry in entries if isinstance(entry, Message)}


def leaf_of(entries: list[Entry]) -> str:
    if not entries:
        return ""
    last = entries[-1]
    return last.id if isinstance(last, Message) else last.leaf_id


def path_of(entries: list[Entry], leaf_id: str) -> list[Message]:
    known = messages_of(entries)
    path: list[Message] = []
    while leaf_id:
        path.insert(0, known[leaf_id])
        leaf_id = known[leaf_id].parent_id
    return path


TestStore = StoreMachine.TestCase
TestStore.settings = settings(stateful_step_count=40)


TS = NOW.encode()
SIZES = st.sampled_from([0, 10, 300, 5_000, 70_000])
"""Some lines are longer than what one look into the file takes."""


@st.composite
def trace_lines(draw: st.DrawFn) -> list[bytes]:
    """A trace: events in order, feature events after them, inputs of any size between."""
    lines = [header_line("r1")]
    seq = 0
    for kind, size in draw(st.lists(st.tuples(st.sampled_from("eefffi"), SIZES), max_size=60)):
        text = "x" * size
        if kind == "e":
            seq += 1
            lines.append(event_line(b"r1", seq, TS, Warned(code="c", message=text)))
        elif kind == "f":
            thought = ThinkingUpdate(run_id="r1", turn_id="1", message_id="m", delta=text)
            lines.append(feature_line(b"r1", seq, len(lines), TS, thought))
        else:
            lines.append(input_line(len(lines), seq, data=f'"{text}"'))
    return lines


@given(trace_lines(), st.integers(0, 60), st.sampled_from([frozenset[str](), frozenset({"thinking"})]), st.data())
def test_events_after_a_point_are_those_of_the_whole_file(
    lines: list[bytes], after_seq: int, features: frozenset[str], data: st.DataObject
) -> None:
    blob = b"".join(lines)
    end = data.draw(st.one_of(st.none(), st.integers(0, len(blob))))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "r1.ndjson"
        path.write_bytes(blob)
        got = list(iter_events(path, after_seq, features, end))
        summary = scan(path, lambda epoch: False)
        batches = list(iter_line_batches(path))
    whole = (blob if end is None else blob[:end]).split(b"\n")[:-1]
    heads = [(event_head(line), line + b"\n") for line in whole]
    assert got == [line for head, line in heads if head is not None and head.is_wanted(after_seq, features)]
    assert summary.events == sum(1 for line in lines if (head := event_head(line)) and not head.feature)
    assert [line + b"\n" for batch in batches for line in batch] == lines


@given(trace_lines(), st.integers(0, 60), st.sampled_from([1, 7, 64, 1000, 64 * 1024]), st.data())
def test_places_are_found_whatever_one_look_takes(
    lines: list[bytes], after_seq: int, window_bytes: int, data: st.DataObject
) -> None:
    blob = b"".join(lines)
    end = data.draw(st.integers(0, len(blob)))
    with tempfile.TemporaryFile() as file:
        file.write(blob)
        file.flush()
        start = find_start(file.fileno(), after_seq, end, window_bytes)
        whole = whole_lines_end(file.fileno(), end, window_bytes)
        seq = last_seq(file.fileno(), whole, window_bytes)
    assert whole == blob.rfind(b"\n", 0, end) + 1
    assert seq == max((head.seq for line in blob[:whole].split(b"\n") if (head := event_head(line))), default=0)
    assert start == 0 or blob[start - 1 : start] == b"\n"
    skipped = [head for line in blob[:start].split(b"\n") if (head := event_head(line))]
    assert not any(head.is_wanted(after_seq, frozenset({"thinking"})) for head in skipped)
    kept = [head for line in blob[start:end].split(b"\n") if (head := event_head(line))]
    if window_bytes == 1 and after_seq > 0 and len(kept) > 3:
        assert kept[2].seq >= after_seq, "what is skipped is all but the last look"
