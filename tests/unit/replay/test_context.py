"""The conversation a run began on: found beside the trace or in it, and set up again as it was."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nous.protocol.entries import Compaction
from nous.protocol.messages import Message
from nous.replay.context import find_context, store_context
from nous.replay.judge import UnverifiedError
from nous.replay.recording import Context, Header, context_digest, read_header
from nous.store.sessions import Session, SessionStore
from nous.store.trace_lines import BrokenTraceError
from tests.support.recordings import fixture

NOW = "2026-11-21T10:00:00.000Z"


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    for name in ("sessions", "traces", "again"):
        (tmp_path / name).mkdir()
    return tmp_path / "sessions"


def message(name: str, parent: str, text: str = "") -> Message:
    return Message(id=name, parent_id=parent, role="user", text=text or name, created_at=NOW)


def compaction(name: str, parent: str, kept: str) -> Compaction:
    return Compaction(
        id=name,
        parent_id=parent,
        summary=f"summary {name}",
        first_kept_entry_id=kept,
        tokens_before=9,
        trigger="manual",
        by="model",
        created_at=NOW,
    )


def make_session(sessions: Path) -> Session:
    session = SessionStore(sessions).create("ses-1", NOW)
    for parent, name in (("", "m1"), ("m1", "m2"), ("m2", "m3"), ("m3", "m4")):
        session.try_append(message(name, parent))
    return session


def header_of(session: Session, leaf_id: str, compaction_id: str | None = None) -> Header:
    """Return the header of a run that began at a leaf of a session."""
    path = session.path(leaf_id, compaction_id)
    digest = context_digest(tuple(known.message for known in path))
    recorded = read_header(fixture("plain-text"))
    return msgspec.structs.replace(
        recorded,
        session_id=session.id,
        leaf_id=leaf_id,
        spec=msgspec.structs.replace(recorded.spec, session_id=session.id, leaf_id=leaf_id, context_digest=digest),
        context=Context(entries=len(path), digest=digest, compaction_id=path.compaction_id),
    )


def again(sessions: Path, header: Header) -> Session:
    """Set a run's conversation up in another directory; return the session."""
    elsewhere = sessions.with_name("again")
    store_context(elsewhere, header, find_context(sessions.with_name("traces") / "r1.ndjson", header))
    session = SessionStore(elsewhere).get(header.session_id)
    found = session.path()
    assert context_digest(tuple(known.message for known in found)) == header.context.digest
    assert (session.leaf_id, found.compaction_id) == (header.leaf_id, header.context.compaction_id)
    # A run can go on there, and so can a compaction.
    assert session.try_append(message("next", header.leaf_id))
    assert session.try_append(compaction("k9", "next", "next"))
    return session


@pytest.mark.parametrize("leaf_id", ["m1", "m3", "m4", ""])
def test_a_conversation_is_found_and_set_up_again(sessions: Path, leaf_id: str) -> None:
    header = header_of(make_session(sessions), leaf_id)
    if not leaf_id:
        store_context(sessions.with_name("again"), header, find_context(Path("nowhere/traces/x"), header))
        return
    again(sessions, header)


@pytest.mark.parametrize(("at", "kept"), [("m4", "m3"), ("m4", ""), ("m2", "m2"), ("m3", "")])
def test_a_compacted_conversation_is_too(sessions: Path, at: str, kept: str) -> None:
    session = make_session(sessions)
    session.try_append(compaction("k1", at, kept))
    header = header_of(session, "m4")
    assert header.context.compaction_id == "k1"
    again(sessions, header)


def test_the_compaction_that_was_in_force_counts_not_the_one_that_is(sessions: Path) -> None:
    session = make_session(sessions)
    uncompacted = header_of(session, "m4")
    session.try_append(compaction("k1", "m4", "m2"))
    first = header_of(session, "m4")
    session.try_append(compaction("k2", "m4", "m4"))
    for header in (uncompacted, first, header_of(session, "m4")):
        path = sessions.with_name("traces") / "r1.ndjson"
        assert context_digest(find_context(path, header)) == header.context.digest


def test_an_export_carries_its_conversation_with_it(tmp_path: Path) -> None:
    header = read_header(fixture("earlier-context"))
    messages = find_context(tmp_path / "x", header)
    assert messages == header.context.messages
    assert len(messages) == header.context.entries > 0


def test_a_conversation_that_is_gone_or_another_is_missing(sessions: Path) -> None:
    session = make_session(sessions)
    path = sessions.with_name("traces") / "r1.ndjson"
    header = header_of(session, "m4")
    changed = msgspec.structs.replace(header, context=msgspec.structs.replace(header.context, digest="0" * 64))
    with pytest.raises(UnverifiedError, match="missing: context"):
        find_context(path, changed)
    (sessions / "ses-1.ndjson").unlink()
    with pytest.raises(UnverifiedError, match="missing: context"):
        find_context(path, header)


@pytest.mark.parametrize(
    "messages",
    [
        [message("m2", "m1")],
        [message("m1", ""), message("m3", "m2")],
        [message("m1", ""), message("m1", "")],
        [message("m1", "")],
    ],
)
def test_messages_that_are_no_conversation_are_broken(sessions: Path, messages: list[Message]) -> None:
    header = header_of(make_session(sessions), "m4")
    with pytest.raises(BrokenTraceError, match="the context is no conversation"):
        store_context(sessions.with_name("again"), header, messages)
