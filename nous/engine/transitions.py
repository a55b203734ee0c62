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


class State(Enum):
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


class Row(NamedTuple):
    """In ``state``, ``input`` is handled by ``handler``, which leads to one of ``to``."""

    state: State
    input: type[Input]
    handler: str
    to: frozenset[State]


_ACTIVE: Final = tuple(s for s in State if s not in (State.READY, State.ENDED))

STOPPED_AT_ONCE: Final = (
    State.CALLING,
    State.AWAITING_RETRY,
    State.ASKING,
    State.PLANNING,
    State.SUMMARISING,
    State.CHECKING_OUTPUT,
    State.IN_HOOK,
)
"""Where an abort ends a run without waiting for anything."""

_STORING: Final = frozenset({State.STORING_INPUT, State.STORING_ANSWER, State.STORING_RESULT, State.STORING_SUMMARY})

# Where a run may stand once the parts of a turn were dealt with.
_NEXT_TURN: Final = frozenset({State.STORING_INPUT, State.PLANNING, State.IN_HOOK, State.ENDED})
_NEXT_CALL: Final = _NEXT_TURN | {State.CALLING}
_NO_ANSWER: Final = frozenset({State.AWAITING_RETRY, State.ENDED})
_SUMMARY: Final = frozenset({State.SUMMARISING, State.STORING_SUMMARY})
_NEXT_TOOL: Final = frozenset({State.ASKING, State.IN_HOOK, State.STORING_RESULT})

AFTER_HOOK: Final[dict[AfterHook, frozenset[State]]] = {
    AfterHook.OFFER_INPUT: frozenset({State.STORING_INPUT, State.IN_HOOK, State.ENDED}),
    AfterHook.BEGIN_TURN: frozenset({State.STORING_INPUT, State.IN_HOOK, State.ENDED}),
    AfterHook.TOOL_CALL: frozenset({State.ASKING, State.STORING_RESULT}),
    AfterHook.TOOL_RESULT: frozenset({State.STORING_RESULT}),
    AfterHook.COMPACTION: frozenset({State.PLANNING, State.STORING_INPUT, State.IN_HOOK, State.ENDED}),
}
"""Where a run may stand after a hook's answer, by what goes on with it."""


def _rows() -> list[Row]:
    s = State
    ended = frozenset({s.ENDED})
    rows = [
        Row(s.READY, RunStarted, "on_run_started", frozenset({s.STORING_INPUT, s.IN_HOOK})),
        Row(s.STORING_INPUT, EntryStored, "on_input_stored", _NEXT_CALL),
        Row(s.STORING_INPUT, EntryFailed, "on_entry_failed", ended),
        Row(s.CALLING, ModelProduced, "calls.on_model_produced", frozenset({s.CALLING, s.ENDED})),
        Row(s.CALLING, ModelDone, "calls.on_model_done", _NO_ANSWER | {s.STORING_ANSWER}),
        Row(s.CALLING, ModelFailed, "calls.on_model_failed", _NO_ANSWER | _NEXT_CALL),
        Row(s.AWAITING_RETRY, TimerFired, "calls.on_retry_due", _NEXT_CALL - {s.ENDED}),
        Row(s.STORING_ANSWER, EntryStored, "calls.on_answer_stored", _NEXT_TOOL | _NEXT_TURN | {s.CHECKING_OUTPUT}),
        Row(s.STORING_ANSWER, EntryFailed, "on_entry_failed", ended),
        Row(s.CHECKING_OUTPUT, OutputChecked, "output.on_output_checked", ended),
        Row(s.ASKING, PolicyAnswered, "tools.on_policy_answered", frozenset({s.RUNNING_TOOL, s.STORING_RESULT})),
        Row(s.RUNNING_TOOL, ToolProgressed, "tools.on_tool_progressed", frozenset({s.RUNNING_TOOL})),
        Row(s.RUNNING_TOOL, ToolDone, "tools.on_tool_done", frozenset({s.STORING_RESULT, s.IN_HOOK})),
        Row(s.STOPPING_TOOL, ToolProgressed, "tools.on_tool_progressed", frozenset({s.STOPPING_TOOL})),
        Row(s.STOPPING_TOOL, ToolDone, "tools.on_tool_done", frozenset({s.STORING_RESULT})),
        Row(s.STORING_RESULT, EntryStored, "tools.on_result_stored", _NEXT_TOOL | _NEXT_CALL),
        Row(s.STORING_RESULT, EntryFailed, "on_entry_failed", ended),
        Row(s.STOPPING_TOOL, TimerFired, "on_timer_fired", ended),
        Row(s.READY, CompactionStarted, "compaction.on_compaction_started", frozenset({s.PLANNING, s.IN_HOOK})),
        Row(s.PLANNING, CompactionPlanned, "compaction.on_compaction_planned", _SUMMARY),
        Row(s.PLANNING, CompactionRefused, "compaction.on_compaction_refused", _NEXT_TURN - {s.PLANNING}),
        Row(s.SUMMARISING, ModelProduced, "compaction.on_summary_produced", _SUMMARY),
        Row(s.SUMMARISING, ModelDone, "compaction.on_summary_done", frozenset({s.STORING_SUMMARY})),
        Row(s.SUMMARISING, ModelFailed, "compaction.on_summary_failed", frozenset({s.STORING_SUMMARY})),
        Row(s.STORING_SUMMARY, EntryStored, "compaction.on_compaction_stored", _NEXT_CALL),
        Row(s.STORING_SUMMARY, EntryFailed, "on_entry_failed", ended),
        Row(s.IN_HOOK, HookAnswered, "hooks.on_hook_answered", frozenset().union(*AFTER_HOOK.values())),
    ]
    rows += [Row(state, TimerFired, "on_timer_fired", ended) for state in State if state in _STORING]
    for state in _ACTIVE:
        same = frozenset({state})
        stopping = frozenset({s.STOPPING_TOOL}) if state is s.RUNNING_TOOL else same
        rows += [
            Row(state, AbortRequested, "on_abort_requested", ended if state in STOPPED_AT_ONCE else stopping),
            Row(state, Steered, "on_steered", same),
            Row(state, FollowedUp, "on_followed_up", same),
            Row(state, SteeringModeSet, "on_steering_mode_set", same),
            Row(state, FollowUpModeSet, "on_follow_up_mode_set", same),
            Row(state, ToolsSet, "on_tools_set", same),
        ]
    return rows


TRANSITIONS: Final[dict[tuple[State, type[Input]], Row]] = {(r.state, r.input): r for r in _rows()}
