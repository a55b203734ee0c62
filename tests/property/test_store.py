"""The store against a plain list of entries, whatever is done to it and in which order; and reading traces against
reading all of them.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nous.errors import NousError
from nous.ports.model import ContextMessage
from nous.protocol.entries import Compaction, ModelChange
from nous.protocol.events import ThinkingUpdate, event_line, feature_line
from nous.protocol.events import WarningEvent as Warned
from nous.protocol.messages import Message
from nous.store.disk import Disk
from nous.store.faults import FaultyDisk
from nous.store.session import Session
from nous.store.session_format import Checkpoint, Entry, LeafMove
from nous.store.sessions import SessionStore
from nous.store.torn import TornTail
from nous.store.trace_lines import event_head
from nous.store.trace_reader import iter_events, iter_line_batches, scan
from nous.store.trace_seek import find_start, last_seq, whole_lines_end
from nous.store.verify import verify_session
from tests.unit.store.helpers import NOW, Tolerated, compaction, header_line, input_line, verify_chain

T = TypeVar("T")

CHOICE = st.integers(0, 1000)
WHO = st.sampled_from([0, 1])
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

    def rename(self, source: str, target: str) -> None:
        self.now.rename(source, target)

    def sync_directory(self, path: str) -> None:
        self.now.sync_directory(path)


class Plain:
    """A session as one list of entries: what is pruned leaves the list, and ``pruned`` is what its header says."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.pruned: dict[str, str] = {}
        self.models: dict[str, ModelChange] = {}
        self.safe = len(entries)
        """So many entries were written at once with the header: no crash takes one of them away."""

    @property
    def messages(self) -> dict[str, Message]:
        return {entry.id: entry for entry in self.entries if isinstance(entry, Message)}

    @property
    def known(self) -> list[str]:
        return [*self.messages, *self.pruned]

    @property
    def leaf_id(self) -> str:
        leaf_id = ""
        for entry in self.entries:
            if isinstance(entry, Message):
                leaf_id = entry.id
            elif isinstance(entry, LeafMove):
                leaf_id = entry.leaf_id
            elif isinstance(entry, Checkpoint):
                leaf_id = entry.parent_id
        return leaf_id

    @property
    def leaves(self) -> list[str]:
        parents = {known.parent_id for known in self.messages.values()}
        return [*(known for known in self.known if known not in parents), self.leaf_id]

    def model_at(self, leaf_id: str) -> ModelChange | None:
        """The last change on a message, or the one that held when it was added."""
        above: dict[str, ModelChange | None] = {**self.models}
        changed: dict[str, ModelChange] = {}
        for entry in self.entries:
            if isinstance(entry, Message):
                above[entry.id] = changed.get(entry.parent_id) or above.get(entry.parent_id)
            elif isinstance(entry, ModelChange):
                changed[entry.parent_id] = entry
        return changed.get(leaf_id) or above.get(leaf_id)

    def chain(self, leaf_id: str) -> list[str]:
        """The ids from as far up as there is something to ``leaf_id``."""
        messages, chain = self.messages, list[str]()
        while leaf_id in messages:
            chain.insert(0, leaf_id)
            leaf_id = messages[leaf_id].parent_id
        return chain

    def context(self, leaf_id: str) -> list[str]:
        """What a model is asked with, by ids: the plainest way to say it."""
        chain = self.chain(leaf_id)
        root_id = self.messages[chain[0]].parent_id if chain else leaf_id
        for at in (*reversed(chain), root_id):
            made = [k for k in self.entries if isinstance(k, Compaction) and k.parent_id == at]
            if made:
                first = made[-1].first_kept_entry_id
                places = chain.index(first) if first else chain.index(at) + 1 if at in chain else 0
                return [made[-1].id, *chain[places:]]
        return [self.pruned[root_id], *chain] if root_id else chain

    def wanted(self, retain: int) -> list[str]:
        """The messages that pruning leaves."""
        order = list(self.messages)
        ends = [place for place, entry in enumerate(self.entries) if isinstance(entry, Checkpoint)]
        wanted = {entry.id for entry in self.entries[ends[-1] if ends else 0 :]} | set(
            order[-retain:] if retain else ()
        )
        for leaf_id in self.leaves:
            wanted |= set(self.context(leaf_id))
        return [message_id for message_id in order if message_id in wanted]

    def take_pruned(self, lines: list[dict[str, Any]]) -> None:
        """Become what is on disk, given that it was pruned."""
        known = {entry.id: entry for entry in self.entries}
        self.entries = []
        self.pruned = lines[0].get("pruned", {})
        self.models = msgspec.convert(lines[0].get("models", {}), dict[str, ModelChange])
        for line in lines[1:]:
            entry = known[line["id"]]
            if isinstance(entry, Compaction) and line["parent_id"] != entry.parent_id:
                assert self.pruned[line["parent_id"]] == entry.id
                entry = msgspec.structs.replace(entry, parent_id=line["parent_id"], first_kept_entry_id="")
            self.entries.append(entry)
        self.safe = len(self.entries)


class StoreMachine(RuleBasedStateMachine):
    """Two processes (two stores) on the same sessions; the model is one list of entries per session."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="nous-store-"))
        self.disk = SwitchedDisk()
        self.stores = [SessionStore(self.directory, disk=self.disk), SessionStore(self.directory)]
        self.model: dict[str, Plain] = {}
        self.numbers = count()

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    @initialize()
    def create(self) -> None:
        session_id = f"s{next(self.numbers)}"
        self.stores[0].create(session_id, NOW)
        self.model[session_id] = Plain([])

    @rule(choice=CHOICE, who=WHO, parent=CHOICE, text=TEXTS, at_leaf=st.booleans())
    def append(self, choice: int, who: int, parent: int, text: str, at_leaf: bool) -> None:
        session, plain = self.pick(choice, who)
        parent_id = plain.leaf_id if at_leaf else one_of(["", *plain.known], parent)
        self.append_entry(session, plain, self.message(parent_id, text))

    @rule(choice=CHOICE, who=WHO, leaf=CHOICE)
    def move_leaf(self, choice: int, who: int, leaf: int) -> None:
        session, plain = self.pick(choice, who)
        if not plain.known:
            return
        move = LeafMove(
            id=f"l{next(self.numbers)}", parent_id=plain.leaf_id, leaf_id=one_of(plain.known, leaf), created_at=NOW
        )
        self.append_entry(session, plain, move)

    @rule(choice=CHOICE, who=WHO, parent=CHOICE, first=CHOICE, at_leaf=st.booleans())
    def compact(self, choice: int, who: int, parent: int, first: int, at_leaf: bool) -> None:
        session, plain = self.pick(choice, who)
        if not plain.known:
            return
        parent_id = plain.leaf_id if at_leaf else one_of(plain.known, parent)
        first_kept = one_of(["", *plain.chain(parent_id)], first)
        self.append_entry(session, plain, compaction(f"k{next(self.numbers)}", parent_id, first_kept))

    @rule(choice=CHOICE, who=WHO)
    def change_model(self, choice: int, who: int) -> None:
        session, plain = self.pick(choice, who)
        number = next(self.numbers)
        change = ModelChange(id=f"c{number}", parent_id=plain.leaf_id, provider="p", model=f"{number}", created_at=NOW)
        self.append_entry(session, plain, change)
        assert session.model_at(session.leaf_id) == change

    @rule(choice=CHOICE, who=WHO)
    def take_checkpoint(self, choice: int, who: int) -> None:
        session, plain = self.pick(choice, who)
        entry_id = f"p{next(self.numbers)}"
        anyio.run(session.checkpoint, entry_id, NOW)
        session.sync()
        session.take_recovered()
        plain.entries.append(Checkpoint(id=entry_id, parent_id=plain.leaf_id, created_at=NOW))

    @rule(choice=CHOICE, who=WHO, retain=st.integers(0, 3))
    def prune(self, choice: int, who: int, retain: int) -> None:
        session, plain = self.pick(choice, who)
        wanted = plain.wanted(retain)
        contexts = {leaf_id: plain.context(leaf_id) for leaf_id in plain.leaves}
        before = verify_chain(self.directory / f"{session.id}.ndjson", may_be_torn=True)
        report = anyio.run(session.prune, retain)
        session.take_recovered()
        lines = verify_chain(self.directory / f"{session.id}.ndjson")
        assert report.removed_messages == len(plain.messages) - len(wanted)
        if report.removed_messages:
            assert (lines[0]["n"], lines[0]["prev"]) == (before[-1]["n"] + 1, before[-1]["digest"])
            plain.take_pruned(lines)
        assert list(plain.messages) == wanted
        assert {leaf_id: plain.context(leaf_id) for leaf_id in contexts} == contexts

    @rule(choice=CHOICE, at=st.integers(1, 8), code=st.sampled_from([errno.EIO, errno.ENOSPC]))
    def prune_on_a_failing_disk(self, choice: int, at: int, code: int) -> None:
        session, plain = self.pick(choice, 0)
        path = self.directory / f"{session.id}.ndjson"
        before = verify_chain(path, may_be_torn=True)
        self.disk.now = FaultyDisk(at, code)
        with Tolerated("io_failure"):
            anyio.run(session.prune)
        session.take_recovered()
        self.disk.now = Disk()
        lines = verify_chain(path, may_be_torn=True)
        if lines[0]["n"] != before[0]["n"]:
            plain.take_pruned(lines)
        assert not list(self.directory.glob(".*.tmp"))

    @rule(choice=CHOICE, which=CHOICE)
    def append_again(self, choice: int, which: int) -> None:
        session, plain = self.pick(choice, 0)
        if not plain.entries:
            return
        with pytest.raises(NousError, match="session cannot be used"):
            session.try_append(one_of(plain.entries, which))

    @rule(choice=CHOICE, who=WHO, leaf=CHOICE, whole=st.booleans())
    def branch(self, choice: int, who: int, leaf: int, whole: bool) -> None:
        session, plain = self.pick(choice, who)
        leaf_id = None if whole or not plain.known else one_of(plain.known, leaf)
        new_id = f"s{next(self.numbers)}"
        made = self.stores[who].branch(session.id, new_id, NOW, leaf_id)
        at = plain.leaf_id if leaf_id is None else leaf_id
        assert (made.parent_id, made.leaf_id, ids_of(made.path())) == (session.id, at, plain.context(at))
        said, meant = made.model_at(at), plain.model_at(at)
        assert (said and said.id) == (meant and meant.id)
        assert [known.message.id for known in made.messages.values()] == plain.chain(at)
        branch = self.model[new_id] = Plain(list(map(as_entry, lines_of(self.directory, new_id)[1:])))
        branch.pruned = lines_of(self.directory, new_id)[0].get("pruned", {})

    @rule(choice=CHOICE, who=WHO)
    def evict(self, choice: int, who: int) -> None:
        self.stores[who].evict(one_of(list(self.model), choice))

    @rule(who=WHO)
    def reopen(self, who: int) -> None:
        self.stores[who] = SessionStore(self.directory, disk=self.disk if who == 0 else None)

    @precondition(lambda self: any(len(plain.entries) > plain.safe for plain in self.model.values()))
    @rule(choice=CHOICE, cut=CHOICE, then=st.booleans())
    def crash_within_the_last_entry(self, choice: int, cut: int, then: bool) -> None:
        """The last line is cut at any byte; what was torn off appears aside as soon as somebody writes."""
        grown = [session_id for session_id, plain in self.model.items() if len(plain.entries) > plain.safe]
        session_id = one_of(grown, choice)
        path = self.directory / f"{session_id}.ndjson"
        data = path.read_bytes()
        start = data.rindex(b"\n", 0, -1) + 1
        if not data.endswith(b"\n"):
            return  # it is torn already
        at = start + cut % (len(data) - start)
        path.write_bytes(data[:at])
        plain = self.model[session_id]
        plain.entries.pop()
        if then:
            session = self.stores[1].get(session_id)
            recovered = self.append_entry(session, plain, self.message(plain.leaf_id, "after"))
            assert [Path(torn.path).read_bytes() for torn in recovered] == [data[start:at]][: at > start]

    @rule(choice=CHOICE, at=st.integers(1, 8), code=st.sampled_from([errno.EIO, errno.ENOSPC]))
    def append_on_a_failing_disk(self, choice: int, at: int, code: int) -> None:
        session, plain = self.pick(choice, 0)
        entry = self.message(plain.leaf_id, "faulty")
        self.disk.now = FaultyDisk(at, code)
        with Tolerated("io_failure"):
            session.try_append(entry)
            session.sync()
            plain.entries.append(entry)
        self.disk.now = Disk()

    @invariant()
    def every_session_is_what_the_model_says(self) -> None:
        for store in self.stores:
            for session_id, plain in self.model.items():
                session = store.get(session_id)
                assert [known.message for known in session.messages.values()] == list(plain.messages.values())
                assert session.leaf_id == plain.leaf_id
                assert ids_of(session.path()) == plain.context(session.leaf_id)
                assert ids_of(session.full_path()) == plain.chain(session.leaf_id)
                assert all(session.model_at(at) == plain.model_at(at) for at in ("", *plain.known))
                assert verify_session(self.directory / f"{session_id}.ndjson").ok

    @invariant()
    def every_session_is_listed(self) -> None:
        for store in self.stores:
            shown = {info.session_id: (info.message_count, info.leaf_id) for info in store.list_sessions().sessions}
            assert shown == {name: (len(plain.messages), plain.leaf_id) for name, plain in self.model.items()}

    @rule(choice=CHOICE, who=WHO, leaf=CHOICE)
    def ask_for_a_path(self, choice: int, who: int, leaf: int) -> None:
        session, plain = self.pick(choice, who)
        leaf_id = one_of(["", *plain.known], leaf)
        path = session.path(leaf_id)
        assert ids_of(path) == plain.context(leaf_id)
        assert ids_of(session.path(leaf_id, path.compaction_id)) == plain.context(leaf_id)
        assert ids_of(session.full_path(leaf_id)) == plain.chain(leaf_id)

    def pick(self, choice: int, who: int) -> tuple[Session, Plain]:
        session_id = one_of(list(self.model), choice)
        return self.stores[who].get(session_id), self.model[session_id]

    def message(self, parent_id: str, text: str) -> Message:
        return Message(id=f"m{next(self.numbers)}", parent_id=parent_id, role="user", text=text, created_at=NOW)

    def append_entry(self, session: Session, plain: Plain, entry: Entry) -> list[TornTail]:
        """Append as a run does; return the torn tails that were cut on the way."""
        assert session.try_append(entry)
        session.sync()
        plain.entries.append(entry)
        verify_chain(self.directory / f"{session.id}.ndjson")
        return session.take_recovered()


def one_of(items: list[T], choice: int) -> T:
    return items[choice % len(items)]


def ids_of(path: Sequence[ContextMessage]) -> list[str]:
    return [known.message.id for known in path]


def lines_of(directory: Path, session_id: str) -> list[dict[str, Any]]:
    return verify_chain(directory / f"{session_id}.ndjson")


def as_entry(line: dict[str, Any]) -> Entry:
    entry: Entry = msgspec.convert(line, Entry)
    return entry


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
            lines.append(event_line(b"r1", seq, TS, Warned(code="tool_blocked", message=text)))
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
