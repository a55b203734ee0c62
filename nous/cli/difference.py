"""What two runs did differently, for a terminal."""

from __future__ import annotations

from nous.cli.terminal import Ink
from nous.replay.diff import Comparison, Difference


def write_comparison(ink: Ink, found: Comparison) -> None:
    """Write the first difference with what came before it, then all others."""
    if found.is_same:
        ink.line(("the same: ", "green"), "turns, messages, tool calls, warnings and end")
        ink.flush()
        return
    ink.line(("different: ", "red"), summary(found))
    for label in found.before:
        ink.line("    ", (f"both  {label}", "dim"))
    for change in found.changes:
        _write_change(ink, change)
    ink.flush()


def summary(found: Comparison) -> str:
    """Return how many differences there are of each kind."""
    return ", ".join(f"{found.count(kind)} {kind}" for kind in ("changed", "added", "removed"))


def _write_change(ink: Ink, change: Difference) -> None:
    field = f", {change.field}" if change.field else ""
    at = "" if change.at is None else f", from character {change.at}"
    ink.line((f"{change.kind}  ", "yellow"), (f"{change.where}{field}", "bold"), (at, "dim"))
    if change.left is not None:
        ink.line("    ", (f"- {change.left}", "red"))
    if change.right is not None:
        ink.line("    ", (f"+ {change.right}", "green"))
