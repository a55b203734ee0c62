"""Compaction inside a run: plan it, have it summarised, store it, go on.

Three things start it: a ``compact_session`` (a run without turns), a turn that ended past the threshold, and once per
run a model call that did not fit.  Its model call makes no message events; two ``status`` events frame it.
"""

from __future__ import annotations

from typing import Final

from nous.engine.answer import StreamedAnswer
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
from nous.engine.run_state import RunState
from nous.engine.spec import request_digest
from nous.engine.steps import AskHook, Await, Compact, Complete, EndAborted, Fail, Step
from nous.engine.transitions import AfterHook, Phase
from nous.errors import bound_text
from nous.ports.extensions import HookOutcome
from nous.ports.model import Finish, TextDelta, ThinkingDelta, UsageReport
from nous.protocol.entries import Compaction, Summariser, Trigger
from nous.protocol.events import StatusCode, StatusEvent
from nous.protocol.messages import Usage

MAX_SUMMARY_BYTES: Final = 128 * 1024
"""A summary stands in one line of an answer, and in every later request."""


class CompactionPart:
    """Part of a run machine: what it does from the decision to compact to the entry that holds the summary."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._trigger: Trigger = "manual"
        self._instruction = ""
        self._then: Step = Complete()
        self._otherwise: Step = Complete()
        self._plan: CompactionPlanned | None = None
        self._pending: Compaction | None = None
        self._answer: StreamedAnswer | None = None
        self._call = 0
        self._made = 0

    # -- what starts it

    def on_compaction_started(self, item: CompactionStarted) -> Step:
        """Begin a run that only compacts its session."""
        run = self._run
        run.is_compaction = True
        self._instruction = item.instruction
        run.announce()
        return Compact("manual", Complete(), Fail("command_rejected", "nothing_to_compact"))

    @property
    def is_due(self) -> bool:
        """Whether the context has grown past the threshold."""
        run = self._run
        limit = run.spec.limits.compact_at_tokens
        size = max(run.context_tokens, run.last_usage.input_tokens + run.last_usage.output_tokens)
        return bool(limit) and size >= limit

    def begin(self, step: Compact) -> Step:
        """Ask the extensions whether to compact."""
        self._made += 1
        self._trigger, self._then, self._otherwise = step
        payload = {"trigger": step.trigger, "instruction": self._instruction}
        return AskHook("before_compact", payload, AfterHook.COMPACTION)

    def after_hook(self, answer: HookOutcome) -> Step:
        """Plan the compaction, unless an extension has blocked it."""
        run = self._run
        if answer.block is not None:
            return Fail("policy_blocked", answer.block) if run.is_compaction else self._otherwise
        run.effects.append(PlanCompaction(self._entry_id, run.leaf_id, self._instruction))
        return Await(Phase.PLANNING)

    # -- planning and summarising

    def on_compaction_refused(self, item: CompactionRefused) -> Step | None:
        """Go on without a compaction: there is nothing to compact."""
        return self._otherwise if item.entry_id == self._entry_id else None

    @property
    def _entry_id(self) -> str:
        return f"{self._run.spec.run_id}-c{self._made}"

    def on_compaction_planned(self, item: CompactionPlanned) -> Step | None:
        """Have the conversation summarised, or store the summary that needs no model."""
        run = self._run
        if item.entry_id != self._entry_id:
            return None
        self._plan = item
        self._status("compaction_start", f"Compacting the conversation ({self._trigger}).")
        if item.by == "deterministic":
            return self._store_fallback()
        self._call = run.next_call()
        self._answer = StreamedAnswer(item.entry_id, set())
        left_out = run.images_left_out
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
        return Await(Phase.SUMMARISING)

    def on_summary_produced(self, item: ModelProduced) -> Step | None:
        """Collect the summary's text, up to the limit of a message."""
        answer = self._answer
        if answer is None or item.call != self._call:
            return None
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
                return self._store_fallback()
        answer.compact()
        return None

    def on_summary_done(self, item: ModelDone) -> Step | None:
        """Store the model's summary, or the other one if it is not whole."""
        if self._answer is None or item.call != self._call:
            return None
        answer = self._close_call()
        text = answer.full_text().strip()
        is_whole = answer.finish == "stop" or (answer.finish == "length" and self._run.spec.runs_cut_calls)
        if is_whole and text:
            return self._store(bound_text(text, MAX_SUMMARY_BYTES), "model")
        return self._store_fallback()

    def on_summary_failed(self, item: ModelFailed) -> Step | None:
        """Store the summary that needs no model."""
        if self._answer is None or item.call != self._call:
            return None
        self._close_call(is_free=not self._answer.opened)
        return self._store_fallback()

    def stop(self) -> None:
        """Stop the summary's model call, if it is under way."""
        if self._answer is not None:
            self._close_call()
            self._run.effects.append(StopModel(self._call))

    def _close_call(self, *, is_free: bool = False) -> StreamedAnswer:
        """Count what the call cost, however it ended; return what it said.  ``is_free``: it was refused at once."""
        answer, run = self._answer, self._run
        assert answer is not None
        self._answer = None
        run.usage = run.usage.plus(answer.usage)
        run.costs.add(answer, is_whole=answer.finish is not None, is_free=is_free)
        return answer

    # -- storing

    def _store_fallback(self) -> Step:
        assert self._plan is not None
        return self._store(self._plan.fallback, "deterministic")

    def _store(self, summary: str, by: Summariser) -> Step:
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
        run.effects.append(AppendCompaction(self._pending))
        return Await(Phase.STORING_SUMMARY)

    def on_compaction_stored(self, item: EntryStored) -> Step | None:
        """Count the context anew and go on with what the compaction was for."""
        run, entry = self._run, self._pending
        if entry is None or entry.id != item.entry_id:
            return None
        self._pending, run.compaction = None, entry
        run.context_digest = item.context_digest or run.context_digest
        run.context_tokens = item.context_tokens
        run.last_usage = Usage()  # it measured a context that is no more
        self._status("compaction_end", f"The conversation was compacted ({entry.by}).")
        return EndAborted() if run.aborting else self._then

    def is_storing(self, entry_id: str) -> bool:
        """Return whether the compaction with this id is being stored."""
        return self._pending is not None and self._pending.id == entry_id

    def _status(self, code: StatusCode, message: str) -> None:
        run = self._run
        run.emitter.emit(StatusEvent(message=message, run_id=run.spec.run_id, turn_id=run.open_turn_id(), code=code))
