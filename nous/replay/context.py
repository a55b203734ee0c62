"""The conversation a recorded run began on: found, and set up again as a session."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nous.errors import NousError
from nous.protocol.entries import SUMMARY_HEAD, Compaction
from nous.protocol.messages import Message
from nous.replay.judge import UnverifiedError
from nous.replay.recording import Header, context_digest
from nous.store.session_format import FORMAT, ORIGIN, Entry, LeafMove, SessionHeader, encode_line
from nous.store.sessions import SessionStore
from nous.store.trace_lines import BrokenTraceError


def find_context(path: Path, header: Header) -> tuple[Message, ...]:
    """Return the messages a run began with: from the trace, or from the session beside it if they are still the same.

    Raises :class:`UnverifiedError` if they are nowhere to be found.
    """
    context = header.context
    if isinstance(context.messages, tuple):
        return context.messages
    if not context.entries:
        return ()
    lost = UnverifiedError("missing: context (the messages are neither in the file nor in the session beside it)")
    try:
        session = SessionStore(path.absolute().parent.parent / "sessions").get(header.session_id)
        messages = tuple(known.message for known in session.path(header.leaf_id, context.compaction_id))
    except NousError:
        raise lost from None
    if context_digest(messages) != context.digest:
        raise lost
    return messages


def store_context(sessions: Path, header: Header, messages: Sequence[Message]) -> None:
    """Make the recorded session in a directory of sessions, with the conversation as it was when the run began.

    Raises:
        BrokenTraceError: the messages are no conversation of a session.
        NousError: ``io_failure``, ``session_error``.
    """
    first, entries = _entries(header, messages)
    line, link = encode_line(first, ORIGIN)
    lines = [line]
    for entry in entries:
        line, link = encode_line(entry, link)
        lines.append(line)
    try:
        fd = os.open(sessions / f"{first.id}.ndjson", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.writelines(lines)
    except OSError as error:
        raise NousError("io_failure", f"{sessions}: {error.strerror}") from error
    _check(SessionStore(sessions), header)


def _entries(header: Header, messages: Sequence[Message]) -> tuple[SessionHeader, list[Entry]]:
    """Return a session's header and entries: where the conversation was compacted, as if the rest had been pruned."""
    first = SessionHeader(format=FORMAT, id=header.session_id, created_at=header.created_at)
    if not header.context.compaction_id or not messages:
        return first, list(messages)
    summary, kept = messages[0], messages[1:]
    root_id = kept[0].parent_id if kept else header.leaf_id
    compaction = Compaction(
        id=summary.id,
        parent_id=root_id,
        summary=summary.text.removeprefix(SUMMARY_HEAD),
        tokens_before=0,
        trigger="manual",
        by="model",
        created_at=summary.created_at,
    )
    entries: list[Entry] = [compaction, *kept]
    if not kept:
        entries.append(LeafMove(id=f"{header.run_id}-leaf", leaf_id=root_id, created_at=header.created_at))
    first = SessionHeader(format=FORMAT, id=first.id, created_at=first.created_at, pruned={root_id: compaction.id})
    return first, entries


def _check(store: SessionStore, header: Header) -> None:
    name = f"session {header.session_id}"
    try:
        session = store.get(header.session_id)
        found = tuple(known.message for known in session.path(header.leaf_id))
    except NousError as error:
        raise BrokenTraceError(name, 0, f"header: the context is no conversation: {error.cause}") from None
    if session.leaf_id != header.leaf_id or context_digest(found) != header.context.digest:
        raise BrokenTraceError(name, 0, "header: the context is no conversation that ends at the leaf")
