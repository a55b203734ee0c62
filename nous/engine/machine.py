"""The run machine: one method through which every input passes, one table that says who handles it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from msgspec import UNSET

from nous.engine.compaction import CompactionPart
from nous.engine.effects import AppendEntry, Effect, StartTimer, StopTool
from nous.engine.emitter import Emitter, Event
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
from nous.engine.queues import InputQueues, Queued
from nous.engine.spec import RunSpec, chain_digest
from nous.engine.toolround import ToolRound
from nous.engine.transitions import STOPPED_AT_ONCE, TRANSITIONS, State
from nous.errors import WIRE_CODES, NousError
from nous.ports.model import ModelItem
from nous.protocol.events import (
    AgentEnd,
    AgentStart,
    ErrorEvent,
    MessageEnd,
    MessageStart,
    RunStatus,
    TurnEnd,
    TurnStart,
    WarningEvent,
    encode_json,
)
from nous.protocol.messages import ImageBlock, Message, Role, StopReason, TextBlock, TurnKind

_HANDLERS: Final[Mapping[str, Callable[[RunMachine], Callable[[Any], None]]]] = {
    row.handler: attrgetter(row.handler) for row in TRANSITIONS.values()
}
"""How a machine is asked for each handler that the table names."""


class RunMachine:
    """One run, from its prompt to its ``agent_end``; then ``status`` and, if it failed, ``failure`` are set.

    ``receive`` never raises on a well-typed input: one that has no row in the table is late news and is ignored.
    ``take_events`` and ``take_effects`` hand over what has come up since they were last asked, in order.
    """

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.state = State.READY
        self.aborting = False
        self.leaf_id = spec.leaf_id
        self.queues = InputQueues(spec.steering_mode, spec.follow_up_mode)
        self.active_tools = spec.active_tools
        self.turn_id = ""
        self.stamp = Stamp("", 0)
        self.emitter = Emitter(spec.run_id, spec.limits.max_event_bytes)
        self.effects: list[Effect] = []
        self._started_ns = 0
        self.context_digest = spec.context_digest
        self._messages_made = 0
        self._turn: TurnStart | None = None
        self._storing: Message | None = None
        self.stop_reason: StopReason = "stop"
        self.status: RunStatus | None = None
        self.failure: NousError | None = None
        self.calls = ModelCalls(self)
        self.output = OutputPart(self)
        self.tools = ToolRound(self)
        self.compaction = CompactionPart(self)
        self.hooks = HookPart(self)

    # -- the one door in, the two doors out

    def receive(self, stamp: Stamp, item: Input) -> None:
        row = TRANSITIONS.get((self.state, type(item)))
        if row is None:
            return
        if stamp.ts is not self.stamp.ts:
            self.emitter.ts = stamp.ts.encode()
        self.stamp = stamp
        _HANDLERS[row.handler](self)(item)

    def take_events(self) -> list[Event]:
        out, self.emitter.out = self.emitter.out, []
        return out

    def take_effects(self) -> list[Effect]:
        out, self.effects = self.effects, []
        return out

    @property
    def ended(self) -> bool:
        return self.state is State.ENDED

    def elides(self, items: Sequence[ModelItem]) -> bool:
        """Whether a trace may leave out a :class:`ModelProduced` with these items.

        It may if each item causes exactly one event that holds all of it, so that the input can be made again from
        the events.
        """
        return self.state is State.CALLING and self.calls.elides(items)

    # -- beginning and turns

    def on_run_started(self, item: RunStarted) -> None:
        self.announce()
        self._start_turn("prompt", [Queued(item.command_id, item.text)], item.images)

    def announce(self) -> None:
        self._started_ns = self.stamp.mono_ns
        spec = self.spec
        self.emitter.emit(
            AgentStart(
                run_id=spec.run_id,
                session_id=spec.session_id,
                leaf_id=spec.leaf_id,
                provider=spec.provider,
                model=spec.model,
            )
        )

    def _start_turn(self, kind: TurnKind, inputs: list[Queued], images: tuple[ImageBlock, ...] = ()) -> None:
        """Ask the extensions whether, with what text, and whether now; then begin a turn."""
        text = "\n".join(q.text for q in inputs)
        if not self.spec.hooks:
            self._open_turn(kind, inputs, text, images)
            return
        self.hooks.offer_input(
            kind, inputs, text, lambda changed: self._open_turn(kind, inputs, changed, images), self._take_turn
        )

    def _open_turn(self, kind: TurnKind, inputs: list[Queued], text: str, images: tuple[ImageBlock, ...]) -> None:
        self.turn_id = str(int(self.turn_id or "0") + 1)
        self.calls.made_in_turn = 0
        ids = tuple(q.command_id for q in inputs)
        self._turn = TurnStart(
            run_id=self.spec.run_id,
            turn_id=self.turn_id,
            turn_kind=kind,
            command_id=ids[0],
            command_ids=ids if len(ids) > 1 else UNSET,
        )
        self.emitter.emit(self._turn)
        blocks = (TextBlock(text), *images) if images else ()
        message = self.make_message(self.next_message_id(), "user", text, turn_kind=kind, blocks=blocks)
        self.emit_message_start(message.id, "user")
        self.store(message, State.STORING_INPUT)

    def _end_turn(self) -> None:
        turn = self._turn
        if turn is None:
            return
        self._turn = None
        self.emitter.emit(
            TurnEnd(
                run_id=turn.run_id,
                turn_id=turn.turn_id,
                turn_kind=turn.turn_kind,
                command_id=turn.command_id,
                command_ids=turn.command_ids,
            )
        )
        self.hooks.tell("turn_end", turn_id=turn.turn_id, turn_kind=turn.turn_kind)

    @property
    def in_turn(self) -> bool:
        return self._turn is not None

    def complete_turn(self) -> None:
        """End the run with its turn, whatever is queued."""
        self._end_turn()
        self.complete()

    def next_turn(self) -> None:
        """End the turn; compact if the context has grown past the threshold; go on with what is queued."""
        self._end_turn()
        if not self.compaction.begin_if_large(self.calls.last_usage, self._take_turn):
            self._take_turn()

    def _take_turn(self) -> None:
        taken = self.queues.take()
        if taken is None:
            self.complete()
        else:
            self._start_turn(*taken)

    # -- entries

    def make_message(self, message_id: str, role: Role, text: str, **fields: Any) -> Message:
        return Message(
            id=message_id,
            parent_id=self.leaf_id,
            role=role,
            text=text,
            run_id=self.spec.run_id,
            created_at=self.stamp.ts,
            **fields,
        )

    def next_message_id(self) -> str:
        """Draw the next id: the run's and a number, unique because run ids are, and the same in every replay."""
        self._messages_made += 1
        return f"{self.spec.run_id}-m{self._messages_made}"

    def store(self, message: Message, state: State) -> None:
        self._storing = message
        self.effects.append(AppendEntry(message))
        self.state = state

    def stored(self, item: EntryStored) -> Message | None:
        """Take note that the entry being stored is stored; None if the news is of another one."""
        message = self._storing
        if message is None or message.id != item.entry_id:
            return None
        self._storing = None
        self.leaf_id = message.id
        self.compaction.note_message(message)
        self.context_digest = chain_digest(self.context_digest, message)
        return message

    def on_entry_failed(self, item: EntryFailed) -> None:
        awaited = self._storing is not None and self._storing.id == item.entry_id
        if awaited or self.compaction.is_storing(item.entry_id):
            self.fail(item.code, item.cause)

    def on_input_stored(self, item: EntryStored) -> None:
        message = self.stored(item)
        if message is None:
            return
        self.emit_message_end(message.id, "user", message.text)
        if not self.end_if_aborting():
            self.before_call()

    # -- between the parts

    def before_call(self) -> None:
        """What comes before each model call: a steer waits, the limit is reached, or the call."""
        limit = self.spec.limits.max_model_calls
        if self.queues.steered:
            self.next_turn()
        elif self.calls.made_in_turn >= limit:
            self.warn("tool_loop_limit_exceeded", f"The turn reached {limit} model calls.", limit=limit)
            self._end_turn()
            self._end("max_steps")
        else:
            self.calls.begin()

    # -- what may come at any time

    def on_steered(self, item: Steered) -> None:
        self.queues.add("steer", item.command_id, item.text)

    def on_followed_up(self, item: FollowedUp) -> None:
        self.queues.add("follow_up", item.command_id, item.text)

    def on_steering_mode_set(self, item: SteeringModeSet) -> None:
        self.queues.modes["steer"] = item.mode

    def on_follow_up_mode_set(self, item: FollowUpModeSet) -> None:
        self.queues.modes["follow_up"] = item.mode

    def on_tools_set(self, item: ToolsSet) -> None:
        if not self.output.forbids_tools:
            self.active_tools = item.tools

    def on_abort_requested(self, item: AbortRequested) -> None:
        if self.aborting:
            return
        self.aborting = True
        if self.state is State.CALLING:
            self.calls.stop()
            self.warn("provider_aborted", "The model call was stopped.")
            self.end_aborted()
        elif self.state in STOPPED_AT_ONCE:
            self.compaction.stop()
            self.hooks.stop()
            self.end_aborted()
        else:
            if self.state is State.RUNNING_TOOL:
                self.effects.append(StopTool(self.tools.current_id))
                self.state = State.STOPPING_TOOL
            self.effects.append(StartTimer("abort_grace", self.spec.limits.abort_grace_ms))

    def on_timer_fired(self, item: TimerFired) -> None:
        if self.aborting and item.timer == "abort_grace":
            self.end_aborted()

    # -- endings

    def complete(self) -> None:
        self._end("completed")

    def end_if_aborting(self) -> bool:
        if self.aborting:
            self.end_aborted()
        return self.aborting

    def end_aborted(self) -> None:
        self.stop_reason = "aborted"
        self._close_open_parts("aborted")
        self._end_turn()
        self._end("aborted")

    def fail(self, code: str, cause: str | None) -> None:
        """End the run as failed: what is open is closed, then ``error`` says why."""
        error = self.failure = NousError(code if code in WIRE_CODES else "internal_error", cause)
        self.stop_reason = "error"
        self._close_open_parts("error")
        self.emitter.emit(
            ErrorEvent(
                run_id=self.spec.run_id,
                turn_id=self.turn_id if self.in_turn else UNSET,
                code=error.code,
                message=error.full_message if self.spec.error_reasons else error.message,
                category=error.category,
                retryable=error.retryable,
                cause=UNSET if error.cause is None else error.cause,
            )
        )
        self._end_turn()
        self._end("failed")

    def _close_open_parts(self, stop_reason: StopReason) -> None:
        storing, self._storing = self._storing, None
        if storing is not None and storing.role == "user":
            self.emit_message_end(storing.id, "user", storing.text, stop_reason=stop_reason)
        self.calls.close(stop_reason)
        self.tools.close()

    def _end(self, status: RunStatus) -> None:
        self.state = State.ENDED
        self.status = status
        self.hooks.give_back()
        total_usd = self.calls.costs.total_usd
        self.emitter.emit(
            AgentEnd(
                run_id=self.spec.run_id,
                status=status,
                stop_reason=self.stop_reason,
                usage=self.calls.usage,
                cost_usd=UNSET if total_usd is None else total_usd,
                duration_ms=self.ms_since(self._started_ns),
                leaf_id=self.leaf_id,
                discarded=self.queues.discard(self.spec.limits.inline_text_bytes),
                **self._shown_output(),
            )
        )
        self.hooks.tell("run_end", status=status, leaf_id=self.leaf_id)

    def _shown_output(self) -> dict[str, Any]:
        value = self.output.value
        if value is UNSET or self.fits_inline(value):
            return {"output": value}
        return {"output_bytes": len(bytes(value)), "output_omitted": True}

    # -- small helpers of the handlers

    def ms_since(self, mono_ns: int) -> int:
        return (self.stamp.mono_ns - mono_ns) // 1_000_000

    def fits_inline(self, value: object) -> bool:
        """Whether a value may stand in an event: measured as JSON, where a character may take six bytes."""
        return len(encode_json(value)) <= self.spec.limits.inline_text_bytes

    def warn(self, code: str, message: str, **fields: Any) -> None:
        self.emitter.emit(
            WarningEvent(code=code, message=message, run_id=self.spec.run_id, turn_id=self.turn_id, **fields)
        )

    def emit_message_start(self, message_id: str, role: Role) -> None:
        self.emitter.emit(MessageStart(run_id=self.spec.run_id, turn_id=self.turn_id, message_id=message_id, role=role))

    def emit_message_end(self, message_id: str, role: Role, text: str, **fields: Any) -> None:
        content: dict[str, Any] = {"text": text}
        if not self.fits_inline(text):
            content = {"text_bytes": len(text.encode()), "text_omitted": True}
        self.emitter.emit(
            MessageEnd(
                run_id=self.spec.run_id,
                turn_id=self.turn_id,
                message_id=message_id,
                role=role,
                **content,
                **fields,
            )
        )
