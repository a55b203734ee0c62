"""Compaction inside a run: plan it, have it summarised, store it, go on.

Three things start it: a ``compact_session`` (a run without turns), a turn that ended past the threshold, and once per
run a model call that did not fit.  Its model call makes no message events; two ``status`` events frame it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from nous.engine.answer import Answer
from nous.engine.effects import AppendCompaction, CallModel, PlanCompaction, StopModel
from nous.engine.inputs import (
    CompactionPlanned,
    CompactionRefused,
    CompactionStarted,
    EntryStored,
    ModelDone,
    ModelFailed,
    ModelProduced,
)
from nous.engine.spec import request_digest
from nous.engine.summary import estimate_tokens
from nous.engine.transitions import State
from nous.errors import bound_text
from nous.ports.extensions import HookOutcome
from nous.ports.model import Finish, TextDelta, ThinkingDelta, UsageReport
from nous.protocol.entries import Compaction, Summariser, Trigger
from nous.protocol.events import StatusEvent
from nous.protocol.messages import Message, Usage

if TYPE_CHECKING:
    from nous.engine.machine import RunMachine

MAX_SUMMARY_BYTES: Final = 128 * 1024
"""A summary stands in one line of an answer, and in every later request."""


class CompactionPart:
    """Part of a :class:`RunMachine`.  ``entry`` is the last compaction that was stored."""

    def __init__(self, run: RunMachine) -> None:
        self._run = run
        self.entry: Compaction | None = None
        self.is_manual = False
        self._context_tokens = run.spec.context_tokens
        self._trigger: Trigger = "manual"
        self._instruction = ""
        self._then: Callable[[], None] = lambda: None
        self._otherwise: Callable[[], None] = lambda: None
        self._plan: CompactionPlanned | None = None
        self._pending: Compaction | None = None
        self._answer: Answer | None = None
        self._call = 0
        self._made = 0
        self._retried_overflow = False

    # -- what starts it

    def on_compaction_started(self, item: CompactionStarted) -> None:
        run = self._run
        self.is_manual = True
        self._instruction = item.instruction
        run.announce()
        self._begin("manual", run.complete, lambda: run.fail("command_rejected", "nothing_to_compact"))

    def note_message(self, message: Message) -> None:
        """Count a message that joined the context."""
        self._context_tokens += estimate_tokens(message)

    def begin_if_large(self, usage: Usage, then: Callable[[], None]) -> bool:
        """Compact if the context is past the threshold, and go on with ``then``.  False: nothing was begun."""
        limit = self._run.spec.limits.compact_at_tokens
        size = max(self._context_tokens, usage.input_tokens + usage.output_tokens)
        if not limit or size < limit:
            return False
        self._begin("threshold", then, then)
        return True

    def begin_after_overflow(self, retry: Callable[[], None], give_up: Callable[[], None]) -> bool:
        """Compact because the context did not fit, once per run.  False: it was done before."""
        if self._retried_overflow:
            return False
        self._retried_overflow = True
        self._begin("overflow", retry, give_up)
        return True

    def _begin(self, trigger: Trigger, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        run = self._run
        self._made += 1
        self._trigger, self._then, self._otherwise = trigger, then, otherwise
        payload = {"trigger": trigger, "instruction": self._instruction}
        run.hooks.ask("before_compact", payload, self._take_hook)

    def _take_hook(self, answer: HookOutcome) -> None:
        run = self._run
        if answer.block is not None and self.is_manual:
            run.fail("policy_blocked", answer.block)
        elif answer.block is not None:
            self._otherwise()
        else:
            self._plan_it()

    def _plan_it(self) -> None:
        run = self._run
        run.state = State.PLANNING
        run.effects.append(PlanCompaction(f"{run.spec.run_id}-c{self._made}", run.leaf_id, self._instruction))

    # -- planning and summarising

    def on_compaction_refused(self, item: CompactionRefused) -> None:
        if item.entry_id == self._entry_id:
            self._otherwise()

    @property
    def _entry_id(self) -> str:
        return f"{self._run.spec.run_id}-c{self._made}"

    def on_compaction_planned(self, item: CompactionPlanned) -> None:
        run = self._run
        if item.entry_id != self._entry_id:
            return
        self._plan = item
        self._status("compaction_start", f"Compacting the conversation ({self._trigger}).")
        if item.by == "deterministic":
            self._store_fallback()
            return
        self._call = run.calls.next_number()
        self._answer = Answer(item.entry_id, set())
        run.state = State.SUMMARISING
        left_out = run.calls.images_left_out
        digest = request_digest(run.context_digest, self._instruction, (item.first_kept_entry_id,), left_out)
        run.effects.append(
            CallModel(
                call=self._call,
                purpose="compaction",
                leaf_id=run.leaf_id,
                tools=(),
                digest=digest,
                first_kept_entry_id=item.first_kept_entry_id,
                instruction=self._instruction,
                images_left_out=left_out,
            )
        )

    def on_summary_produced(self, item: ModelProduced) -> None:
        answer = self._answer
        if answer is None or item.call != self._call:
            return
        answer.opened = True
        for piece in item.items:
            if isinstance(piece, TextDelta | ThinkingDelta):
                answer.size_bytes += len(piece.text.encode())
            if isinstance(piece, TextDelta):
                answer.text.append(piece.text)
            elif isinstance(piece, UsageReport):
                answer.report(piece.usage)
            elif isinstance(piece, Finish):
                answer.finish, answer.finish_word = piece.reason, piece.word
            if answer.size_bytes > self._run.spec.limits.max_message_bytes:
                self.stop()
                self._store_fallback()
                return
        answer.compact()

    def on_summary_done(self, item: ModelDone) -> None:
        if self._answer is None or item.call != self._call:
            return
        answer = self._close_call()
        text = answer.full_text().strip()
        is_whole = answer.finish == "stop" or (answer.finish == "length" and self._run.spec.runs_cut_calls)
        if is_whole and text:
            self._store(bound_text(text, MAX_SUMMARY_BYTES), "model")
        else:
            self._store_fallback()

    def on_summary_failed(self, item: ModelFailed) -> None:
        if self._answer is not None and item.call == self._call:
            self._close_call(is_free=not self._answer.opened)
            self._store_fallback()

    def stop(self) -> None:
        """Stop the summary's model call, if it is under way."""
        if self._answer is not None:
            self._close_call()
            self._run.effects.append(StopModel(self._call))

    def _close_call(self, *, is_free: bool = False) -> Answer:
        """Count what the call cost, however it ended; return what it said.  ``is_free``: it was refused at once."""
        answer, calls = self._answer, self._run.calls
        assert answer is not None
        self._answer = None
        calls.usage = calls.usage.plus(answer.usage)
        calls.costs.add(answer, is_whole=answer.finish is not None, is_free=is_free)
        return answer

    # -- storing

    def _store_fallback(self) -> None:
        assert self._plan is not None
        self._store(self._plan.fallback, "deterministic")

    def _store(self, summary: str, by: Summariser) -> None:
        run, plan = self._run, self._plan
        assert plan is not None
        self._pending = Compaction(
            id=plan.entry_id,
            parent_id=run.leaf_id,
            summary=summary,
            first_kept_entry_id=plan.first_kept_entry_id,
            tokens_before=plan.tokens_before,
            trigger=self._trigger,
            by=by,
            instruction=self._instruction,
            created_at=run.stamp.ts,
        )
        run.state = State.STORING_SUMMARY
        run.effects.append(AppendCompaction(self._pending))

    def on_compaction_stored(self, item: EntryStored) -> None:
        run, entry = self._run, self._pending
        if entry is None or entry.id != item.entry_id:
            return
        self._pending, self.entry = None, entry
        run.context_digest = item.context_digest or run.context_digest
        self._context_tokens = item.context_tokens
        run.calls.last_usage = Usage()  # it measured a context that is no more
        self._status("compaction_end", f"The conversation was compacted ({entry.by}).")
        if not run.end_if_aborting():
            self._then()

    def is_storing(self, entry_id: str) -> bool:
        return self._pending is not None and self._pending.id == entry_id

    def _status(self, code: str, message: str) -> None:
        run = self._run
        turn_id = run.turn_id if run.in_turn else UNSET
        run.emitter.emit(StatusEvent(message=message, run_id=run.spec.run_id, turn_id=turn_id, code=code))
