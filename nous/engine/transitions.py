"""States and transitions of a run, as one table.  The diagram in the docs is drawn from it.

Late news is ignored: a pair (state, input) that has no row, or an input that names another model call, tool call or
entry than the one the run waits for.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from nous.engine.inputs import (
    AbortRequested,
    CompactionPlanned,
    CompactionRefused,
    CompactionStarted,
    EntryFailed,
    EntryStored,
    FollowedUp,
    FollowUpModeSet,
    HookAnswered,
    Input,
    ModelDone,
    ModelFailed,
    ModelProduced,
    OutputChecked,
    PolicyAnswered,
    RunStarted,
    Steered,
    SteeringModeSet,
    TimerFired,
    ToolDone,
    ToolProgressed,
    ToolsSet,
)


class Phase(Enum):
    """Where a run stands: what it waits for."""

    READY = "ready"
    STORING_INPUT = "storing_input"
    CALLING = "calling"
    AWAITING_RETRY = "awaiting_retry"
    STORING_ANSWER = "storing_answer"
    ASKING = "asking"
    RUNNING_TOOL = "running_tool"
    STOPPING_TOOL = "stopping_tool"
    STORING_RESULT = "storing_result"
    PLANNING = "planning"
    SUMMARISING = "summarising"
    STORING_SUMMARY = "storing_summary"
    CHECKING_OUTPUT = "checking_output"
    IN_HOOK = "in_hook"
    ENDED = "ended"


class AfterHook(Enum):
    """What goes on once the extensions have answered a hook."""

    OFFER_INPUT = "offer_input"
    BEGIN_TURN = "begin_turn"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    COMPACTION = "compaction"


class Transition(NamedTuple):
    """In ``state``, ``input`` is handled by ``handler``, which leads to one of ``to``."""

    state: Phase
    input: type[Input]
    handler: str
    to: frozenset[Phase]


_ACTIVE: Final = tuple(s for s in Phase if s not in (Phase.READY, Phase.ENDED))

STOPPED_AT_ONCE: Final = (
    Phase.CALLING,
    Phase.AWAITING_RETRY,
    Phase.ASKING,
    Phase.PLANNING,
    Phase.SUMMARISING,
    Phase.CHECKING_OUTPUT,
    Phase.IN_HOOK,
)
"""Where an abort ends a run without waiting for anything."""

_STORING: Final = frozenset({Phase.STORING_INPUT, Phase.STORING_ANSWER, Phase.STORING_RESULT, Phase.STORING_SUMMARY})

# Where a run may stand once the parts of a turn were dealt with.
_NEXT_TURN: Final = frozenset({Phase.STORING_INPUT, Phase.PLANNING, Phase.IN_HOOK, Phase.ENDED})
_NEXT_CALL: Final = _NEXT_TURN | {Phase.CALLING}
_NO_ANSWER: Final = frozenset({Phase.AWAITING_RETRY, Phase.ENDED})
_SUMMARY: Final = frozenset({Phase.SUMMARISING, Phase.STORING_SUMMARY})
_NEXT_TOOL: Final = frozenset({Phase.ASKING, Phase.IN_HOOK, Phase.STORING_RESULT})

AFTER_HOOK: Final[dict[AfterHook, frozenset[Phase]]] = {
    AfterHook.OFFER_INPUT: frozenset({Phase.STORING_INPUT, Phase.IN_HOOK, Phase.ENDED}),
    AfterHook.BEGIN_TURN: frozenset({Phase.STORING_INPUT, Phase.IN_HOOK, Phase.ENDED}),
    AfterHook.TOOL_CALL: frozenset({Phase.ASKING, Phase.STORING_RESULT}),
    AfterHook.TOOL_RESULT: frozenset({Phase.STORING_RESULT}),
    AfterHook.COMPACTION: frozenset({Phase.PLANNING, Phase.STORING_INPUT, Phase.IN_HOOK, Phase.ENDED}),
}
"""Where a run may stand after a hook's answer, by what goes on with it."""


def _rows() -> list[Transition]:
    s = Phase
    ended = frozenset({s.ENDED})
    rows = [
        Transition(s.READY, RunStarted, "on_run_started", frozenset({s.STORING_INPUT, s.IN_HOOK})),
        Transition(s.STORING_INPUT, EntryStored, "on_input_stored", _NEXT_CALL),
        Transition(s.STORING_INPUT, EntryFailed, "on_entry_failed", ended),
        Transition(s.CALLING, ModelProduced, "calls.on_model_produced", frozenset({s.CALLING, s.ENDED})),
        Transition(s.CALLING, ModelDone, "calls.on_model_done", _NO_ANSWER | {s.STORING_ANSWER}),
        Transition(s.CALLING, ModelFailed, "calls.on_model_failed", _NO_ANSWER | _NEXT_CALL),
        Transition(s.AWAITING_RETRY, TimerFired, "calls.on_retry_due", _NEXT_CALL - {s.ENDED}),
        Transition(
            s.STORING_ANSWER, EntryStored, "calls.on_answer_stored", _NEXT_TOOL | _NEXT_TURN | {s.CHECKING_OUTPUT}
        ),
        Transition(s.STORING_ANSWER, EntryFailed, "on_entry_failed", ended),
        Transition(s.CHECKING_OUTPUT, OutputChecked, "output.on_output_checked", ended),
        Transition(s.ASKING, PolicyAnswered, "tools.on_policy_answered", frozenset({s.RUNNING_TOOL, s.STORING_RESULT})),
        Transition(s.RUNNING_TOOL, ToolProgressed, "tools.on_tool_progressed", frozenset({s.RUNNING_TOOL})),
        Transition(s.RUNNING_TOOL, ToolDone, "tools.on_tool_done", frozenset({s.STORING_RESULT, s.IN_HOOK})),
        Transition(s.STOPPING_TOOL, ToolProgressed, "tools.on_tool_progressed", frozenset({s.STOPPING_TOOL})),
        Transition(s.STOPPING_TOOL, ToolDone, "tools.on_tool_done", frozenset({s.STORING_RESULT})),
        Transition(s.STORING_RESULT, EntryStored, "tools.on_result_stored", _NEXT_TOOL | _NEXT_CALL),
        Transition(s.STORING_RESULT, EntryFailed, "on_entry_failed", ended),
        Transition(s.STOPPING_TOOL, TimerFired, "on_timer_fired", ended),
        Transition(s.READY, CompactionStarted, "compaction.on_compaction_started", frozenset({s.PLANNING, s.IN_HOOK})),
        Transition(s.PLANNING, CompactionPlanned, "compaction.on_compaction_planned", _SUMMARY),
        Transition(s.PLANNING, CompactionRefused, "compaction.on_compaction_refused", _NEXT_TURN - {s.PLANNING}),
        Transition(s.SUMMARISING, ModelProduced, "compaction.on_summary_produced", _SUMMARY),
        Transition(s.SUMMARISING, ModelDone, "compaction.on_summary_done", frozenset({s.STORING_SUMMARY})),
        Transition(s.SUMMARISING, ModelFailed, "compaction.on_summary_failed", frozenset({s.STORING_SUMMARY})),
        Transition(s.STORING_SUMMARY, EntryStored, "compaction.on_compaction_stored", _NEXT_CALL),
        Transition(s.STORING_SUMMARY, EntryFailed, "on_entry_failed", ended),
        Transition(s.IN_HOOK, HookAnswered, "hooks.on_hook_answered", frozenset().union(*AFTER_HOOK.values())),
    ]
    rows += [Transition(state, TimerFired, "on_timer_fired", ended) for state in Phase if state in _STORING]
    for state in _ACTIVE:
        same = frozenset({state})
        stopping = frozenset({s.STOPPING_TOOL}) if state is s.RUNNING_TOOL else same
        rows += [
            Transition(state, AbortRequested, "on_abort_requested", ended if state in STOPPED_AT_ONCE else stopping),
            Transition(state, Steered, "on_steered", same),
            Transition(state, FollowedUp, "on_followed_up", same),
            Transition(state, SteeringModeSet, "on_steering_mode_set", same),
            Transition(state, FollowUpModeSet, "on_follow_up_mode_set", same),
            Transition(state, ToolsSet, "on_tools_set", same),
        ]
    return rows


TRANSITIONS: Final[dict[tuple[Phase, type[Input]], Transition]] = {(r.state, r.input): r for r in _rows()}
