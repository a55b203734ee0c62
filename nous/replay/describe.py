"""A verdict in words: what a person reads on a terminal, and what a failed test says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nous.replay.report import Divergence, Report
from nous.replay.update import Update

SHOWN_CHARACTERS: Final = 240
"""How much of a line is shown around the place where it differs."""

_LEAD_CHARACTERS: Final = 80

_WORDS: Final = {"not_a_trace": "not a trace"}


def verdict_word(report: Report) -> str:
    """Return the word for a report's verdict."""
    return _WORDS.get(report.verdict, report.verdict)


def headline(report: Report) -> str:
    """Return what there is to say in one line besides verdict and path."""
    if report.divergence is not None:
        return f"{_place(report.divergence)}, {report.divergence.json_path}"
    if report.verdict == "identical":
        return f"{report.status}, {report.events} events, {report.elapsed_ms} ms"
    return report.reason or ""


def explain(report: Report) -> list[str]:
    """Return what a divergence looks like, line by line: the events before it, then both sides of the difference."""
    divergence = report.divergence
    if divergence is None:
        return []
    expected, actual = excerpts(divergence.expected, divergence.actual)
    out = [f"  before    {line}" for line in divergence.before]
    out += [f"  expected  {expected}", f"  actual    {actual}"]
    out += [f"  note      {note}" for note in (divergence.note, report.reason) if note]
    return out


def failure_text(report: Report) -> str:
    """Return all there is to say about a verdict other than ``identical``, as a test's failure."""
    lines = [f"{verdict_word(report)} ({report.mode} mode): {headline(report)}", *explain(report)]
    if report.divergence is not None:
        lines.append(f"If the new behaviour is meant: nous replay --update {report.path}")
    return "\n".join(lines)


def excerpts(expected: str | None, actual: str | None) -> tuple[str, str]:
    """Return both lines, long ones cut to the neighbourhood of their first difference."""
    pairs = enumerate(zip(expected or "", actual or "", strict=False))
    same = next((index for index, (left, right) in pairs if left != right), 0)
    start = max(0, same - _LEAD_CHARACTERS)
    return _excerpt(expected, start), _excerpt(actual, start)


def _excerpt(line: str | None, start: int) -> str:
    if line is None:
        return "(nothing)"
    end = start + SHOWN_CHARACTERS
    return ("…" if start else "") + line[start:end] + ("…" if end < len(line) else "")


def _place(divergence: Divergence) -> str:
    if divergence.what == "event":
        return f"event {divergence.seq}"
    where = {"effect": "an effect", "input": "an input", "end": "the end"}[divergence.what]
    return f"{where} behind event {divergence.seq}"


def count_verdicts(reports: Sequence[Report]) -> dict[str, int]:
    """Return how many files each verdict has, the most frequent first."""
    words = [report.verdict for report in reports]
    return dict(sorted({w: words.count(w) for w in words}.items(), key=lambda item: -item[1]))


def describe_update(update: Update) -> str:
    """Return what ``--update`` did with a file, in one line."""
    if update.reason is not None:
        return f"refused: {update.reason}"
    if not update.changed:
        return "unchanged"
    counted = [
        f"{name} {before}" if before == after else f"{name} {before} -> {after}"
        for name, (before, after) in (("events", update.events), ("effects", update.effects))
    ]
    divergence = update.before.divergence
    first = "the header only" if divergence is None else f"first at {headline(update.before)}"
    return f"updated: {', '.join(counted)}; {first}"
