"""What a replay came to, for people and for machines."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from nous.errors import EXIT_OK, EXIT_REGRESSION, EXIT_USAGE, EXIT_VERIFICATION, bound_text

Place = Literal["event", "effect", "input", "end"]
Verdict = Literal["identical", "diverged", "broken", "unverified", "not_a_trace"]

EXIT_BY_VERDICT: Final[dict[Verdict, int]] = {
    "identical": EXIT_OK,
    "diverged": EXIT_REGRESSION,
    "broken": EXIT_VERIFICATION,
    "unverified": EXIT_VERIFICATION,
    "not_a_trace": EXIT_USAGE,
}

SHOWN_BYTES: Final = 4096


class Divergence(Struct, frozen=True, kw_only=True):
    """The first difference.  ``seq`` is the event where it is, or the last one before it (``what`` says which)."""

    seq: int
    what: Place
    expected: str | None
    actual: str | None
    json_path: str
    before: tuple[str, ...]


class Report(Struct, frozen=True, kw_only=True):
    path: str
    verdict: Verdict
    mode: Literal["engine", "daemon"]
    run_id: str = ""
    status: str = ""
    events: int = 0
    reason: str | None = None
    divergence: Divergence | None = None
    elapsed_ms: int = 0

    @property
    def exit_code(self) -> int:
        return EXIT_BY_VERDICT[self.verdict]


def find_json_path(expected: bytes, actual: bytes) -> str:
    """Return the path of the first difference of two JSON texts: ``$.payload.delta``; ``$`` if one is no JSON."""
    try:
        return _walk(msgspec.json.decode(expected), msgspec.json.decode(actual), "$")
    except (msgspec.DecodeError, UnicodeDecodeError):
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
    return None if line is None else bound_text(line.decode("utf-8", "replace"), SHOWN_BYTES)
