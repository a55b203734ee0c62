"""The tool calls of one answer: each in order, asked about, run, its result stored; skipped if a steer waits."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from msgspec import UNSET, structs

from nous.engine.answer import parse_arguments
from nous.engine.effects import AskPolicy, RunTool
from nous.engine.inputs import EntryStored, PolicyAnswered, ToolDone, ToolProgressed
from nous.engine.run_state import RunState
from nous.engine.spec import SHOWN_OUTPUT_BYTES
from nous.engine.steps import AskHook, Await, EndAborted, NextCall, Step
from nous.engine.transitions import AfterHook, Phase
from nous.errors import bound_text
from nous.ports.extensions import HookOutcome
from nous.ports.tool import Outcome
from nous.protocol.events import ToolExecutionEnd, ToolExecutionStart, ToolExecutionUpdate, WarningCode
from nous.protocol.messages import ToolCallBlock, ToolResultBlock

SKIPPED_TEXT: Final = "Skipped due to queued user message."

_WARNINGS: Final[dict[Outcome, tuple[WarningCode, str]]] = {
    "error": ("tool_execution_error", "The tool failed."),
    "crashed": ("tool_execution_error", "The tool crashed."),
    "not_found": ("tool_not_found", "There is no such tool."),
    "not_active": ("tool_not_active", "The tool is not active."),
    "invalid_arguments": ("tool_validation_error", "The tool's arguments are not valid."),
    "blocked": ("tool_blocked", "The tool call was blocked."),
}


class ToolRound:
    """Part of a run machine: what it does between an answer with tool calls and the next model call."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._pending: deque[ToolCallBlock] = deque()
        self._cut_text = ""
        self._current: ToolCallBlock | None = None
        self._arguments: dict[str, Any] = {}
        self._started_ns = 0
        self._announced = False
        self._has_shown_output = False
        self._result: ToolDone | None = None

    @property
    def current_id(self) -> str:
        """The id of the tool call that is under way, or an empty string."""
        return "" if self._current is None else self._current.id

    def begin(self, calls: tuple[ToolCallBlock, ...], cut_text: str) -> Step:
        """Run the calls.  With ``cut_text`` none is run: each is answered with it, because the answer was cut."""
        self._pending.extend(calls)
        self._cut_text = cut_text
        return self._next()

    def _next(self) -> Step:
        run = self._run
        if not self._pending:
            return NextCall()
        call = self._current = self._pending.popleft()
        self._announced = False
        arguments = parse_arguments(call.arguments)
        if run.queues.steered or self._cut_text:
            text = self._cut_text or SKIPPED_TEXT
            run.warn("tool_execution_skipped", text, tool_call_id=call.id, tool_name=bound_text(call.name, 256))
            self._announce(arguments)
            return self._store_result(ToolDone(call.id, text, "ok", truncated=False), is_error=True)
        if call.name not in run.spec.known_tools:
            return self._refuse(arguments, "not_found", f"There is no tool named {bound_text(call.name, 256)!r}.")
        if call.name not in run.active_tools:
            return self._refuse(arguments, "not_active", f"The tool {call.name!r} is not active.")
        if arguments is None:
            return self._refuse(None, "invalid_arguments", "The arguments must be one JSON object.")
        self._arguments = arguments
        payload = {"tool_call_id": call.id, "tool_name": call.name, "arguments": arguments}
        return AskHook("tool_call", payload, AfterHook.TOOL_CALL)

    def after_call_hook(self, answer: HookOutcome) -> Step:
        """Refuse the call, or ask about it with the arguments that the extensions left it with."""
        call, run = self._current, self._run
        assert call is not None
        if answer.block is not None:
            return self._refuse(self._arguments, "blocked", f"Blocked: {answer.block}")
        if answer.arguments is not None:
            self._arguments = answer.arguments
        run.effects.append(AskPolicy(call.id, call.name, self._arguments))
        return Await(Phase.ASKING)

    def _refuse(self, arguments: dict[str, Any] | None, outcome: Outcome, text: str) -> Step:
        """Answer a call that cannot run with a result the model can read."""
        self._announce(arguments)
        return self._finish(ToolDone(self.current_id, text, outcome, truncated=False))

    def on_policy_answered(self, item: PolicyAnswered) -> Step | None:
        """Run the tool call, or answer it with the refusal."""
        call, run = self._current, self._run
        if call is None or item.tool_call_id != call.id:
            return None
        if not item.allow:
            reason = f"Blocked: {item.reason}" if item.reason else "Blocked by policy."
            return self._refuse(self._arguments, "blocked", reason)
        self._announce(self._arguments)
        run.effects.append(RunTool(call.id, call.name, self._arguments))
        return Await(Phase.RUNNING_TOOL)

    def _announce(self, arguments: dict[str, Any] | None) -> None:
        call, run = self._current, self._run
        assert call is not None
        self._announced, self._has_shown_output = True, False
        self._started_ns = run.stamp.mono_ns
        shown: dict[str, Any] = {"arguments": call.arguments if arguments is None else arguments}
        if not run.fits_inline(shown):
            shown = {"arguments_bytes": len(call.arguments.encode()), "arguments_omitted": True}
        run.emitter.emit(
            ToolExecutionStart(
                run_id=run.spec.run_id,
                turn_id=run.turn_id,
                tool_call_id=call.id,
                tool_name=bound_text(call.name, 256),
                **shown,
            )
        )

    def on_tool_progressed(self, item: ToolProgressed) -> None:
        """Show a piece of the tool's output."""
        if self._current is not None and item.tool_call_id == self._current.id:
            self._emit_update(item.text)

    def _emit_update(self, text: str) -> None:
        call, run = self._current, self._run
        assert call is not None
        self._has_shown_output = True
        run.emitter.emit(
            ToolExecutionUpdate(
                run_id=run.spec.run_id,
                turn_id=run.turn_id,
                tool_call_id=call.id,
                tool_name=bound_text(call.name, 256),
                delta=text,
            )
        )

    def _show_result(self, text: str) -> None:
        """Show a result of which nothing was streamed, for clients that read a tool's output from its updates.

        What is shown is cut so that it fits an event also where each byte takes six as JSON.
        """
        limits = self._run.spec.limits
        if text and self._run.spec.shows_tool_output and not self._has_shown_output:
            self._emit_update(bound_text(text, max(4, min(SHOWN_OUTPUT_BYTES, limits.inline_text_bytes // 6))))

    def on_tool_done(self, item: ToolDone) -> Step | None:
        """Offer the result to the extensions, then store it."""
        run, call = self._run, self._current
        if call is None or item.tool_call_id != call.id:
            return None
        if run.aborting or "tool_result" not in run.spec.hooks:
            return self._finish(item)
        # Known from here on: what the tool said is shown also if the run ends while the hook is asked.
        self._result = item
        payload = {
            "tool_call_id": call.id,
            "tool_name": call.name,
            "arguments": self._arguments,
            "text": item.text,
            "is_error": item.outcome != "ok",
        }
        return AskHook("tool_result", payload, AfterHook.TOOL_RESULT)

    def after_result_hook(self, answer: HookOutcome) -> Step:
        """Store the result as the extensions left it."""
        assert self._result is not None
        return self._finish(changed_result(self._result, answer))

    def _finish(self, done: ToolDone) -> Step:
        warning = _WARNINGS.get(done.outcome)
        if warning is not None and not self._run.aborting:
            call = self._current
            assert call is not None
            self._run.warn(*warning, tool_call_id=call.id, tool_name=bound_text(call.name, 256))
        return self._store_result(done, is_error=done.outcome != "ok")

    def _store_result(self, done: ToolDone, *, is_error: bool) -> Step:
        call, run = self._current, self._run
        assert call is not None
        self._result = done
        block = ToolResultBlock(tool_call_id=call.id, tool_name=call.name, text=done.text, is_error=is_error)
        message = run.make_message(run.next_message_id(), "tool_result", done.text, blocks=(block, *done.images))
        run.store(message)
        return Await(Phase.STORING_RESULT)

    def on_result_stored(self, item: EntryStored) -> Step | None:
        """Show the stored result and go on with the next call."""
        run, done = self._run, self._result
        message = run.stored(item)
        if message is None or done is None:
            return None
        block = message.blocks[0]
        assert isinstance(block, ToolResultBlock)
        self._emit_end(done.text, is_error=block.is_error, truncated=done.truncated, message_id=message.id)
        return EndAborted() if run.aborting else self._next()

    def _emit_end(self, text: str, *, is_error: bool, truncated: bool, message_id: str | None) -> None:
        call, run = self._current, self._run
        assert call is not None
        self._show_result(text)
        self._current = self._result = None
        shown: dict[str, Any] = {"result": text}
        if not run.fits_inline(text):
            shown = {"result": "", "result_bytes": len(text.encode()), "result_omitted": True}
        run.emitter.emit(
            ToolExecutionEnd(
                run_id=run.spec.run_id,
                turn_id=run.turn_id,
                tool_call_id=call.id,
                tool_name=bound_text(call.name, 256),
                is_error=is_error,
                duration_ms=run.ms_since(self._started_ns),
                truncated=truncated,
                message_id=UNSET if message_id is None else message_id,
                **shown,
            )
        )

    def close(self) -> None:
        """Close what is open because the run ends now; calls that never began are dropped."""
        self._pending.clear()
        if self._current is None or not self._announced:
            self._current = None
            return
        text, truncated = "The tool did not stop in time; the run was aborted.", False
        if self._result is not None:
            text, truncated = self._result.text, self._result.truncated
        self._emit_end(text, is_error=True, truncated=truncated, message_id=None)


def changed_result(done: ToolDone, answer: HookOutcome) -> ToolDone:
    """Return a tool's result as the extensions left it."""
    if answer.block is not None:
        return ToolDone(done.tool_call_id, f"Withheld: {answer.block}", "blocked", truncated=False)
    outcome = done.outcome
    if answer.is_error is not None and answer.is_error != (outcome != "ok"):
        outcome = "error" if answer.is_error else "ok"
    text = done.text if answer.text is None else answer.text
    return structs.replace(done, text=text, outcome=outcome)
