"""What a tool says when it cannot do what was asked: a sentence the model can act on, never a crash."""

from __future__ import annotations

import os
from typing import Final

from nous.errors import bound_text

_MAX_SHOWN_BYTES: Final = 300


class ToolFailure(Exception):  # noqa: N818  it is the tool's answer, not an error of nous
    """The tool's answer is this text, as an error."""


def quoted(given: str) -> str:
    """Return what the model gave, quoted, bounded, on one line."""
    shown = "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in given)
    return f'"{bound_text(shown, _MAX_SHOWN_BYTES)}"'


def describe(given: str, error: OSError) -> ToolFailure:
    """Return the failure that says what the system said, about the path as it was given."""
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    return ToolFailure(f"{quoted(given)}: {reason}.")
