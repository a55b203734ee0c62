"""What the daemon and the process that searches for it say to each other.  Pure."""

from __future__ import annotations

import marshal
import re
from typing import Any, Final, NamedTuple, TypedDict

_SUMMARY: Final = re.compile(rb"(\d+) (\d+) (\d+)\.")


class GrepQuery(TypedDict):
    """What to look for.  ``ripgrep`` is the path of rg, ``None`` to do without; ``context`` counts lines."""

    pattern: str
    ignore_case: bool
    literal: bool
    context: int
    ripgrep: str | None


class SearchRequest(TypedDict):
    """What to search; plain values only, so that it can cross to the child.

    ``start`` is absolute and resolved, ``start_fd`` its descriptor, which the child inherits.  ``shown_start`` is what
    the paths of its entries begin with in the results.
    ``file`` names the one file in ``start`` to search instead of the tree.  ``top`` and ``closed``: see
    :mod:`nous.tools.walk`.  Without ``grep``, names are what is searched for.
    """

    start: str
    start_fd: int
    shown_start: str
    file: str | None
    top: str
    closed: list[str]
    glob: str | None
    limit: int
    grep: GrepQuery | None


class SearchSummary(NamedTuple):
    """How a search ended: matches (or names) written, whether there are more, directories that were not readable."""

    found: int
    has_more: int
    unreadable: int


def encode_request(request: SearchRequest) -> str:
    """Return the request as an argument.  Both ends are the same Python, and marshal needs no import."""
    values: Any = request
    return marshal.dumps(values).hex()


def decode_request(argument: str) -> SearchRequest:
    """Return the request that the argument of a search process holds."""
    request: SearchRequest = marshal.loads(bytes.fromhex(argument))
    return request


def encode_summary(summary: SearchSummary) -> bytes:
    """Return the last line that a search process writes."""
    return b"\0%d %d %d." % summary


def split_output(output: bytes) -> tuple[bytes, SearchSummary | None]:
    """Return what was found and, if the search came to its end, its summary."""
    found, _, end = output.rpartition(b"\0")
    numbers = _SUMMARY.fullmatch(end)
    if numbers is None:
        return output, None
    return found, SearchSummary(*map(int, numbers.groups()))
