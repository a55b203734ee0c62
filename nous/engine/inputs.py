"""What can happen to a run, in the past tense.  Tagged, because a trace records them (``kind`` and ``data``)."""

from typing import Literal

from msgspec import Struct

from nous.ports.extensions import HookOutcome
from nous.ports.model import ModelItem
from nous.ports.tool import Outcome
from nous.protocol.commands import QueueMode
from nous.protocol.entries import Summariser
from nous.protocol.messages import ImageBlock


class Stamp(Struct, frozen=True):
    """When an input entered: ``ts`` RFC 3339 UTC for people, ``mono_ns`` for durations."""

    ts: str
    mono_ns: int


class RunStarted(Struct, frozen=True, tag="run_started", omit_defaults=True):
    """The prompt that made the run.  Always the first input."""

    command_id: str
    text: str
    images: tuple[ImageBlock, ...] = ()


class Steered(Struct, frozen=True, tag="steered"):
    """A steer arrived."""

    command_id: str
    text: str


class FollowedUp(Struct, frozen=True, tag="followed_up"):
    """A follow-up arrived."""

    command_id: str
    text: str


AbortReason = Literal["client", "eof", "signal", "client_gone", "shutdown"]


class AbortRequested(Struct, frozen=True, tag="abort_requested"):
    """Somebody wants the run to end."""

    command_id: str
    reason: AbortReason = "client"


class SteeringModeSet(Struct, frozen=True, tag="steering_mode_set"):
    """How many queued steers the next turn takes was changed."""

    mode: QueueMode


class FollowUpModeSet(Struct, frozen=True, tag="follow_up_mode_set"):
    """How many queued follow-ups the next turn takes was changed."""

    mode: QueueMode


class ToolsSet(Struct, frozen=True, tag="tools_set"):
    """The active tools were changed."""

    tools: tuple[str, ...]


class ModelProduced(Struct, frozen=True, tag="model_produced"):
    """Items of one network read.  How items are grouped makes no difference to what the run does."""

    call: int
    items: list[ModelItem]


class ModelDone(Struct, frozen=True, tag="model_done"):
    """The call's stream has ended in good order."""

    call: int


class ModelFailed(Struct, frozen=True, tag="model_failed", omit_defaults=True):
    """The call ended otherwise; ``code`` is a code of the taxonomy.

    ``refused_images`` names the messages whose images are to be left out of the next request, if the provider refused
    this one because of an image.
    """

    call: int
    code: str
    cause: str | None = None
    retry_after_ms: int | None = None
    refused_images: tuple[str, ...] = ()


class PolicyAnswered(Struct, frozen=True, tag="policy_answered", omit_defaults=True):
    """The policy has decided about a tool call."""

    tool_call_id: str
    allow: bool
    reason: str | None = None


class ToolProgressed(Struct, frozen=True, tag="tool_progressed"):
    """A tool has shown some output."""

    tool_call_id: str
    text: str


class ToolDone(Struct, frozen=True, tag="tool_done", omit_defaults=True):
    """A tool call has ended, however it did."""

    tool_call_id: str
    text: str
    outcome: Outcome
    truncated: bool
    images: tuple[ImageBlock, ...] = ()


class OutputChecked(Struct, frozen=True, tag="output_checked", omit_defaults=True):
    """What was found out about an answer that is to fit a schema.

    ``fault`` says what is wrong with it, beginning with the JSON path of the place; None: nothing is.
    """

    entry_id: str
    fault: str | None = None


class EntryStored(Struct, frozen=True, tag="entry_stored", omit_defaults=True):
    """The session holds the entry: it survives the death of this process.

    For a compaction, ``context_digest`` and ``context_tokens`` say what the context has become.
    """

    entry_id: str
    context_digest: str | None = None
    context_tokens: int = 0


class EntryFailed(Struct, frozen=True, tag="entry_failed", omit_defaults=True):
    """An entry could not be stored."""

    entry_id: str
    code: str
    cause: str | None = None


class CompactionStarted(Struct, frozen=True, tag="compaction_started"):
    """A client's ``compact_session``: the first input of a run without turns."""

    command_id: str
    instruction: str


class CompactionPlanned(Struct, frozen=True, tag="compaction_planned"):
    """What is to be summarised: all before ``first_kept_entry_id``.  ``fallback`` is a summary made without a model."""

    entry_id: str
    first_kept_entry_id: str
    tokens_before: int
    by: Summariser
    fallback: str


class CompactionRefused(Struct, frozen=True, tag="compaction_refused"):
    """There is nothing to compact."""

    entry_id: str


class HookAnswered(Struct, frozen=True, tag="hook_answered"):
    """What all extensions of a hook came to, their failures included."""

    operation: int
    outcome: HookOutcome


TimerName = Literal["abort_grace", "provider_retry"]


class TimerFired(Struct, frozen=True, tag="timer_fired"):
    """A timer's delay has passed."""

    timer: TimerName


Input = (
    RunStarted
    | Steered
    | FollowedUp
    | AbortRequested
    | SteeringModeSet
    | FollowUpModeSet
    | ToolsSet
    | ModelProduced
    | ModelDone
    | ModelFailed
    | PolicyAnswered
    | ToolProgressed
    | ToolDone
    | OutputChecked
    | EntryStored
    | CompactionStarted
    | CompactionPlanned
    | CompactionRefused
    | EntryFailed
    | HookAnswered
    | TimerFired
)
