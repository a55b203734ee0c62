"""A unified diff of replacements whose places are known: linear, however large the text.  Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

from nous.tools.newlines import Replaced, replace_spans

CONTEXT_LINES: Final = 3
_NO_NEWLINE: Final = "\\ No newline at end of file"


class LineChange(NamedTuple):
    """Old lines from ``start`` to ``end`` (0-based, end exclusive) that became the lines ``new``."""

    start: int
    end: int
    new: list[str]


def unified_diff(name: str, old: str, replacements: list[Replaced]) -> str:
    """Return the diff, in the format of ``diff -u``, from ``old`` to ``old`` with the replacements made.

    Lines end at LF only; a CR before it is part of the line.  The replacements are in order and do not overlap.
    """
    old_lines = _Lines(old)
    output = [f"--- a/{name}", f"+++ b/{name}"]
    shift = 0
    for hunk in _hunks(_changes(old, replacements)):
        output += _render(hunk, old_lines, shift)
        shift += sum(len(change.new) - (change.end - change.start) for change in hunk)
    return "\n".join(output) + "\n"


def _lines(text: str) -> list[str]:
    """Return the lines with their LFs; the last one may have none."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _changes(old: str, replacements: list[Replaced]) -> list[LineChange]:
    changes: list[LineChange] = []
    line = counted = 0
    for block in _blocks(old, replacements):
        line += old.count("\n", counted, block.start)
        counted = block.start
        before, after = _lines(old[block.start : block.end]), _lines(block.text)
        if len(before) == len(after) == 1 and before != after:
            changes.append(LineChange(line, line + 1, after))
            continue
        prefix = _common(before, after)
        suffix = _common(before[prefix:][::-1], after[prefix:][::-1])
        changes.append(LineChange(line + prefix, line + len(before) - suffix, after[prefix : len(after) - suffix]))
    return [change for change in changes if change.start < change.end or change.new]


def _blocks(old: str, replacements: list[Replaced]) -> list[Replaced]:
    """Return the replacements widened to whole lines, those that touch the same line as one."""
    blocks: list[Replaced] = []
    group: list[Replaced] = []
    start = end = 0
    for replaced in replacements:
        if group and replaced.start >= end and end < len(old):
            blocks.append(_widened(old, start, end, group))
            group = []
        if not group:
            start = old.rfind("\n", end, replaced.start) + 1 or end
        group.append(replaced)
        # Also if the old text ended with its line: what is new may not, and then joins the next line.
        if replaced.end >= end:
            end = old.find("\n", replaced.end) + 1 or len(old)
    return [*blocks, _widened(old, start, end, group)] if group else blocks


def _widened(old: str, start: int, end: int, group: list[Replaced]) -> Replaced:
    inner = [Replaced(one.start - start, one.end - start, one.text) for one in group]
    return Replaced(start, end, replace_spans(old[start:end], inner))


def _common(before: list[str], after: list[str]) -> int:
    pairs = zip(before, after, strict=False)
    return next((number for number, (one, other) in enumerate(pairs) if one != other), min(len(before), len(after)))


def _hunks(changes: list[LineChange]) -> list[list[LineChange]]:
    """Return the changes in groups whose context lines meet."""
    hunks = [[change] for change in changes[:1]]
    for previous, change in pairwise(changes):
        if change.start - previous.end <= 2 * CONTEXT_LINES:
            hunks[-1].append(change)
        else:
            hunks.append([change])
    return hunks


class _Lines:
    """The lines of a text, read from the beginning on: a list of all would take many times the text's memory."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._number = 0

    def up_to(self, number: int) -> list[str]:
        """Return the lines that were not read yet up to line ``number`` (0-based, exclusive)."""
        lines: list[str] = []
        while self._number < number and self._at < len(self._text):
            end = self._text.find("\n", self._at) + 1 or len(self._text)
            lines.append(self._text[self._at : end])
            self._at = end
            self._number += 1
        return lines

    def skip_to(self, number: int) -> None:
        while self._number < number and self._at < len(self._text):
            self._at = self._text.find("\n", self._at) + 1 or len(self._text)
            self._number += 1


def _render(hunk: list[LineChange], old_lines: _Lines, shift: int) -> list[str]:
    first = max(hunk[0].start - CONTEXT_LINES, 0)
    old_lines.skip_to(first)
    old_count = 0
    body: list[str] = []
    added = 0
    for change in hunk:
        for mark, end in ((" ", change.start), ("-", change.end)):
            lines = old_lines.up_to(end)
            old_count += len(lines)
            body += _marked(mark, lines)
        body += _marked("+", change.new)
        added += len(change.new) - (change.end - change.start)
    lines = old_lines.up_to(hunk[-1].end + CONTEXT_LINES)
    old_count += len(lines)
    body += _marked(" ", lines)
    return [f"@@ -{_range(first, old_count)} +{_range(first + shift, old_count + added)} @@", *body]


def _range(start: int, count: int) -> str:
    """Return lines as ``diff -u`` counts them: an empty range is named by the line before it."""
    if count == 1:
        return str(start + 1)
    return f"{start + 1 if count else start},{count}"


def _marked(mark: str, lines: list[str]) -> list[str]:
    return [f"{mark}{line[:-1]}" if line.endswith("\n") else f"{mark}{line}\n{_NO_NEWLINE}" for line in lines]
