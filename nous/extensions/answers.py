"""What an extension may answer to each hook.  Pure.

Strict, other than the rest of the host protocol: a guard that answers ``{"blok": "no"}`` must not pass for one that
has nothing against it.  What is not of this shape is a failure of the hook.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct, structs

from nous.extensions.pending import CallFailedError
from nous.extensions.wire import ResultLine
from nous.ports.extensions import HookName, HookOutcome

Reason = Annotated[str, Meta(min_length=1, max_length=4096)]


class Told(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing can be changed."""


class Gate(Told, frozen=True):
    """``block``: the reason why what was asked about is not to happen."""

    block: Reason | None = None


class InputAnswer(Gate, frozen=True):
    """``text`` takes the place of what was said; ``handled``: no model is needed, the client is told ``text``."""

    text: str | None = None
    handled: bool = False


class ToolCallAnswer(Gate, frozen=True):
    """``arguments`` take the place of the call's."""

    arguments: dict[str, Any] | None = None


class ToolResultAnswer(Told, frozen=True):
    """``text`` takes the place of the result's; ``is_error`` says anew whether it is one."""

    text: str | None = None
    is_error: bool | None = None


class CancelAnswer(Told, frozen=True):
    """``cancel``: the reason why it is not to happen."""

    cancel: Reason | None = None


ANSWERS: Final[dict[HookName, type[Told]]] = {
    "input": InputAnswer,
    "before_agent_start": Gate,
    "run_start": Gate,
    "turn_start": Gate,
    "tool_call": ToolCallAnswer,
    "tool_result": ToolResultAnswer,
    "turn_end": Told,
    "run_end": Told,
    "session_before_switch": CancelAnswer,
    "session_before_fork": CancelAnswer,
    "before_compact": CancelAnswer,
}


def read_answer(hook: HookName, result: ResultLine) -> HookOutcome:
    """Return what an answer changes.

    Raises:
        CallFailedError: it is an error, or none for this hook.
    """
    if result.error is not None:
        raise CallFailedError("extension_error", f"it answered with an error: {result.error}")
    try:
        answer = structs.asdict(msgspec.convert(result.value, ANSWERS[hook]))
    except msgspec.ValidationError as error:
        raise CallFailedError("extension_error", f"its answer does not fit the hook {hook}: {error}") from None
    cancelled = answer.pop("cancel", None)
    return HookOutcome(**answer) if cancelled is None else HookOutcome(block=cancelled)
