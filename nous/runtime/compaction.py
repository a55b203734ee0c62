"""How a model is asked for a summary of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nous.engine.effects import CallModel
from nous.ports.model import ContextMessage, ModelRequest
from nous.protocol.messages import Message

_SYSTEM: Final = """\
You summarise a conversation between a person and an agent that works on files and commands, so that the agent can go \
on from your summary alone. Keep: what the person wants, what was decided, what was done and found (names of files, \
commands, errors, figures), what is still open. Leave out pleasantries and what no longer matters. Write plain text."""

_ASK: Final = "Summarise the conversation above."


def compaction_request(run_id: str, session_id: str, effect: CallModel, path: Sequence[ContextMessage]) -> ModelRequest:
    """Return the request for a summary of what stands before the first entry to keep."""
    ids = [entry.message.id for entry in path]
    cut = ids.index(effect.first_kept_entry_id) if effect.first_kept_entry_id else len(ids)
    ask = _ASK if not effect.instruction else f"{_ASK}\n\nWhat matters: {effect.instruction}"
    question = Message(id=f"{run_id}-summary", role="user", text=ask, run_id=run_id, created_at="")
    return ModelRequest(
        run_id=run_id,
        session_id=session_id,
        call=effect.call,
        system=_SYSTEM,
        messages=[*path[:cut], ContextMessage(question)],
        tools=(),
        purpose="compaction",
    )
