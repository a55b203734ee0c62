"""Globs over relative paths, matched in linear time whatever the pattern.  Pure.

``*``, ``?`` and ``[...]`` stay within one component, ``**`` spans any number of them, ``{a,b}`` stands for either.
A pattern without a slash is matched against the last component, one with a slash against the whole path.  A slash at
the end asks for a directory, ``!`` in front turns the answer round.  A backslash is a character like any other.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import Final

MAX_EXPANSIONS: Final = 1000
_ANY_DEPTH: Final = "**"
_INNERMOST_BRACES: Final = re.compile(r"\{([^{}]*,[^{}]*)\}")

_Matches = Callable[[str], object]


class GlobError(Exception):
    """The pattern stands for too many patterns."""


class Glob:
    """A compiled glob."""

    def __init__(self, pattern: str) -> None:
        self._is_negated = pattern.startswith("!")
        pattern = pattern.removeprefix("!")
        self._wants_directory = pattern.endswith("/")
        alternatives = expand_braces(pattern.removesuffix("/"))
        self._alternatives = [_compile(alternative) for alternative in alternatives]

    def matches(self, path: str, *, is_directory: bool) -> bool:
        """Return whether ``path`` (relative, ``/`` between components) is meant."""
        return (self._is_kind(is_directory) and self._matches_path(path)) != self._is_negated

    def _is_kind(self, is_directory: bool) -> bool:
        return is_directory or not self._wants_directory

    def _matches_path(self, path: str) -> bool:
        components = path.split("/")
        return any(_match(components, alternative) for alternative in self._alternatives)


def expand_braces(pattern: str) -> list[str]:
    """Return the patterns that ``pattern`` with ``{a,b}`` in it stands for.

    Raises:
        GlobError: they are more than ``MAX_EXPANSIONS``.
    """
    done: list[str] = []
    waiting = [pattern]
    while waiting:
        current = waiting.pop()
        braces = _INNERMOST_BRACES.search(current)
        if braces is None:
            done.append(current)
        else:
            waiting += (current[: braces.start()] + one + current[braces.end() :] for one in braces[1].split(","))
        if len(done) + len(waiting) > MAX_EXPANSIONS:
            raise GlobError(f"the pattern stands for more than {MAX_EXPANSIONS} patterns")
    return done


def _compile(pattern: str) -> list[_Matches | None]:
    """Return a matcher per component, ``None`` for any number of components."""
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if "/" not in pattern:
        parts.insert(0, _ANY_DEPTH)
    # fnmatch's own regular expressions: its stars are atomic, so that no name costs more than its length.
    return [None if part == _ANY_DEPTH else re.compile(fnmatch.translate(part)).match for part in parts]


def _match(components: Sequence[str], pattern: Sequence[_Matches | None]) -> bool:
    """Return whether all components match: after a mismatch, the last ``**`` takes one component more."""
    at = matched = 0
    star, star_at = -1, 0
    while at < len(components):
        part = pattern[matched] if matched < len(pattern) else _never
        if part is None:
            star, star_at = matched, at
            matched += 1
        elif part(components[at]):
            at += 1
            matched += 1
        elif star >= 0:
            star_at += 1
            at, matched = star_at, star + 1
        else:
            return False
    return all(part is None for part in pattern[matched:])


def _never(component: str) -> None:
    return None
