"""The events of protocol v1: one frozen struct per payload, and how an event line is written.

Source: protocol v1, sections 1 and 5.  Frozen events count ``seq`` from 1 without a hole within a run;
feature events take no ``seq`` and carry ``after_seq``.
"""

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from nous.protocol.bounds import bound_payload
from nous.protocol.messages import Role, StopReason, TurnKind, Usage

Feature = Literal["thinking", "tool_arguments"]
FEATURES: Final[tuple[Feature, ...]] = ("thinking", "tool_arguments")
CONNECTION_FEATURES: Final = ("events", *FEATURES)
"""What a connection may ask for in ``hello``: events on a command socket, and the feature events."""

StatusCode = Literal[
    "compaction_end",
    "compaction_start",
    "extension_half_open",
    "extension_recovered",
    "extension_refused",
    "extension_tools_gone",
    "input_handled",
]
"""The codes of ``status`` events."""

WarningCode = Literal[
    "extension_disabled",
    "extension_error",
    "extension_timeout",
    "images_left_out",
    "provider_aborted",
    "provider_retry",
    "provider_retry_exhausted",
    "tool_blocked",
    "tool_execution_error",
    "tool_execution_skipped",
    "tool_loop_limit_exceeded",
    "tool_not_active",
    "tool_not_found",
    "tool_validation_error",
    "torn_tail_recovered",
]
"""The codes of ``warning`` events."""

StartWarningCode = Literal["project_config_ignored"]
"""The codes in the ``warnings`` of ``ready``."""

if TYPE_CHECKING:
    StatusCodeField = StatusCode
    WarningCodeField = WarningCode
    StartWarningCodeField = StartWarningCode
else:
    # The type checker refuses a code that is not listed.  On the wire it is a string: later versions have more of them.
    StatusCodeField = WarningCodeField = StartWarningCodeField = str

RunStatus = Literal["completed", "aborted", "failed", "max_steps"]

Always = Meta(extra_json_schema={"x-nous-always": True})
"""Marks a field that v1 did not always have, and that nous always sends."""


class EventPayload(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``truncated_fields`` names the fields that were cut because the line would have been too long."""

    run_id: str
    truncated_fields: list[str] | UnsetType = UNSET


class InTurn(EventPayload, frozen=True, kw_only=True):
    """What all events within a turn have."""

    turn_id: str


class AgentStart(EventPayload, frozen=True, kw_only=True):
    """A run begins.  The first event of every run."""

    session_id: Annotated[str | UnsetType, Always] = UNSET
    leaf_id: Annotated[str | UnsetType, Always] = UNSET
    provider: Annotated[str | UnsetType, Always] = UNSET
    model: Annotated[str | UnsetType, Always] = UNSET


class Discarded(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A queued input that the run did not take; a long text is left out and only measured."""

    command_id: str
    kind: Literal["steer", "follow_up"]
    text: str
    text_bytes: int | UnsetType = UNSET
    text_omitted: bool | UnsetType = UNSET


class AgentEnd(EventPayload, frozen=True, kw_only=True):
    """A run has ended.  The last event of every run."""

    status: Annotated[RunStatus | UnsetType, Always] = UNSET
    stop_reason: Annotated[StopReason | UnsetType, Always] = UNSET
    usage: Annotated[Usage | UnsetType, Always] = UNSET
    cost_usd: float | UnsetType = UNSET
    duration_ms: Annotated[int | UnsetType, Always] = UNSET
    leaf_id: Annotated[str | UnsetType, Always] = UNSET
    discarded: Annotated[tuple[Discarded, ...] | UnsetType, Always] = UNSET
    output: Any = UNSET
    output_bytes: int | UnsetType = UNSET
    output_omitted: bool | UnsetType = UNSET
    untraced: bool | UnsetType = UNSET


class TurnStart(InTurn, frozen=True, kw_only=True):
    """A turn begins."""

    turn_kind: Annotated[TurnKind | UnsetType, Always] = UNSET
    command_id: Annotated[str | UnsetType, Always] = UNSET
    command_ids: tuple[str, ...] | UnsetType = UNSET


class TurnEnd(TurnStart, frozen=True, kw_only=True):
    """A turn has ended."""

    pass


class MessageStart(InTurn, frozen=True, kw_only=True):
    """A message begins."""

    message_id: str
    role: Role


class MessageUpdate(InTurn, frozen=True, kw_only=True):
    """More text of a message."""

    message_id: str
    delta: str


class MessageEnd(InTurn, frozen=True, kw_only=True):
    """A message is complete."""

    message_id: str
    role: Annotated[Role | UnsetType, Always] = UNSET
    text: str | UnsetType = UNSET
    text_bytes: int | UnsetType = UNSET
    text_omitted: bool | UnsetType = UNSET
    stop_reason: StopReason | UnsetType = UNSET
    finish_reason: str | UnsetType = UNSET
    usage: Usage | UnsetType = UNSET
    cost_usd: float | UnsetType = UNSET


class ToolExecutionStart(InTurn, frozen=True, kw_only=True):
    """``arguments`` is an object, or the model's text where it was not a JSON object."""

    tool_call_id: str
    tool_name: str
    arguments: Any = UNSET
    arguments_bytes: int | UnsetType = UNSET
    arguments_omitted: bool | UnsetType = UNSET


class ToolExecutionUpdate(InTurn, frozen=True, kw_only=True):
    """Output of a tool."""

    tool_call_id: str
    tool_name: str
    delta: str


class ToolExecutionEnd(InTurn, frozen=True, kw_only=True):
    """A tool call has ended."""

    tool_call_id: str
    tool_name: str
    result: str
    result_bytes: int | UnsetType = UNSET
    result_omitted: bool | UnsetType = UNSET
    is_error: Annotated[bool | UnsetType, Always] = UNSET
    duration_ms: Annotated[int | UnsetType, Always] = UNSET
    truncated: Annotated[bool | UnsetType, Always] = UNSET
    message_id: str | UnsetType = UNSET


class StartWarning(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something about the daemon's configuration that who uses it should know.  ``hint`` says what to do."""

    code: StartWarningCodeField
    message: str
    hint: str | UnsetType = UNSET


class StatusEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something worth showing.  ``ready`` and ``bye`` of the daemon have fields of their own."""

    message: str
    run_id: str | UnsetType = UNSET
    turn_id: str | UnsetType = UNSET
    code: StatusCodeField | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    extension: str | UnsetType = UNSET
    command_id: str | UnsetType = UNSET
    command_ids: tuple[str, ...] | UnsetType = UNSET
    protocol: str | UnsetType = UNSET
    server: str | UnsetType = UNSET
    version: str | UnsetType = UNSET
    pid: int | UnsetType = UNSET
    epoch: str | UnsetType = UNSET
    provider: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    max_line_bytes: int | UnsetType = UNSET
    max_event_bytes: int | UnsetType = UNSET
    features: tuple[str, ...] | UnsetType = UNSET
    truncated_fields: list[str] | UnsetType = UNSET
    warnings: tuple[StartWarning, ...] | UnsetType = UNSET


class WarningEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something went less well than asked; further fields depend on ``code``."""

    code: WarningCodeField
    message: str
    run_id: str | UnsetType = UNSET
    turn_id: str | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET
    tool_name: str | UnsetType = UNSET
    cause: str | UnsetType = UNSET
    limit: int | UnsetType = UNSET
    attempt: int | UnsetType = UNSET
    delay_ms: int | UnsetType = UNSET
    waited_ms: int | UnsetType = UNSET
    retry_after_ms: int | UnsetType = UNSET
    extension: str | UnsetType = UNSET
    version: str | UnsetType = UNSET
    hook: str | UnsetType = UNSET
    tool: str | UnsetType = UNSET
    operation_id: str | UnsetType = UNSET
    timeout_ms: int | UnsetType = UNSET
    elapsed_ms: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    consecutive_failures: int | UnsetType = UNSET
    message_ids: tuple[str, ...] | UnsetType = UNSET
    truncated_fields: list[str] | UnsetType = UNSET


class ErrorEvent(EventPayload, frozen=True, kw_only=True):
    """Why a run failed."""

    code: str
    message: str
    turn_id: str | UnsetType = UNSET
    cause: str | UnsetType = UNSET
    category: Annotated[str | UnsetType, Always] = UNSET
    retryable: Annotated[bool | UnsetType, Always] = UNSET


class ThinkingUpdate(InTurn, frozen=True, kw_only=True):
    """More of a model's thinking (feature ``thinking``)."""

    message_id: str
    delta: str


class ToolArgumentsUpdate(InTurn, frozen=True, kw_only=True):
    """More of a tool call's arguments (feature ``tool_arguments``)."""

    message_id: str
    tool_call_id: str
    delta: str


EVENTS: Final[dict[str, type[Struct]]] = {
    "agent_start": AgentStart,
    "agent_end": AgentEnd,
    "turn_start": TurnStart,
    "turn_end": TurnEnd,
    "message_start": MessageStart,
    "message_update": MessageUpdate,
    "message_end": MessageEnd,
    "tool_execution_start": ToolExecutionStart,
    "tool_execution_update": ToolExecutionUpdate,
    "tool_execution_end": ToolExecutionEnd,
    "status": StatusEvent,
    "warning": WarningEvent,
    "error": ErrorEvent,
}
"""The frozen event types, which take a ``seq``."""

FEATURE_EVENTS: Final[dict[str, tuple[Feature, type[Struct]]]] = {
    "thinking_update": ("thinking", ThinkingUpdate),
    "tool_arguments_update": ("tool_arguments", ToolArgumentsUpdate),
}

_TYPE_OF: Final[dict[type[Struct], bytes]] = {
    **{cls: name.encode() for name, cls in EVENTS.items()},
    **{cls: name.encode() for name, (_, cls) in FEATURE_EVENTS.items()},
}

_encoder = msgspec.json.Encoder()
encode_json = _encoder.encode


def event_line(run_id: bytes, seq: int, ts: bytes, payload: Struct) -> bytes:
    """Return the line (LF included) of a frozen event of a run."""
    return b'{"v":"1","id":"%b.%d","type":"%b","seq":%d,"ts":"%b","payload":%b}\n' % (
        run_id,
        seq,
        _TYPE_OF[type(payload)],
        seq,
        ts,
        encode_json(payload),
    )


def feature_line(run_id: bytes, after_seq: int, k: int, ts: bytes, payload: Struct) -> bytes:
    """Return the line (LF included) of a feature event: no ``seq`` of its own."""
    return b'{"v":"1","id":"%b.%d.%d","type":"%b","after_seq":%d,"ts":"%b","payload":%b}\n' % (
        run_id,
        after_seq,
        k,
        _TYPE_OF[type(payload)],
        after_seq,
        ts,
        encode_json(payload),
    )


def daemon_line(number: int, ts: str, payload: StatusEvent | WarningEvent, max_bytes: int) -> bytes:
    """Return the line (LF included) of an event outside any run, no longer than ``max_bytes``."""
    return b'{"v":"1","id":"evt-%d","type":"%b","ts":"%b","payload":%b}\n' % (
        number,
        _TYPE_OF[type(payload)],
        ts.encode(),
        bound_payload(encode_json(payload), max_bytes),
    )


UNTRACED_BYTES: Final = 64 * 1024
"""The bound of an event that no trace holds: the least ``max_event_bytes``."""


def untraced_line(run_id: str, number: int, ts: str, payload: Struct) -> bytes:
    """Return the line (LF included) of an event that no trace holds: it takes no ``seq``."""
    return b'{"v":"1","id":"%b.untraced.%d","type":"%b","ts":"%b","payload":%b}\n' % (
        run_id.encode(),
        number,
        _TYPE_OF[type(payload)],
        ts.encode(),
        bound_payload(encode_json(payload), UNTRACED_BYTES),
    )


class DeltaTemplate:
    """Writes the lines of one message's deltas: everything but ``seq``, time and text is spliced in once.

    This is the hot path of a streaming run: one bytes operation and one string encoding per delta.
    """

    __slots__ = ("_format",)

    def __init__(self, run_id: str, turn_id: str, message_id: str) -> None:
        payload = b'{"run_id":"%b","turn_id":"%b","message_id":"%b","delta":' % (
            run_id.encode(),
            turn_id.encode(),
            message_id.encode(),
        )
        head = b'{"v":"1","id":"%b.' % run_id.encode()
        self._format = head + b'%d","type":"message_update","seq":%d,"ts":"%b","payload":' + payload + b"%b}}\n"

    def line(self, seq: int, ts: bytes, delta: bytes) -> bytes:
        """Return one line; ``delta`` is the text as JSON, quotes included."""
        return self._format % (seq, seq, ts, delta)
