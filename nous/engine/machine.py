"""The run machine: one method takes every input, one table names the part that handles it, and only here the state
changes.

A part's handler returns a step (:mod:`nous.engine.steps`), which the machine carries out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from msgspec import UNSET

from nous.engine.compaction import CompactionPart
from nous.engine.effects import Effect, StartTimer, StopTool
from nous.engine.emitter import EmittedEvent
from nous.engine.hooks import HookPart
from nous.engine.inputs import (
    AbortRequested,
    EntryFailed,
    EntryStored,
    FollowedUp,
    FollowUpModeSet,
    Input,
    RunStarted,
    Stamp,
    Steered,
    SteeringModeSet,
    TimerFired,
    ToolsSet,
)
from nous.engine.modelcall import ModelCalls
from nous.engine.output import OutputPart
from nous.engine.queues import Queued
from nous.engine.run_state import RunState
from nous.engine.spec import RunSpec
from nous.engine.steps import (
    AskHook,
    Await,
    CheckAnswer,
    Compact,
    Complete,
    CompleteTurn,
    EndAborted,
    Fail,
    NextCall,
    NextTurn,
    Offer,
    OpenTurn,
    Resume,
    RetryCall,
    RunTools,
    Step,
    TakeTurn,
)
from nous.engine.toolround import ToolRound
from nous.engine.transitions import STOPPED_AT_ONCE, TRANSITIONS, AfterHook, Phase
from nous.errors import WIRE_CODES, NousError
from nous.ports.extensions import HookOutcome
from nous.ports.model import ModelItem
from nous.protocol.events import AgentEnd, ErrorEvent, RunStatus, TurnStart
from nous.protocol.messages import ImageBlock, StopReason, TextBlock, TurnKind

_HANDLERS: Final[Mapping[str, Callable[[RunMachine], Callable[[Any], Step | None]]]] = {
    row.handler: attrgetter(row.handler) for row in TRANSITIONS.values()
}
"""Returns a machine's handler, for each one that the table names."""


class RunMachine:
    """One run, from its prompt to its ``agent_end``; then ``status`` and, if it failed, ``failure`` are set.

    ``receive`` never raises on a well-typed input: one that has no row in the table comes too late and is ignored.
    ``take_events`` and ``take_effects`` hand over what has come up since they were last called, in order.
    """

    def __init__(self, spec: RunSpec) -> None:
        self.run = run = RunState(spec)
        self.state = Phase.READY
        self.status: RunStatus | None = None
        self.failure: NousError | None = None
        self.calls = ModelCalls(run)
        self.output = OutputPart(run)
        self.tools = ToolRound(run)
        self.compaction = CompactionPart(run)
        self.hooks = HookPart(run)

    # -- one way in, two ways out

    def receive(self, stamp: Stamp, item: Input) -> None:
        """Handle an input that came at ``stamp``."""
        row = TRANSITIONS.get((self.state, type(item)))
        if row is None:
            return
        run = self.run
        if stamp.ts is not run.stamp.ts:
            run.emitter.ts = stamp.ts.encode()
        run.stamp = stamp
        step = _HANDLERS[row.handler](self)(item)
        while step is not None:
            step = _CARRIED_OUT[type(step)](self, step)

    def take_events(self) -> list[EmittedEvent]:
        """Return the events since the last call."""
        emitter = self.run.emitter
        out, emitter.out = emitter.out, []
        return out

    def take_effects(self) -> list[Effect]:
        """Return the effects since the last call."""
        out, self.run.effects = self.run.effects, []
        return out

    @property
    def spec(self) -> RunSpec:
        """What the run was made with."""
        return self.run.spec

    @property
    def ended(self) -> bool:
        """Whether ``agent_end`` was emitted."""
        return self.state is Phase.ENDED

    def elides(self, items: Sequence[ModelItem]) -> bool:
        """Return whether a trace may leave out a :class:`ModelProduced` with these items.

        It may if each item causes exactly one event that holds all of it, so that the input can be made again from
        the events.
        """
        return self.state is Phase.CALLING and self.calls.elides(items)

    # -- turns

    def on_run_started(self, item: RunStarted) -> Step:
        """Begin the run with its prompt."""
        self.run.announce()
        return self._start_turn("prompt", [Queued(item.command_id, item.text)], item.images)

    def _start_turn(self, kind: TurnKind, inputs: list[Queued], images: tuple[ImageBlock, ...] = ()) -> Step:
        """Ask the extensions whether, with what text, and whether now; then begin a turn."""
        offer = Offer(kind, inputs, "\n".join(q.text for q in inputs), images)
        return self.hooks.offer(offer) if self.run.spec.hooks else OpenTurn(offer)

    def _open_turn(self, step: OpenTurn) -> Step:
        kind, inputs, text, images = step.offer
        run = self.run
        run.turn_id = str(int(run.turn_id or "0") + 1)
        run.calls_in_turn = 0
        ids = tuple(q.command_id for q in inputs)
        run.turn = TurnStart(
            run_id=run.spec.run_id,
            turn_id=run.turn_id,
            turn_kind=kind,
            command_id=ids[0],
            command_ids=ids if len(ids) > 1 else UNSET,
        )
        run.emitter.emit(run.turn)
        blocks = (TextBlock(text), *images) if images else ()
        message = run.make_message(run.next_message_id(), "user", text, turn_kind=kind, blocks=blocks)
        run.emit_message_start(message.id, "user")
        run.store(message)
        return Await(Phase.STORING_INPUT)

    def on_input_stored(self, item: EntryStored) -> Step | None:
        """Show the turn's message as stored and make the first model call."""
        run = self.run
        message = run.stored(item)
        if message is None:
            return None
        run.emit_message_end(message.id, "user", message.text)
        return EndAborted() if run.aborting else NextCall()

    def on_entry_failed(self, item: EntryFailed) -> Step | None:
        """Fail the run if the entry is the one that it waits for."""
        storing = self.run.storing
        is_awaited = storing is not None and storing.id == item.entry_id
        if is_awaited or self.compaction.is_storing(item.entry_id):
            return Fail(item.code, item.cause)
        return None

    def _next_call(self, step: NextCall) -> Step | None:
        run = self.run
        limit = run.spec.limits.max_model_calls
        if run.queues.steered:
            return NextTurn()
        if run.calls_in_turn < limit:
            return self.calls.begin()
        run.warn("tool_loop_limit_exceeded", f"The turn reached {limit} model calls.", limit=limit)
        run.end_turn()
        self._end("max_steps")
        return None

    def _next_turn(self, step: NextTurn) -> Step:
        self.run.end_turn()
        return Compact("threshold", TakeTurn(), TakeTurn()) if self.compaction.is_due else TakeTurn()

    def _take_turn(self, step: TakeTurn) -> Step:
        taken = self.run.queues.take()
        return Complete() if taken is None else self._start_turn(*taken)

    def _complete_turn(self, step: CompleteTurn) -> Step:
        self.run.end_turn()
        return Complete()

    # -- steps that a part carries out

    def _await(self, step: Await) -> None:
        self.state = step.state

    def _retry_call(self, step: RetryCall) -> Step:
        return self.calls.retry()

    def _run_tools(self, step: RunTools) -> Step:
        return self.tools.begin(step.calls, step.cut_text)

    def _check_answer(self, step: CheckAnswer) -> Step:
        return self.output.check(step.answer)

    def _compact(self, step: Compact) -> Step:
        return self.compaction.begin(step)

    def _ask_hook(self, step: AskHook) -> Step:
        return self.hooks.ask(step)

    def _resume(self, step: Resume) -> Step:
        return _RESUMED[step.then](self)(step.outcome)

    # -- inputs that may come at any time

    def on_steered(self, item: Steered) -> None:
        """Queue a steer."""
        self.run.queues.add("steer", item.command_id, item.text)

    def on_followed_up(self, item: FollowedUp) -> None:
        """Queue a follow-up."""
        self.run.queues.add("follow_up", item.command_id, item.text)

    def on_steering_mode_set(self, item: SteeringModeSet) -> None:
        """Take the new mode."""
        self.run.queues.modes["steer"] = item.mode

    def on_follow_up_mode_set(self, item: FollowUpModeSet) -> None:
        """Take the new mode."""
        self.run.queues.modes["follow_up"] = item.mode

    def on_tools_set(self, item: ToolsSet) -> None:
        """Use other tools from the next model call on."""
        if not self.run.forbids_tools:
            self.run.active_tools = item.tools

    def on_abort_requested(self, item: AbortRequested) -> Step | None:
        """End the run as aborted, at once or once its tool or entry is done; never later than the grace."""
        run = self.run
        if run.aborting:
            return None
        run.aborting = True
        if self.state is Phase.CALLING:
            self.calls.stop()
            run.warn("provider_aborted", "The model call was stopped.")
            return EndAborted()
        if self.state in STOPPED_AT_ONCE:
            self.compaction.stop()
            self.hooks.stop()
            return EndAborted()
        grace = StartTimer("abort_grace", run.spec.limits.abort_grace_ms)
        if self.state is not Phase.RUNNING_TOOL:
            run.effects.append(grace)
            return None
        run.effects += [StopTool(self.tools.current_id), grace]
        return Await(Phase.STOPPING_TOOL)

    def on_timer_fired(self, item: TimerFired) -> Step | None:
        """End an aborted run whose grace is over."""
        return EndAborted() if self.run.aborting and item.timer == "abort_grace" else None

    # -- endings

    def _complete(self, step: Complete) -> None:
        self._end("completed")

    def _end_aborted(self, step: EndAborted) -> None:
        self.run.stop_reason = "aborted"
        self._close_open_parts("aborted")
        self.run.end_turn()
        self._end("aborted")

    def _fail(self, step: Fail) -> None:
        run = self.run
        error = self.failure = NousError(step.code if step.code in WIRE_CODES else "internal_error", step.cause)
        run.stop_reason = "error"
        self._close_open_parts("error")
        run.emitter.emit(
            ErrorEvent(
                run_id=run.spec.run_id,
                turn_id=run.open_turn_id(),
                code=error.code,
                message=error.full_message if run.spec.error_reasons else error.message,
                category=error.category,
                retryable=error.retryable,
                cause=UNSET if error.cause is None else error.cause,
            )
        )
        run.end_turn()
        self._end("failed")

    def _close_open_parts(self, stop_reason: StopReason) -> None:
        run = self.run
        storing, run.storing = run.storing, None
        if storing is not None and storing.role == "user":
            run.emit_message_end(storing.id, "user", storing.text, stop_reason=stop_reason)
        self.calls.close(stop_reason)
        self.tools.close()

    def _end(self, status: RunStatus) -> None:
        self.state = Phase.ENDED
        self.status = status
        self.hooks.give_back()
        run = self.run
        total_usd = run.costs.total_usd
        run.emitter.emit(
            AgentEnd(
                run_id=run.spec.run_id,
                status=status,
                stop_reason=run.stop_reason,
                usage=run.usage,
                cost_usd=UNSET if total_usd is None else total_usd,
                duration_ms=run.ms_since(run.started_ns),
                leaf_id=run.leaf_id,
                discarded=run.queues.discard(run.spec.limits.inline_text_bytes),
                **self._shown_output(),
            )
        )
        run.tell("run_end", status=status, leaf_id=run.leaf_id)

    def _shown_output(self) -> dict[str, Any]:
        value = self.output.value
        if value is UNSET or self.run.fits_inline(value):
            return {"output": value}
        return {"output_bytes": len(bytes(value)), "output_omitted": True}


_CARRIED_OUT: Final[Mapping[type[Step], Callable[[RunMachine, Any], Step | None]]] = {
    Await: RunMachine._await,
    OpenTurn: RunMachine._open_turn,
    NextCall: RunMachine._next_call,
    RetryCall: RunMachine._retry_call,
    RunTools: RunMachine._run_tools,
    CheckAnswer: RunMachine._check_answer,
    NextTurn: RunMachine._next_turn,
    TakeTurn: RunMachine._take_turn,
    CompleteTurn: RunMachine._complete_turn,
    Complete: RunMachine._complete,
    EndAborted: RunMachine._end_aborted,
    Fail: RunMachine._fail,
    Compact: RunMachine._compact,
    AskHook: RunMachine._ask_hook,
    Resume: RunMachine._resume,
}
"""How each step is carried out; what comes back is the next one."""

_RESUMED: Final[Mapping[AfterHook, Callable[[RunMachine], Callable[[HookOutcome], Step]]]] = {
    AfterHook.OFFER_INPUT: lambda machine: machine.hooks.after_input_hook,
    AfterHook.BEGIN_TURN: lambda machine: machine.hooks.after_turn_hook,
    AfterHook.TOOL_CALL: lambda machine: machine.tools.after_call_hook,
    AfterHook.TOOL_RESULT: lambda machine: machine.tools.after_result_hook,
    AfterHook.COMPACTION: lambda machine: machine.compaction.after_hook,
}
"""Returns who takes the answer of a hook."""
