"""Structured output: the answer of a run whose prompt came with a schema.

Exactly one answer counts: it fits, or the run has failed.  Nothing is repaired and nothing is asked again, so such a
run takes no further input, compacts nothing, and uses tools only where its spec says so.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from nous.engine.effects import CheckOutput
from nous.engine.inputs import OutputChecked
from nous.engine.run_state import RunState
from nous.engine.steps import Await, CompleteTurn, Fail, Step
from nous.engine.transitions import Phase
from nous.errors import bound_text
from nous.protocol.messages import Message, ToolCallBlock

_NAME_BYTES: Final = 64


class OutputPart:
    """Part of a run machine.  ``value`` is the output, once it was found to fit: JSON without white space."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._answer: Message | None = None
        self.value: Raw | UnsetType = UNSET

    def check(self, answer: Message) -> Await:
        """Have an answer checked that was stored."""
        self._answer = answer
        self._run.effects.append(CheckOutput(answer.id, answer.text))
        return Await(Phase.CHECKING_OUTPUT)

    def on_output_checked(self, item: OutputChecked) -> Step | None:
        """Complete the run if the answer fits its schema, else fail it."""
        answer = self._answer
        if answer is None or item.entry_id != answer.id:
            return None
        self._answer = None
        if item.fault is not None:
            return Fail("output_invalid", item.fault)
        self.value = compact_json(answer.text)
        return CompleteTurn()


def tools_are_off(calls: tuple[ToolCallBlock, ...]) -> Fail:
    """Return how a run fails whose model called tools although it has none."""
    name = bound_text(calls[0].name, _NAME_BYTES)
    return Fail("output_invalid", f"$: the model called the tool {name!r}, and tools are off")


def compact_json(text: str) -> Raw | UnsetType:
    """Return JSON as one line, numbers as they were written; nothing for what is no JSON after all."""
    try:
        return Raw(msgspec.json.format(text.encode(), indent=-1))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return UNSET
