"""What a session holds besides its messages, how a model reads it, and how a session stands in a list.

Source: protocol v1, section 4 (``compact_session``, ``list_sessions``).
"""

from typing import Final, Literal

from msgspec import Struct

from nous.protocol.messages import Message

Trigger = Literal["manual", "threshold", "overflow"]
Summariser = Literal["model", "deterministic"]
ThinkingLevel = Literal["off", "low", "medium", "high", "max"]

SUMMARY_HEAD: Final = "[The conversation up to here was compacted. This is a summary of it.]\n\n"
"""What a summary begins with where it stands as a message: nobody takes it for something the user said."""


class Compaction(Struct, frozen=True, gc=False, kw_only=True, tag="compaction", omit_defaults=True):
    """The conversation up to ``parent_id`` was compacted: ``summary`` stands for all before ``first_kept_entry_id``.

    It holds for ``parent_id`` and for every message below it.  ``first_kept_entry_id`` is a message on the path to
    ``parent_id``, or ``""`` if nothing was kept.  ``tokens_before`` is the estimated size of the context it replaced;
    ``by`` says who wrote the summary.
    """

    id: str
    parent_id: str
    summary: str
    first_kept_entry_id: str = ""
    tokens_before: int
    trigger: Trigger
    by: Summariser
    instruction: str = ""
    created_at: str


class ModelChange(Struct, frozen=True, gc=False, kw_only=True, tag="model", omit_defaults=True):
    """From ``parent_id`` on (``""``: from the root), runs of the session use this model.

    For what is added below ``parent_id`` after it; what stood there before keeps the model it had.
    """

    id: str
    parent_id: str = ""
    provider: str
    model: str
    thinking: ThinkingLevel | None = None
    created_at: str


class SessionInfo(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A session as a list shows it.  ``snippet`` is the beginning of its first message."""

    session_id: str
    parent_id: str = ""
    created_at: str
    updated_at: str
    message_count: int
    leaf_id: str = ""
    snippet: str = ""


def summary_message(compaction: Compaction) -> Message:
    """Return the summary as the message that the model reads first.  Its id is the compaction's."""
    return Message(
        id=compaction.id, role="user", text=SUMMARY_HEAD + compaction.summary, created_at=compaction.created_at
    )


def is_summary(message: Message) -> bool:
    """Tell whether a context's first message is a summary."""
    return message.role == "user" and message.text.startswith(SUMMARY_HEAD)
