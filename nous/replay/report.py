"""What a replay came to, for people and for machines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from nous.errors import EXIT_OK, EXIT_REGRESSION, EXIT_USAGE, EXIT_VERIFICATION, bound_text
from nous.store.trace_lines import event_head

Place = Literal["event", "effect", "input", "end"]
Mode = Literal["engine", "daemon"]
Verdict = Literal["identical", "diverged", "broken", "unverified", "not_a_trace"]

EXIT_BY_VERDICT: Final[dict[Verdict, int]] = {
    "identical": EXIT_OK,
    "diverged": EXIT_REGRESSION,
    "broken": EXIT_VERIFICATION,
    "unverified": EXIT_VERIFICATION,
    "not_a_trace": EXIT_USAGE,
}

WORST_FIRST: Final[tuple[Verdict, ...]] = ("diverged", "broken", "unverified", "not_a_trace", "identical")
"""Of several files the worst verdict gives the exit code: first what says that behaviour changed, then what says that
nothing can be said, and why."""

SHOWN_BYTES: Final = 4096
SHOWN_BEFORE_BYTES: Final = 256


class Divergence(Struct, frozen=True, kw_only=True):
    """The first difference.  ``seq`` is the event where it is, or the last one before it (``what`` says which).

    ``expected`` is what the recording has there, ``actual`` what came; None where there is nothing.  ``before`` are
    the last events before it, each cut short.  ``note`` says more where the two lines do not tell everything.
    """

    seq: int
    what: Place
    expected: str | None
    actual: str | None
    json_path: str
    before: tuple[str, ...]
    note: str | None = None


class Report(Struct, frozen=True, kw_only=True):
    """The verdict on one file.  ``reason`` says why it is not ``identical`` where no divergence does."""

    path: str
    verdict: Verdict
    mode: Mode
    run_id: str = ""
    status: str = ""
    events: int = 0
    reason: str | None = None
    divergence: Divergence | None = None
    elapsed_ms: int = 0

    @property
    def exit_code(self) -> int:
        """The exit code for the verdict."""
        return EXIT_BY_VERDICT[self.verdict]


def worst_exit_code(reports: Iterable[Report]) -> int:
    """Return the exit code of a call that replayed these files; see :data:`WORST_FIRST`."""
    found = {report.verdict for report in reports}
    return next((EXIT_BY_VERDICT[verdict] for verdict in WORST_FIRST if verdict in found), EXIT_OK)


def find_difference(
    expected: bytes | None,
    actual: bytes | None,
    what: Place,
    *,
    before: Sequence[bytes] = (),
    note: str | None = None,
) -> Divergence:
    """Describe the difference of two lines; ``before`` are the last event lines before it."""
    places = (event_head(line) for line in (expected, actual, *before[-1:]) if line)
    head = next((place for place in places if place is not None), None)
    return Divergence(
        seq=0 if head is None else head.seq,
        what=what,
        expected=shown(expected),
        actual=shown(actual),
        json_path=find_json_path(expected, actual) if expected and actual else "$",
        before=tuple(bound_text(line.decode("utf-8", "replace"), SHOWN_BEFORE_BYTES) for line in before),
        note=note,
    )


def find_json_path(expected: bytes, actual: bytes) -> str:
    """Return the path of the first difference of two JSON texts: ``$.payload.delta``; ``$`` if one is no JSON."""
    try:
        return _walk(msgspec.json.decode(expected), msgspec.json.decode(actual), "$")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "$"


def _walk(expected: Any, actual: Any, path: str) -> str:
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in [*expected, *(k for k in actual if k not in expected)]:
            if key not in expected or key not in actual:
                return f"{path}.{key}"
            if expected[key] != actual[key]:
                return _walk(expected[key], actual[key], f"{path}.{key}")
    elif isinstance(expected, list) and isinstance(actual, list):
        for index, (left, right) in enumerate(zip(expected, actual, strict=False)):
            if left != right:
                return _walk(left, right, f"{path}[{index}]")
        if len(expected) != len(actual):
            return f"{path}[{min(len(expected), len(actual))}]"
    return path


def shown(line: bytes | None) -> str | None:
    """Return the beginning of a line as text."""
    return None if line is None else bound_text(line.decode("utf-8", "replace"), SHOWN_BYTES)
