"""The answers of protocol v1: one frozen struct per success payload, and how a response line is written.

Source: protocol v1, sections 1 and 4.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from nous.errors import NousError
from nous.protocol.bounds import bound_payload
from nous.protocol.commands import QueueMode
from nous.protocol.entries import SessionInfo, ThinkingLevel
from nous.protocol.events import Always
from nous.protocol.messages import Message, TreeNode, Usage

PROTOCOL_VERSION: Final = "1"

RunStateName = Literal["idle", "running", "aborting"]


class Answer(Struct, frozen=True, kw_only=True, tag_field=None):
    """The payload of a success response.

    ``duplicate`` marks the repeated answer to a repeated id.  ``truncated_fields`` names the fields that were cut,
    because the line would have been longer than ``max_event_bytes``.
    """

    truncated_fields: list[str] | UnsetType = UNSET


class Pong(Answer, frozen=True):
    """A sign of life."""

    message: str = "pong"


class Accepted(Answer, frozen=True, omit_defaults=True):
    """A command took effect, or a run was started; the fields besides ``command`` depend on it."""

    command: str
    run_id: str | UnsetType = UNSET
    session_id: str | UnsetType = UNSET
    leaf_id: str | UnsetType = UNSET
    count: int | UnsetType = UNSET
    mode: QueueMode | UnsetType = UNSET


class Result(Answer, frozen=True):
    """What a sync prompt answers.  ``events`` is the run's events, flattened for old clients."""

    output: str
    events: list[dict[str, Any]]
    session_id: str
    run_id: Annotated[str, Always]
    leaf_id: str | UnsetType = UNSET
    events_truncated: bool | UnsetType = UNSET
    output_truncated: bool | UnsetType = UNSET


class PendingCounts(Struct, frozen=True):
    """How many inputs are queued."""

    steer: int = 0
    follow_up: int = 0


class RunInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An active run: ``seq`` is the last event it has published, ``started_at`` RFC 3339 UTC.

    ``usage`` and ``cost_usd`` are of its model calls so far that have ended; no cost where it is not known.
    """

    run_id: str
    session_id: str
    run_state: RunStateName
    started_at: str
    seq: int
    pending_counts: PendingCounts
    provider: Annotated[str | UnsetType, Always] = UNSET
    model: Annotated[str | UnsetType, Always] = UNSET
    usage: Annotated[Usage | UnsetType, Always] = UNSET
    cost_usd: float | UnsetType = UNSET


class ExtensionInfo(Struct, frozen=True, kw_only=True):
    """An extension as ``get_state`` shows it.  It is ``half_open`` after a cool-down, until it has done well once."""

    name: str
    version: str
    state: Literal["starting", "up", "down", "disabled", "half_open"]
    restarts: int
    late_answers: int = 0
    last_error: str | UnsetType = UNSET


class Health(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the daemon is, all sessions and clients together.

    ``uptime_ms`` since its start.  ``rss_bytes`` is its resident memory, where the system tells.  ``queued_inputs`` are
    steers and follow-ups that wait for their turn, ``queued_output_bytes`` what event readers have not taken yet.
    ``loop_lag_ms`` is the longest within the last minute that anything was kept waiting; not known in the first second.
    """

    uptime_ms: int
    open_runs: int
    queued_inputs: int
    queued_output_bytes: int
    rss_bytes: int | UnsetType = UNSET
    loop_lag_ms: int | UnsetType = UNSET


class State(Answer, frozen=True):
    """``provider``, ``model`` and ``thinking`` are what the next run on the session uses.

    ``usage`` and ``cost_usd`` are of all runs of the session, also of earlier daemons; no cost where any part of it is
    not known.
    """

    run_state: RunStateName
    run_id: str
    session_id: str
    steering_mode: QueueMode
    follow_up_mode: QueueMode
    pending_counts: PendingCounts
    runs: Annotated[list[RunInfo], Always]
    active_tools: Annotated[list[str], Always]
    provider: Annotated[str, Always]
    model: Annotated[str, Always]
    provider_builds: Annotated[int, Always]
    epoch: Annotated[str, Always]
    usage: Annotated[Usage, Always]
    cost_usd: float | UnsetType = UNSET
    thinking: ThinkingLevel | UnsetType = UNSET
    extensions: list[ExtensionInfo] | UnsetType = UNSET
    health: Health | UnsetType = UNSET


class Messages(Answer, frozen=True):
    """A page of messages."""

    session_id: str
    messages: list[Message]
    leaf_id: str | UnsetType = UNSET
    next_cursor: str | UnsetType = UNSET


class Leaf(Answer, frozen=True):
    """The active leaf of a session."""

    session_id: str
    leaf_id: str


class Tree(Answer, frozen=True):
    """A page of a session's tree."""

    session_id: str
    nodes: list[TreeNode]
    leaf_id: str | UnsetType = UNSET
    next_cursor: str | UnsetType = UNSET


class Compaction(Answer, frozen=True):
    """What a session was compacted to."""

    session_id: str
    summary: str
    first_kept_entry_id: str
    tokens_before: int
    trigger: Literal["manual", "threshold", "overflow"]


class SessionAnswer(Answer, frozen=True):
    """A session that was made or chosen."""

    session_id: str
    active: bool
    parent_id: str | UnsetType = UNSET


class ExtensionResult(Answer, frozen=True):
    """The object that the extension returned is the payload itself.  ``result`` beside its fields holds it again.

    Where the object has a field ``result`` of its own, that is the one.
    """

    result: Any = None


class Limits(Struct, frozen=True, kw_only=True):
    """The limits that a client has to know."""

    max_line_bytes: int
    max_event_bytes: int
    max_message_bytes: int
    max_runs: int
    abort_grace_ms: int
    command_timeout_ms: int


class HelloAnswer(Answer, frozen=True):
    """Who the daemon is, what it grants, and its limits."""

    server: str
    version: str
    protocol: str
    epoch: str
    features: list[str]
    commands: list[str]
    limits: Limits
    schema_digest: str


class ToolInfo(Struct, frozen=True, kw_only=True):
    """A tool."""

    name: str
    description: str
    source: str
    active: bool
    schema: dict[str, Any]


class Tools(Answer, frozen=True):
    """All tools."""

    tools: list[ToolInfo]


class ModelRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model as far as it is known beforehand: sizes in tokens, list prices in US dollars per million tokens."""

    id: str
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    images: bool | None = None
    input_usd_per_mtok: float | None = None
    cached_usd_per_mtok: float | None = None
    output_usd_per_mtok: float | None = None


class ProviderRow(Struct, frozen=True, kw_only=True):
    """A provider that can be chosen.  ``ready``: it has its key, or needs none.  Other models may work too."""

    name: str
    title: str
    ready: bool
    models: list[ModelRow]


class Models(Answer, frozen=True):
    """``provider`` and ``model`` are what a session uses that has not chosen."""

    providers: list[ProviderRow]
    provider: str
    model: str


class ModelSet(Answer, frozen=True):
    """What runs on the session's active leaf use from now on."""

    session_id: str
    provider: str
    model: str
    thinking: ThinkingLevel | UnsetType = UNSET
    leaf_id: str | UnsetType = UNSET


class Events(Answer, frozen=True):
    """Events of a run as they stand on disk.  ``done``: the run has ended and this is its last page."""

    run_id: str
    events: list[msgspec.Raw]
    done: bool
    next_after_seq: int | UnsetType = UNSET
    next_after_k: int | UnsetType = UNSET


class RunSummary(Struct, frozen=True, kw_only=True):
    """A run on disk."""

    run_id: str
    session_id: str
    status: str
    started_at: str
    events: int
    ended_at: str | UnsetType = UNSET


class Runs(Answer, frozen=True):
    """A page of runs."""

    runs: list[RunSummary]
    next_cursor: str | UnsetType = UNSET


class Sessions(Answer, frozen=True):
    """A page of sessions."""

    sessions: list[SessionInfo]
    next_cursor: str | UnsetType = UNSET


class TraceAnswer(Answer, frozen=True):
    """Where the export stands: ``path`` is relative to the state directory."""

    run_id: str
    path: str


ANSWERS: Final[dict[str, type[Answer]]] = {
    "pong": Pong,
    "accepted": Accepted,
    "result": Result,
    "state": State,
    "messages": Messages,
    "leaf": Leaf,
    "tree": Tree,
    "compaction": Compaction,
    "session": SessionAnswer,
    "extension_result": ExtensionResult,
    "hello": HelloAnswer,
    "tools": Tools,
    "events": Events,
    "runs": Runs,
    "sessions": Sessions,
    "trace": TraceAnswer,
    "models": Models,
    "model": ModelSet,
}
"""Every success response, by its ``type`` on the wire."""

_TYPE_OF: Final[dict[type[Answer], str]] = {cls: name for name, cls in ANSWERS.items()}

_encoder = msgspec.json.Encoder()


class WireError(Struct, frozen=True, omit_defaults=True):
    """The ``error`` object of a response.  ``message`` is the code's sentence, followed by the ``cause``."""

    code: str
    message: str
    category: Annotated[str, Always]
    retryable: Annotated[bool, Always]
    cause: str | None = None
    hint: str | None = None
    retry_after_ms: int | None = None
    correlation_id: str | None = None


def wire_error(error: NousError, correlation_id: str | None = None) -> WireError:
    """Return an error as answers show it."""
    return WireError(
        code=error.code,
        message=error.full_message,
        category=error.category,
        retryable=error.retryable,
        cause=error.cause,
        hint=error.hint,
        retry_after_ms=error.retry_after_ms,
        correlation_id=correlation_id,
    )


def encode_answer(answer: Answer) -> tuple[str, bytes]:
    """Return an answer's ``type`` and its payload as JSON."""
    if isinstance(answer, ExtensionResult) and isinstance(answer.result, dict):
        return _TYPE_OF[type(answer)], _encoder.encode({"result": answer.result} | answer.result)
    return _TYPE_OF[type(answer)], _encoder.encode(answer)


def success_line(command_id: str, kind: str, payload: bytes) -> bytes:
    """Return one response line (LF included) for a command that was answered."""
    return b'{"v":"1","id":%b,"type":"%b","payload":%b,"ok":true}\n' % (
        _encoder.encode(command_id),
        kind.encode(),
        payload,
    )


ERROR_BYTES: Final = 32 * 1024
"""The two objects of an error response are bounded by this, each: together they fit the least ``max_event_bytes``."""


def error_line(command_id: str, error: NousError, correlation_id: str | None = None) -> bytes:
    """Return one response line (LF included) for a command that failed; ``correlation_id`` is the daemon's."""
    return b'{"v":"1","id":%b,"type":"error","payload":%b,"ok":false,"error":%b}\n' % (
        _encoder.encode(command_id),
        bound_payload(_encoder.encode(error.data), ERROR_BYTES),
        bound_payload(_encoder.encode(wire_error(error, correlation_id)), ERROR_BYTES),
    )


def mark_duplicate(payload: bytes) -> bytes:
    """Return an answer's payload with ``duplicate:true`` added, unless an extension's object has such a field."""
    if b'"duplicate"' in payload and "duplicate" in msgspec.json.decode(payload):
        return payload
    body = payload[1:-1]
    return b'{"duplicate":true%b%b}' % (b"," if body else b"", body)
