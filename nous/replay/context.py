"""The session a recorded run began on: found, and set up again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nous.errors import NousError
from nous.protocol.messages import Message
from nous.replay.judge import UnverifiedError
from nous.replay.recording import Header, context_digest
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
        messages = tuple(known.message for known in session.path(header.leaf_id))
    except NousError:
        raise lost from None
    if context_digest(messages) != context.digest:
        raise lost
    return messages


def store_context(sessions: Path, header: Header, messages: Iterable[Message]) -> None:
    """Make the recorded session in a directory of sessions, as it was when the run began.

    Raises :class:`BrokenTraceError` if the messages are no path of a session.
    """
    try:
        session = SessionStore(sessions).create(header.session_id, header.created_at)
        for message in messages:
            session.try_append(message)
    except NousError as error:
        raise BrokenTraceError(header.run_id, 0, f"header: the context is no session: {error.cause}") from None
