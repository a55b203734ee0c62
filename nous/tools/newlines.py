"""Editing a text without minding its newlines: LF outside, whatever the file has inside.  Pure."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from functools import cached_property
from typing import NamedTuple


class Replaced(NamedTuple):
    """One replacement: the span of the old text and what stands there now."""

    start: int
    end: int
    text: str


class NewlineText:
    """A text whose newlines may be LF, CRLF or both, looked at as if all were LF."""

    def __init__(self, original: str) -> None:
        self.original = original
        self.plain = original.replace("\r\n", "\n")
        self._crlf_newlines = _positions_of_crlf(original)

    def find_all(self, wanted: str, limit: int = sys.maxsize) -> list[int]:
        """Return where ``wanted`` (its newlines LF) stands in ``plain``, without overlaps, from the left.

        At most ``limit`` places.
        """
        found: list[int] = []
        at = self.plain.find(wanted)
        while at >= 0 and len(found) < limit:
            found.append(at)
            at = self.plain.find(wanted, at + len(wanted))
        return found

    def is_unique(self, wanted: str) -> bool:
        """Return whether ``wanted`` stands at one place only, overlaps counted."""
        first = self.plain.find(wanted)
        return first >= 0 and self.plain.find(wanted, first + 1) < 0

    def replacement(self, at: int, wanted: str, new: str) -> Replaced:
        """Return the replacement of ``wanted`` at ``plain[at]`` by ``new`` (its newlines LF), in the original.

        New newlines are of the kind that stood there; if none did, of the kind most of the text has.
        """
        start, end = self._original_index(at), self._original_index(at + len(wanted))
        is_crlf = "\r\n" in self.original[start:end] or ("\n" not in wanted and self._is_mostly_crlf)
        return Replaced(start, end, new.replace("\n", "\r\n") if is_crlf else new)

    def _original_index(self, plain_index: int) -> int:
        return plain_index + bisect_left(self._crlf_newlines, plain_index)

    @cached_property
    def _is_mostly_crlf(self) -> bool:
        return 2 * len(self._crlf_newlines) > self.plain.count("\n")


def replace_spans(text: str, replacements: list[Replaced]) -> str:
    """Return ``text`` with the replacements made; they are in order and do not overlap."""
    pieces: list[str] = []
    at = 0
    for start, end, new in replacements:
        pieces += (text[at:start], new)
        at = end
    return "".join((*pieces, text[at:]))


def _positions_of_crlf(original: str) -> array[int]:
    """Return where in the plain text the newlines stand that were CRLF."""
    positions = array("Q")
    at = original.find("\r\n")
    while at >= 0:
        positions.append(at - len(positions))
        at = original.find("\r\n", at + 2)
    return positions
