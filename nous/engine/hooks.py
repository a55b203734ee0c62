"""Hooks inside a run: ask the extensions, wait, go on with what they answered.

A run asks one hook at a time.  Without extensions that listen nothing is asked and nothing is recorded.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET, structs

from nous.engine.effects import CallHook, StopHook
from nous.engine.inputs import HookAnswered
from nous.engine.run_state import RunState
from nous.engine.steps import AskHook, Await, Fail, Offer, OpenTurn, Resume, Step, TakeTurn
from nous.engine.transitions import AfterHook, Phase
from nous.ports.extensions import HookName, HookOutcome
from nous.protocol.events import StatusEvent, WarningEvent

NOTHING: Final = HookOutcome()
"""What a hook answers that nobody listens to."""


class HookPart:
    """Part of a run machine: the hook that is being asked, and the way of an input through the hooks into its turn."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._asked = 0
        self._then: AfterHook | None = None
        self._has_begun = False
        self._offer: Offer | None = None
        self._left: list[tuple[HookName, dict[str, Any]]] = []

    def ask(self, step: AskHook) -> Step:
        """Ask the extensions of a hook; if there are none, go on at once."""
        run = self._run
        if step.hook not in run.spec.hooks:
            return Resume(step.then, NOTHING)
        self._asked += 1
        self._then = step.then
        run.effects.append(CallHook(self._asked, step.hook, step.payload))
        return Await(Phase.IN_HOOK)

    @property
    def asked_for(self) -> AfterHook | None:
        """What waits for the hook that is being asked, if one is."""
        return self._then

    def stop(self) -> None:
        """Stop the hook that is being asked, if one is."""
        if self._then is not None:
            self._then = None
            self._run.effects.append(StopHook(self._asked))

    def on_hook_answered(self, item: HookAnswered) -> Step | None:
        """Emit the extensions' warnings and go on with their answer."""
        then, run = self._then, self._run
        if then is None or item.operation != self._asked:
            return None
        self._then = None
        turn_id = run.open_turn_id()
        for warning in item.outcome.warnings:
            run.emitter.emit(WarningEvent(run_id=run.spec.run_id, turn_id=turn_id, **structs.asdict(warning)))
        return Resume(then, item.outcome)

    # -- an input's way into its turn

    def offer(self, offer: Offer) -> Step:
        """Offer an input to the extensions, then tell them that the run and the turn begin.

        Blocking any of these hooks fails the run.  If the run ends before the turn begins, the inputs count as
        discarded.
        """
        self._offer = offer
        return AskHook("input", {"text": offer.text, "turn_kind": offer.kind}, AfterHook.OFFER_INPUT)

    def after_input_hook(self, answer: HookOutcome) -> Step:
        """Skip an input that an extension has handled; otherwise go on with its text as they left it."""
        offer = self._offer
        assert offer is not None
        if answer.block is not None:
            return Fail("policy_blocked", answer.block)
        if answer.handled:
            self._offer = None
            self._say_handled(answer.text, offer)
            return TakeTurn()
        text = offer.text if answer.text is None else answer.text
        self._offer = offer._replace(text=text)
        self._left = [("turn_start", {"turn_kind": offer.kind})]
        if not self._has_begun:
            self._has_begun = True
            self._left = [("before_agent_start", {"text": text}), ("run_start", {"text": text}), *self._left]
        return self._begin_turn()

    def after_turn_hook(self, answer: HookOutcome) -> Step:
        """Go on to the next hook before the turn, unless this one was blocked."""
        return self._begin_turn() if answer.block is None else Fail("policy_blocked", answer.block)

    def _begin_turn(self) -> Step:
        if self._left:
            hook, payload = self._left.pop(0)
            return AskHook(hook, payload, AfterHook.BEGIN_TURN)
        offer, self._offer = self._offer, None
        assert offer is not None
        return OpenTurn(offer)

    def _say_handled(self, text: str | None, offer: Offer) -> None:
        ids = tuple(queued.command_id for queued in offer.inputs)
        self._run.emitter.emit(
            StatusEvent(
                message=text or "An extension has handled the input.",
                run_id=self._run.spec.run_id,
                code="input_handled",
                reason=offer.kind,
                command_id=ids[0],
                command_ids=ids if len(ids) > 1 else UNSET,
            )
        )

    def give_back(self) -> None:
        """Put an input back into its queue that was offered to the extensions when the run ended."""
        offer, self._offer = self._offer, None
        if offer is not None and offer.kind != "prompt":
            self._run.queues.put_back(offer.kind, offer.inputs)
