"""The commands of protocol v1: one frozen struct per payload, and the table that names them.

Source: protocol v1, section 4.  A field that is null means the same as one that is left out, and so does an
optional id that is empty.
"""

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta, Struct

from nous.protocol.entries import ThinkingLevel

MAX_ID_CHARACTERS: Final = 256
"""A command's id is echoed in its answer and in events: a longer one is refused, and answered to no id."""

QueueMode = Literal["one-at-a-time", "all"]
Text = Annotated[str, Meta(min_length=1)]
ModelName = Annotated[str, Meta(min_length=1, max_length=256)]


class Payload(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The payload of one command; ``kind`` is the command's ``type`` on the wire."""

    kind: ClassVar[str]


class Ping(Payload, frozen=True):
    """Ask for a sign of life."""

    kind = "ping"


class Image(Struct, frozen=True, kw_only=True):
    """An image that goes with a prompt: ``data`` is base64."""

    mime_type: str
    data: str


class Prompt(Payload, frozen=True):
    """Run the agent on ``text``.  ``wait`` left out means true, unless ``hello`` said otherwise."""

    kind = "prompt"
    text: Text
    wait: bool | None = None
    leaf_id: str | None = None
    session_id: str | None = None
    output_schema: dict[str, Any] | None = None
    images: list[Image] | None = None
    provider: str | None = None
    model: ModelName | None = None
    thinking: ThinkingLevel | None = None


class Steer(Payload, frozen=True):
    """Say something to a run that it takes up before its next model call."""

    kind = "steer"
    text: Text
    run_id: str | None = None
    images: list[Image] | None = None


class FollowUp(Payload, frozen=True):
    """Say something to a run that is answered in a turn of its own."""

    kind = "follow_up"
    text: Text
    run_id: str | None = None
    images: list[Image] | None = None


class Abort(Payload, frozen=True):
    """End a run."""

    kind = "abort"
    run_id: str | None = None


class SetActiveTools(Payload, frozen=True):
    """Choose the tools that runs may use."""

    kind = "set_active_tools"
    tools: list[str]


class SetSteeringMode(Payload, frozen=True):
    """Choose how many queued steers a turn takes."""

    kind = "set_steering_mode"
    mode: QueueMode


class SetFollowUpMode(Payload, frozen=True):
    """Choose how many queued follow-ups a turn takes."""

    kind = "set_follow_up_mode"
    mode: QueueMode


class GetState(Payload, frozen=True):
    """Ask for the state of the daemon and of a session."""

    kind = "get_state"
    session_id: str | None = None


class GetMessages(Payload, frozen=True):
    """Read a path.  ``view`` ``history`` (also left out): all messages; ``context``: what a model would see.

    In the context of a compacted path, the summary stands first, as a user's message.
    """

    kind = "get_messages"
    session_id: str | None = None
    leaf_id: str | None = None
    cursor: str | None = None
    view: Literal["history", "context"] | None = None


class SetLeaf(Payload, frozen=True):
    """Choose the message that the next prompt continues."""

    kind = "set_leaf"
    leaf_id: str
    session_id: str | None = None


class GetTree(Payload, frozen=True):
    """Ask for the tree of a session."""

    kind = "get_tree"
    session_id: str | None = None
    cursor: str | None = None


class CompactSession(Payload, frozen=True):
    """Summarise the older part of a session."""

    kind = "compact_session"
    session_id: str | None = None
    instruction: str | None = None


class NewSession(Payload, frozen=True):
    """Make a session."""

    kind = "new_session"


class SwitchSession(Payload, frozen=True):
    """Choose the active session."""

    kind = "switch_session"
    session_id: str


class BranchSession(Payload, frozen=True):
    """``parent_id`` is the old name of ``session_id``; one of them is required."""

    kind = "branch_session"
    session_id: str | None = None
    parent_id: str | None = None
    leaf_id: str | None = None

    def __post_init__(self) -> None:
        if self.source_id is None:
            raise ValueError("Object missing required field `session_id`")

    @property
    def source_id(self) -> str | None:
        """The session to copy, under either of its names."""
        return self.session_id or self.parent_id or None


class ExtensionCommand(Payload, frozen=True):
    """Have an extension carry out one of its commands."""

    kind = "extension_command"
    name: str
    payload: dict[str, Any] | None = None


class ClientInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who a client says it is."""

    name: str | None = None
    version: str | None = None


class ListModels(Payload, frozen=True):
    """Ask which providers and models there are."""

    kind = "list_models"
    provider: str | None = None


class SetModel(Payload, frozen=True):
    """Choose who answers in a session from its active leaf on.  What is left out follows from what is in force."""

    kind = "set_model"
    model: ModelName | None = None
    provider: str | None = None
    thinking: ThinkingLevel | None = None
    session_id: str | None = None


class Hello(Payload, frozen=True):
    """Say which client this is and what it wants."""

    kind = "hello"
    client: ClientInfo | None = None
    features: list[str] | None = None
    strict: bool | None = None
    prompt_wait: bool | None = None


class ListTools(Payload, frozen=True):
    """Ask which tools there are."""

    kind = "list_tools"


class Shutdown(Payload, frozen=True):
    """Stop the daemon in order."""

    kind = "shutdown"


class GetEvents(Payload, frozen=True):
    """Read a run's events from disk.  ``limit`` counts events; ``features`` adds feature events.

    ``after_k`` is how many of the feature events behind ``after_seq`` were seen: pages may end between them.
    """

    kind = "get_events"
    run_id: str
    after_seq: Annotated[int, Meta(ge=0)] | None = None
    after_k: Annotated[int, Meta(ge=0)] | None = None
    limit: Annotated[int, Meta(ge=1)] | None = None
    features: list[str] | None = None


class ListRuns(Payload, frozen=True):
    """Ask which runs are on disk."""

    kind = "list_runs"
    session_id: str | None = None
    limit: Annotated[int, Meta(ge=1)] | None = None
    cursor: str | None = None


class ListSessions(Payload, frozen=True):
    """Ask which sessions are on disk."""

    kind = "list_sessions"
    limit: Annotated[int, Meta(ge=1)] | None = None
    cursor: str | None = None


class ExportTrace(Payload, frozen=True):
    """Export a run's trace into a file."""

    kind = "export_trace"
    run_id: str
    format: Literal["fixture", "events"] | None = None


_FROZEN: Final[tuple[type[Payload], ...]] = (
    Ping,
    Prompt,
    Steer,
    FollowUp,
    Abort,
    SetActiveTools,
    SetSteeringMode,
    SetFollowUpMode,
    GetState,
    GetMessages,
    SetLeaf,
    GetTree,
    CompactSession,
    NewSession,
    SwitchSession,
    BranchSession,
    ExtensionCommand,
)
_ADDED: Final[tuple[type[Payload], ...]] = (
    Hello,
    ListSessions,
    ListTools,
    Shutdown,
    GetEvents,
    ListRuns,
    ExportTrace,
    ListModels,
    SetModel,
)

COMMANDS: Final[dict[str, type[Payload]]] = {c.kind: c for c in (*_FROZEN, *_ADDED)}
"""Every command this version decodes, by its ``type`` on the wire."""

FROZEN_COMMANDS: Final = tuple(c.kind for c in _FROZEN)

READ_ONLY: Final = frozenset(
    {
        "ping",
        "hello",
        "get_state",
        "get_messages",
        "get_tree",
        "get_events",
        "list_runs",
        "list_sessions",
        "list_tools",
        "list_models",
    }
)
"""Commands that change nothing: always run anew, never remembered by id (protocol v1, section 4)."""

IMMEDIATE_READS: Final = frozenset({"ping", "hello"})
"""Reads that are answered before the next line is read."""

UNORDERED: Final = READ_ONLY | {"abort", "steer", "follow_up", "export_trace"}
"""Commands that never wait for another command's turn (protocol v1, section 2)."""


class Command(Struct, frozen=True):
    """One decoded command line: who asked (``id``), what for, and the bytes it was asked with."""

    id: str
    payload: Payload
    raw_payload: bytes = b"{}"

    @property
    def type(self) -> str:
        """The command's type."""
        return self.payload.kind


FIELDS: Final[dict[str, frozenset[str]]] = {
    name: frozenset(f.encode_name for f in msgspec.structs.fields(cls)) for name, cls in COMMANDS.items()
}
"""The known field names of each payload, for connections that asked for ``strict``."""

_OPTIONAL_IDS: Final[dict[str, tuple[str, ...]]] = {
    name: tuple(f.name for f in msgspec.structs.fields(cls) if f.name.endswith("_id") and f.default is None)
    for name, cls in COMMANDS.items()
}


def drop_empty_ids(payload: Payload) -> Payload:
    """Return the payload without its optional ids that are empty strings: these count as left out."""
    empty = [name for name in _OPTIONAL_IDS[payload.kind] if getattr(payload, name) == ""]
    return msgspec.structs.replace(payload, **dict.fromkeys(empty)) if empty else payload
