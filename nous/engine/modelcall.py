"""The model calls of a run: each one's answer while it streams, and what it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import UNSET

from nous.engine.answer import StreamedAnswer
from nous.engine.effects import CallModel, StopModel
from nous.engine.inputs import EntryStored, ModelDone, ModelFailed, ModelProduced, TimerFired
from nous.engine.output import tools_are_off
from nous.engine.retry import RetryPart
from nous.engine.run_state import MAX_LISTED_IDS, RunState
from nous.engine.spec import request_digest, schema_digest
from nous.engine.steps import (
    Await,
    CheckAnswer,
    Compact,
    EndAborted,
    Fail,
    NextCall,
    NextTurn,
    RetryCall,
    RunTools,
    Step,
)
from nous.engine.transitions import Phase
from nous.ports.model import Finish, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.events import DeltaTemplate, MessageUpdate, ThinkingUpdate, ToolArgumentsUpdate
from nous.protocol.messages import Message, StopReason

_BYTES_PER_CHARACTER: Final = 6
"""The most that one character of a delta takes as JSON (a control character)."""


class ModelCalls:
    """Part of a run machine: what it does from a model call to the entry that holds its answer."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._schema_digest = () if run.spec.output_schema is None else (schema_digest(run.spec.output_schema),)
        self.retries = RetryPart(run)
        self._call = 0
        self._has_overflowed = False
        self._answer: StreamedAnswer | None = None
        self._template: DeltaTemplate | None = None
        self._call_ids: set[str] = set()

    def begin(self) -> Await:
        """Make a model call."""
        run = self._run
        self._call = run.next_call()
        run.calls_in_turn += 1
        self._answer = StreamedAnswer(run.next_message_id(), self._call_ids)
        run.effects.append(
            CallModel(
                call=self._call,
                purpose="answer",
                leaf_id=run.leaf_id,
                tools=run.active_tools,
                digest=request_digest(
                    run.context_digest,
                    run.spec.system_digest,
                    (*run.active_tools, *self._schema_digest),
                    run.images_left_out,
                ),
                images_left_out=run.images_left_out,
            )
        )
        return Await(Phase.CALLING)

    def stop(self) -> None:
        """Cancel the call that is under way."""
        self._run.effects.append(StopModel(self._call))

    def elides(self, items: Sequence[ModelItem]) -> bool:
        """Whether ``items`` is plain text into an open answer, far from its size limit."""
        answer = self._answer
        if answer is None or not answer.opened:
            return False
        left = self._run.spec.limits.max_message_bytes - answer.size_bytes
        for item in items:
            if type(item) is not TextDelta:
                return False
            left -= len(item.text) * _BYTES_PER_CHARACTER
        return left > 0

    def on_model_produced(self, item: ModelProduced) -> Step | None:
        """Show what arrived, up to the limit of a message."""
        answer, run = self._answer, self._run
        if answer is None or item.call != self._call or not item.items:
            return None
        if not answer.opened:
            self._open(answer)
        template = self._template
        assert template is not None
        limit = run.spec.limits.max_message_bytes
        for piece in item.items:
            if type(piece) is TextDelta:
                answer.text.append(piece.text)
                answer.size_bytes += run.emitter.emit_delta(MessageUpdate, template, piece.text)
            else:
                self._take_other(answer, piece)
            if answer.size_bytes > limit:
                self.stop()
                return Fail("provider_error", f"message_too_large: the answer passed {limit} bytes")
        answer.compact()
        return None

    def _open(self, answer: StreamedAnswer) -> None:
        answer.opened = True
        self.retries.reset()
        self._template = DeltaTemplate(self._run.spec.run_id, self._run.turn_id, answer.message_id)
        self._run.emit_message_start(answer.message_id, "assistant")

    def _take_other(self, answer: StreamedAnswer, piece: ModelItem) -> None:
        run_id, turn_id, message_id = self._run.spec.run_id, self._run.turn_id, answer.message_id
        emitter = self._run.emitter
        if isinstance(piece, ThinkingDelta):
            answer.add_thinking(piece.text, piece.signature)
            if piece.text:
                emitter.emit_feature(
                    "thinking",
                    ThinkingUpdate(run_id=run_id, turn_id=turn_id, message_id=message_id, delta=piece.text),
                )
        elif isinstance(piece, ToolCallDelta):
            call_id = answer.add_call(piece)
            if piece.arguments:
                emitter.emit_feature(
                    "tool_arguments",
                    ToolArgumentsUpdate(
                        run_id=run_id,
                        turn_id=turn_id,
                        message_id=message_id,
                        tool_call_id=call_id,
                        delta=piece.arguments,
                    ),
                )
        elif isinstance(piece, UsageReport):
            answer.report(piece.usage)
        elif isinstance(piece, Finish):
            answer.finish, answer.finish_word = piece.reason, piece.word

    def on_model_done(self, item: ModelDone) -> Step | None:
        """Store the answer if it is whole."""
        answer, run = self._answer, self._run
        if answer is None or item.call != self._call:
            return None
        if answer.finish is None:
            return self._fail(ModelFailed(item.call, "provider_unavailable", "cut: the stream ended without a finish"))
        if answer.finish == "refusal":
            return Fail("content_refused", None)
        if run.forbids_tools and (calls := tuple(answer.calls())):
            return tools_are_off(calls)
        run.store(self._message(answer))
        return Await(Phase.STORING_ANSWER)

    def _message(self, answer: StreamedAnswer) -> Message:
        spec = self._run.spec
        text = answer.full_text()
        if spec.answer_form == 1:
            return self._run.make_message(answer.message_id, "assistant", text, blocks=answer.sorted_blocks())
        return self._run.make_message(
            answer.message_id,
            "assistant",
            text,
            blocks=answer.blocks(),
            provider=spec.provider,
            model=spec.model,
            images_left_out=self._run.images_left_out,
        )

    def on_model_failed(self, item: ModelFailed) -> Step | None:
        """Compact, leave images out, retry or fail the run."""
        answer, run = self._answer, self._run
        if answer is None or item.call != self._call:
            return None
        if item.code == "context_overflow" and not answer.opened and not run.is_structured:
            self._answer = None
            if not self._has_overflowed:
                self._has_overflowed = True
                return Compact("overflow", RetryCall(), Fail(item.code, item.cause))
        if not answer.opened and not run.forbids_tools and self._leave_images_out(item):
            return RetryCall()
        return self._fail(item)

    def _leave_images_out(self, item: ModelFailed) -> bool:
        """Leave out the images that were refused.  False: none was that is not left out already."""
        run = self._run
        refused = tuple(i for i in item.refused_images if i not in run.images_left_out)
        if not refused:
            return False
        run.images_left_out += refused
        run.warn(
            "images_left_out",
            "The provider refused an image; the images of these messages are left out from now on.",
            cause=item.code if item.cause is None else f"{item.code}: {item.cause}",
            message_ids=refused[:MAX_LISTED_IDS],
            truncated_fields=["message_ids"] if len(refused) > MAX_LISTED_IDS else UNSET,
        )
        self._answer = None
        return True

    def _fail(self, item: ModelFailed) -> Step:
        """Make the call again later if nothing of the answer was shown, and there may be another; else fail the run."""
        answer = self._answer
        is_only = self._run.forbids_tools
        if answer is not None and not answer.opened and not is_only and (waiting := self.retries.begin(item)):
            self._answer = None
            return waiting
        return Fail(item.code, item.cause)

    def on_retry_due(self, item: TimerFired) -> Step | None:
        """Make the call again that failed."""
        return RetryCall() if item.timer == "provider_retry" else None

    def retry(self) -> Step:
        """Make the call again that did not fit or did not come through; it counts once for the turn."""
        self._run.calls_in_turn -= 1
        return NextCall()

    def on_answer_stored(self, item: EntryStored) -> Step | None:
        """Go on with what a stored answer asks for: tools, a check, or the next turn."""
        run, answer = self._run, self._answer
        message = run.stored(item)
        if message is None or answer is None:
            return None
        run.images_left_out = ()  # the message says so from now on
        calls = message.tool_calls
        is_cut = answer.is_cut and (not calls or not run.spec.runs_cut_calls)
        run.stop_reason = _stop_reason(answer) if is_cut else "tool_use" if calls else "stop"
        self._close(run.stop_reason, message.text)
        if run.aborting:
            return EndAborted()
        if calls:
            return RunTools(calls, cut_text(answer) if is_cut else "")
        if is_cut and run.is_structured and not run.spec.runs_cut_calls:
            return Fail("output_invalid", "$: the answer was cut before its end")
        return CheckAnswer(message) if run.is_structured else NextTurn()

    def close(self, stop_reason: StopReason) -> None:
        """Close an answer that is still open because the run ends now."""
        if self._answer is not None:
            self._close(stop_reason, self._answer.full_text())

    def _close(self, stop_reason: StopReason, text: str) -> None:
        answer, run = self._answer, self._run
        assert answer is not None
        self._answer = self._template = None
        run.last_usage = answer.usage
        run.usage = run.usage.plus(answer.usage)
        is_free = stop_reason == "error" and not answer.opened
        cost = run.costs.add(answer, is_whole=answer.finish is not None, is_free=is_free)
        if answer.opened:
            run.last_text = text
            run.emit_message_end(
                answer.message_id,
                "assistant",
                text,
                stop_reason=stop_reason,
                finish_reason=answer.finish_word if stop_reason == "other" else UNSET,
                usage=answer.usage,
                cost_usd=UNSET if cost is None else cost,
            )


def _stop_reason(answer: StreamedAnswer) -> StopReason:
    return "length" if answer.finish == "length" else "other"


def cut_text(answer: StreamedAnswer) -> str:
    """Return what the model is told about each call of an answer that was cut."""
    if answer.finish == "length":
        return (
            "Not run: your answer was cut by the limit of output tokens, so this call may be incomplete. "
            "Say it in fewer tokens, or in several smaller calls."
        )
    return f"Not run: your answer ended for the reason {answer.finish_word!r}, so this call may be incomplete."
