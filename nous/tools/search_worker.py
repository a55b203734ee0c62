"""The program that walks and searches, run as a child of its own (see :mod:`nous.tools.search`).

Hostile patterns, hostile .gitignore files, dead disks and huge trees cost this process its time and memory, never the
daemon: it can be killed at any point.  What it finds is written to stdout as it is found; at the end stand a NUL and
a summary.  It imports nothing it does not need: its start is most of its cost.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Final

from nous.tools.excerpts import excerpt
from nous.tools.globs import Glob
from nous.tools.matching import find_matches
from nous.tools.search_request import GrepQuery, SearchRequest, SearchSummary, decode_request, encode_summary
from nous.tools.text import printable_name
from nous.tools.walk import FILE_FLAGS, Walk

MAX_OUTPUT_BYTES: Final = 64 * 1024 * 1024
"""What a result's file may hold."""
_FLUSH_BYTES: Final = 32 * 1024


def main() -> None:
    """Search as the first argument says, and write what is found.  A process of its own."""
    request = decode_request(sys.argv[1])
    walk = Walk(request["start"], request["top"], request["closed"], request["start_fd"])
    output = _Output(request["limit"])
    if request["grep"] is None:
        output.take_all(_find(walk, request))
    else:
        output.take_all(_grep(walk, request, request["grep"]))
    output.close(walk.unreadable)


class _Output:
    """Writes findings in large pieces, up to the limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._written_bytes = 0
        self._found = 0
        self._has_more = False

    def take_all(self, findings: Iterator[tuple[int, str]]) -> None:
        """Take pairs of a number of findings and their text."""
        for number, text in findings:
            self._has_more = self._found + number > self._limit
            if self._found == self._limit:
                return
            self._found += min(number, self._limit - self._found)
            self._buffer += text.encode()
            if len(self._buffer) > _FLUSH_BYTES:
                self._flush()
            if self._written_bytes > MAX_OUTPUT_BYTES:
                self._has_more = True
                return

    def close(self, unreadable: int) -> None:
        summary = SearchSummary(self._found, self._has_more, unreadable)
        self._buffer += encode_summary(summary)
        self._flush()

    def _flush(self) -> None:
        self._written_bytes += len(self._buffer)
        sys.stdout.buffer.write(self._buffer)
        sys.stdout.buffer.flush()
        self._buffer.clear()


def _find(walk: Walk, request: SearchRequest) -> Iterator[tuple[int, str]]:
    glob = Glob(request["glob"] or "*")
    for entry in walk:
        if glob.matches(entry.path, is_directory=entry.is_directory):
            name = printable_name(request["shown_start"] + entry.path)
            yield 1, f"{name}{'/' if entry.is_directory else ''}\n"


def _grep(walk: Walk, request: SearchRequest, query: GrepQuery) -> Iterator[tuple[int, str]]:
    """Yield, file by file, the matching lines up to the limit, and if there are more, how many more were found."""
    left = request["limit"]
    is_first = True
    for file, matches in find_matches(_files(walk, request), query, left + 1):
        shown = matches[:left]
        if shown:
            separator = "" if is_first or not query["context"] else "--\n"
            name = printable_name(request["shown_start"] + file.path)
            yield len(matches), separator + excerpt(file.blocks(), name, shown, query["context"])
        else:
            yield len(matches), ""
        is_first = False
        left -= len(shown)


def _files(walk: Walk, request: SearchRequest) -> Iterator[tuple[str, int]]:
    """Yield the path and an open descriptor of each file to search."""
    if request["file"] is not None:
        with contextlib.suppress(OSError):
            yield request["file"], os.open(request["file"], FILE_FLAGS, dir_fd=request["start_fd"])
        return
    glob = None if request["glob"] is None else Glob(request["glob"])
    for entry in walk:
        if entry.is_regular and (glob is None or glob.matches(entry.path, is_directory=False)):
            fd = walk.open_file(entry)
            if fd is not None:
                yield entry.path, fd
