"""What a part of the run machine asks the machine to do next: a named value, never a closure.

A handler returns a step, or None if the run goes on waiting where it waits.  Only the machine carries steps out, and
only it sets the run's state.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from nous.engine.queues import Queued
from nous.engine.transitions import AfterHook, Phase
from nous.ports.extensions import HookName, HookOutcome
from nous.protocol.entries import Trigger
from nous.protocol.messages import ImageBlock, Message, ToolCallBlock, TurnKind


class Offer(NamedTuple):
    """The inputs of a turn that has not begun, and the text they make."""

    kind: TurnKind
    inputs: list[Queued]
    text: str
    images: tuple[ImageBlock, ...]


class Await(NamedTuple):
    """Wait in ``state`` for the input that answers the effect."""

    state: Phase


class OpenTurn(NamedTuple):
    """Begin a turn: its message is stored."""

    offer: Offer


class NextCall(NamedTuple):
    """Make the turn's next model call, unless a steer waits or the limit is reached."""


class RetryCall(NamedTuple):
    """Make the last model call again; both count as one of the turn's."""


class RunTools(NamedTuple):
    """Run an answer's tool calls; with ``cut_text`` each is answered with it instead, because the answer was cut."""

    calls: tuple[ToolCallBlock, ...]
    cut_text: str


class CheckAnswer(NamedTuple):
    """Have a stored answer checked against the run's output schema."""

    answer: Message


class NextTurn(NamedTuple):
    """End the turn; compact if the context has grown past the threshold; begin the next turn or complete the run."""


class TakeTurn(NamedTuple):
    """Begin the turn of what is queued, or complete the run."""


class CompleteTurn(NamedTuple):
    """End the turn and complete the run, whatever is queued."""


class Complete(NamedTuple):
    """End the run as completed."""


class EndAborted(NamedTuple):
    """End the run as aborted: what is open is closed."""


class Fail(NamedTuple):
    """End the run as failed: what is open is closed, then ``error`` says why."""

    code: str
    cause: str | None


class Compact(NamedTuple):
    """Compact the conversation, then take ``then``; if nothing can be compacted, ``otherwise``."""

    trigger: Trigger
    then: Step
    otherwise: Step


class AskHook(NamedTuple):
    """Ask the extensions of a hook, at once answered if there are none; ``then`` names who takes the answer."""

    hook: HookName
    payload: dict[str, Any]
    then: AfterHook


class Resume(NamedTuple):
    """Go on with what the extensions answered."""

    then: AfterHook
    outcome: HookOutcome


Step: TypeAlias = (
    Await
    | OpenTurn
    | NextCall
    | RetryCall
    | RunTools
    | CheckAnswer
    | NextTurn
    | TakeTurn
    | CompleteTurn
    | Complete
    | EndAborted
    | Fail
    | Compact
    | AskHook
    | Resume
)
