"""Structured output: the answer of a run whose prompt came with a schema.

Exactly one answer counts: it fits, or the run has failed.  Nothing is repaired and nothing is asked again, so such a
run takes no further input, compacts nothing, and uses tools only where its spec says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from nous.engine.effects import CheckOutput
from nous.engine.inputs import OutputChecked
from nous.engine.transitions import State
from nous.errors import bound_text
from nous.protocol.messages import Message, ToolCallBlock

if TYPE_CHECKING:
    from nous.engine.machine import RunMachine

_NAME_BYTES: Final = 64


class OutputPart:
    """Part of a :class:`RunMachine`.  ``value`` is the output, once it was found to fit: JSON without white space."""

    def __init__(self, run: RunMachine) -> None:
        self._run = run
        self._answer: Message | None = None
        self.is_wanted = run.spec.output_schema is not None
        self.value: Raw | UnsetType = UNSET

    @property
    def forbids_tools(self) -> bool:
        """Whether the run makes exactly one model call."""
        return self.is_wanted and not self._run.spec.output_tools

    def refuse_tools(self, calls: tuple[ToolCallBlock, ...]) -> None:
        name = bound_text(calls[0].name, _NAME_BYTES)
        self._run.fail("output_invalid", f"$: the model called the tool {name!r}, and tools are off")

    def check(self, answer: Message) -> None:
        run = self._run
        self._answer = answer
        run.effects.append(CheckOutput(answer.id, answer.text))
        run.state = State.CHECKING_OUTPUT

    def on_output_checked(self, item: OutputChecked) -> None:
        run, answer = self._run, self._answer
        if answer is None or item.entry_id != answer.id:
            return
        self._answer = None
        if item.fault is not None:
            run.fail("output_invalid", item.fault)
            return
        self.value = compact_json(answer.text)
        run.complete_turn()


def compact_json(text: str) -> Raw | UnsetType:
    """Return JSON as one line, numbers as they were written; nothing for what is no JSON after all."""
    try:
        return Raw(msgspec.json.format(text.encode(), indent=-1))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return UNSET
