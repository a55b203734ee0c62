"""Hooks inside a run: ask the extensions, wait, go on with what they came to.

A run asks one hook at a time.  Without extensions that listen nothing is asked, nothing is recorded, and every step is
what it would be without this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET, structs

from nous.engine.effects import CallHook, StopHook, TellHook
from nous.engine.inputs import HookAnswered
from nous.engine.queues import Queued
from nous.engine.transitions import State
from nous.ports.extensions import HookName, HookOutcome
from nous.protocol.events import StatusEvent, WarningEvent
from nous.protocol.messages import TurnKind

if TYPE_CHECKING:
    from nous.engine.machine import RunMachine

NOTHING: Final = HookOutcome()

Then = Callable[[HookOutcome], None]


class HookPart:
    """Part of a :class:`RunMachine`."""

    def __init__(self, run: RunMachine) -> None:
        self._run = run
        self._made = 0
        self._then: Then | None = None
        self._has_begun = False
        self._offered: tuple[TurnKind, list[Queued]] | None = None

    def ask(self, hook: HookName, payload: dict[str, Any], then: Then) -> None:
        """Ask the extensions of a hook and go on with ``then``: at once if there are none."""
        run = self._run
        if hook not in run.spec.hooks:
            then(NOTHING)
            return
        self._made += 1
        self._then = then
        run.state = State.IN_HOOK
        run.effects.append(CallHook(self._made, hook, payload))

    def tell(self, hook: HookName, **payload: Any) -> None:
        """Tell the extensions of a hook what has happened."""
        if hook in self._run.spec.hooks:
            self._run.effects.append(TellHook(hook, payload))

    def stop(self) -> None:
        """Stop what is asked, if anything is."""
        if self._then is not None:
            self._then = None
            self._run.effects.append(StopHook(self._made))

    def on_hook_answered(self, item: HookAnswered) -> None:
        then, run = self._then, self._run
        if then is None or item.operation != self._made:
            return
        self._then = None
        turn_id = run.turn_id if run.in_turn else UNSET
        for warning in item.outcome.warnings:
            run.emitter.emit(WarningEvent(run_id=run.spec.run_id, turn_id=turn_id, **structs.asdict(warning)))
        then(item.outcome)

    # -- the way into a turn

    def offer_input(
        self, kind: TurnKind, inputs: list[Queued], text: str, begin: Callable[[str], None], skip: Callable[[], None]
    ) -> None:
        """Offer what was said to the extensions, then tell them that the run and the turn begin.

        ``begin`` is called with the text as they left it, ``skip`` if one of them has handled it; who blocks anything
        on the way fails the run.  Inputs whose turn has not begun when the run ends are its ``discarded`` ones.
        """
        self._offered = (kind, inputs)

        def take_input(answer: HookOutcome) -> None:
            if answer.block is not None:
                self._refuse(answer.block)
            elif answer.handled:
                self._offered = None
                self._say_handled(answer.text, kind, inputs)
                skip()
            else:
                self._begin_run(kind, text if answer.text is None else answer.text, take_up)

        def take_up(changed: str) -> None:
            self._offered = None
            begin(changed)

        self.ask("input", {"text": text, "turn_kind": kind}, take_input)

    def _begin_run(self, kind: TurnKind, text: str, begin: Callable[[str], None]) -> None:
        steps: list[tuple[HookName, dict[str, Any]]] = [("turn_start", {"turn_kind": kind})]
        if not self._has_begun:
            self._has_begun = True
            steps = [("before_agent_start", {"text": text}), ("run_start", {"text": text}), *steps]
        self._pass(steps, lambda: begin(text))

    def _pass(self, steps: list[tuple[HookName, dict[str, Any]]], then: Callable[[], None]) -> None:
        """Ask hook after hook, until one of them is blocked."""
        if not steps:
            then()
            return
        hook, payload = steps[0]

        def take(answer: HookOutcome) -> None:
            if answer.block is not None:
                self._refuse(answer.block)
            else:
                self._pass(steps[1:], then)

        self.ask(hook, payload, take)

    def _refuse(self, reason: str) -> None:
        self._run.fail("policy_blocked", reason)

    def _say_handled(self, text: str | None, kind: TurnKind, inputs: list[Queued]) -> None:
        run = self._run
        ids = tuple(queued.command_id for queued in inputs)
        run.emitter.emit(
            StatusEvent(
                message=text or "An extension has handled the input.",
                run_id=run.spec.run_id,
                code="input_handled",
                reason=kind,
                command_id=ids[0],
                command_ids=ids if len(ids) > 1 else UNSET,
            )
        )

    def give_back(self) -> None:
        """Put back what was queued, and was offered to the extensions when the run came to its end."""
        offered, self._offered = self._offered, None
        if offered is None:
            return
        kind, inputs = offered
        if kind != "prompt":
            self._run.queues.put_back(kind, inputs)
