"""Finding the lines that match, by ripgrep or by Python: the same lines, in the order of the files given.

ripgrep never gets a name: short files are put together in an anonymous file, long ones are named by descriptor
(``/dev/fd/N``), so that what is searched is what was opened.  It gets one thread, so that its order is ours and it can
be stopped as soon as there is enough; what to ignore has been decided before.
Long files with a byte order mark are searched by Python, as the text they hold.
"""

from __future__ import annotations

import os
import re
import signal
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from itertools import groupby, islice
from typing import Final

from nous.system.files import anonymous_file
from nous.tools.encodings import UTF_8
from nous.tools.excerpts import LineMatch
from nous.tools.regex import translate
from nous.tools.regex_engines import Engine
from nous.tools.search_request import GrepQuery
from nous.tools.text import count_lines
from nous.tools.text_files import TextFile, text_batches

_PLACE: Final = re.compile(rb"(\d+):(?:(\d+):)?")
_READ_BYTES: Final = 1024 * 1024

_RIPGREP_OPTIONS: Final = (
    "--no-config",
    "--no-messages",
    "--no-ignore",
    "--hidden",
    "--text",
    "--encoding=none",
    "--no-mmap",
    "--threads=1",
    "--color=never",
    "--no-heading",
    "--with-filename",
    "--line-number",
    "--column",
    "--null",
    "--max-columns=1",  # the lines themselves are read later, as far as they are shown
)

_FileAction = tuple[int, int, int] | tuple[int, int, str, int, int]


Match = tuple[TextFile, list[LineMatch]]
"""A file and its lines that match."""

_Search = Callable[[list[TextFile], int], Iterable[Match]]


def find_matches(files: Iterable[tuple[str, int]], query: GrepQuery, limit: int) -> Iterator[Match]:
    """Yield the matches in ``files`` (pairs of path and descriptor), at most ``limit`` lines; binary files have none.

    The descriptors are closed here; a file can be read as long as the iteration stands at its match.
    """
    python = _python_engine(query)
    ripgrep = None if query["ripgrep"] is None else _ripgrep_engine(query, query["ripgrep"])
    with closing(text_batches(files)) as batches:
        for batch in batches:
            for is_plain, group in groupby(batch, key=lambda file: file.encoding == UTF_8):
                those = list(group)
                found: Iterable[Match] | None = ripgrep(those, limit) if ripgrep is not None and is_plain else None
                if found is None:
                    # No ripgrep, or one that cannot do it: a pattern beyond its size limit, say.
                    ripgrep = None if is_plain else ripgrep
                    found = python(those, limit)
                for file, lines in found:
                    yield file, lines
                    limit -= len(lines)
                    if limit <= 0:
                        return


def _python_engine(query: GrepQuery) -> _Search:
    matcher = _LineMatcher(query)

    def search(batch: list[TextFile], limit: int) -> Iterator[Match]:
        for file in batch:
            matches = list(islice(matcher.find(file), limit))
            if matches:
                yield file, matches
                limit -= len(matches)

    return search


class _LineMatcher:
    """Finds the lines that match.  The translation of the pattern for lines beyond ASCII is made when one comes."""

    def __init__(self, query: GrepQuery) -> None:
        self._query = query
        self._patterns: dict[bool, re.Pattern[str]] = {}

    def find(self, file: TextFile) -> Iterator[LineMatch]:
        """Yield the number of each line that matches, and where, in bytes."""
        if file.data is not None and file.data.isascii():
            search = self._pattern(is_ascii=True).search
            for number, text in enumerate(file.data.decode("ascii").removesuffix("\n").split("\n"), 1):
                found = search(text)
                if found is not None:
                    yield number, found.start()
            return
        for number, line in enumerate(_lines(file.blocks()), 1):
            column = self._column(line)
            if column is not None:
                yield number, column

    def _column(self, line: bytes) -> int | None:
        is_ascii = line.isascii()
        text = line.decode("utf-8", "surrogateescape")
        found = self._pattern(is_ascii=is_ascii).search(text)
        if found is None:
            return None
        return found.start() if is_ascii else len(text[: found.start()].encode("utf-8", "surrogateescape"))

    def _pattern(self, *, is_ascii: bool) -> re.Pattern[str]:
        pattern = self._patterns.get(is_ascii)
        if pattern is None:
            query = self._query
            engine: Engine = "python-ascii" if is_ascii else "python"
            written = translate(query["pattern"], engine, ignore_case=query["ignore_case"], literal=query["literal"])
            pattern = self._patterns[is_ascii] = re.compile(written)
        return pattern


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines without their LFs."""
    pieces: list[bytes] = []
    for block in blocks:
        *lines, rest = block.split(b"\n")
        for line in lines:
            yield b"".join([*pieces, line])
            pieces.clear()
        if rest:
            pieces.append(rest)
    if pieces:
        yield b"".join(pieces)


class _Source:
    """What ripgrep searches under one name: a long file, or short files put together.

    ``last_lines`` are the numbers of the last line of each file.
    """

    def __init__(self, files: list[TextFile]) -> None:
        self._files = files
        self._last_lines: list[int] = []
        last = 0
        for file in files:
            last += 0 if file.data is None else count_lines(file.data)
            self._last_lines.append(last)

    def open(self, stack: ExitStack) -> int:
        """Return an inheritable descriptor, closed with ``stack`` unless it is that of a file."""
        if self._files[0].data is None:
            fd = self._files[0].fd
        else:
            pieces = (_with_end(file.data) for file in self._files if file.data)
            fd = stack.enter_context(anonymous_file(b"".join(pieces)))
        os.set_inheritable(fd, True)
        return fd

    def locate(self, number: int) -> tuple[TextFile, int]:
        """Return the file in which the line ``number`` is, and its number there."""
        if self._files[0].data is None:
            return self._files[0], number
        at = bisect_left(self._last_lines, number)
        return self._files[at], number - (self._last_lines[at - 1] if at else 0)


def _with_end(data: bytes) -> bytes:
    return data if data.endswith(b"\n") else data + b"\n"


def _sources(batch: list[TextFile]) -> Iterator[_Source]:
    for is_long, group in groupby(batch, key=lambda file: file.data is None):
        files = list(group)
        yield from (_Source([file]) for file in files) if is_long else (_Source(files),)


def _ripgrep_engine(query: GrepQuery, program: str) -> Callable[[list[TextFile], int], list[Match] | None]:
    pattern = translate(query["pattern"], "rust", ignore_case=query["ignore_case"], literal=query["literal"])
    command = [program, *_RIPGREP_OPTIONS, f"--regexp={pattern}"]

    def search(batch: list[TextFile], limit: int) -> list[Match] | None:
        with ExitStack() as stack:
            sources = {source.open(stack): source for source in _sources(batch)}
            names = [f"/dev/fd/{fd}" for fd in sources]
            found = _run_ripgrep([*command, f"--max-count={limit}", "--", *names], sources, limit)
        if not found and not _does_accept(command):
            return None
        return found

    return search


def _does_accept(command: list[str]) -> bool:
    """Return whether ripgrep can do it at all: it exits with 1 if it found nothing in nothing."""
    pid = os.posix_spawn(command[0], [*command, "--", os.devnull], os.environ, file_actions=_silent(None))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def _run_ripgrep(command: list[str], sources: Mapping[int, _Source], limit: int) -> list[Match]:
    reading, writing = os.pipe()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=_silent(writing))
    os.close(writing)
    try:
        return _collect(_records(reading), sources, limit)
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _silent(output: int | None) -> list[_FileAction]:
    """Return the file actions for a child that writes to ``output`` and nowhere else."""
    null: list[_FileAction] = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    return null if output is None else [*null, (os.POSIX_SPAWN_DUP2, output, 1)]


def _collect(records: Iterator[tuple[int, LineMatch]], sources: Mapping[int, _Source], limit: int) -> list[Match]:
    """Return the records by file, as soon as there are ``limit``."""
    matches: list[Match] = []
    for fd, (line, column) in records:
        file, number = sources[fd].locate(line)
        if matches and matches[-1][0] is file:
            matches[-1][1].append((number, column))
        else:
            matches.append((file, [(number, column)]))
        limit -= 1
        if limit == 0:
            break
    return matches


def _records(fd: int) -> Iterator[tuple[int, LineMatch]]:
    """Yield descriptor, number and column of each of ripgrep's lines: ``/dev/fd/7``, NUL, ``12:3:``, something, LF."""
    buffer = b""
    while block := os.read(fd, _READ_BYTES):
        buffer += block
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            name, _, place = line.partition(b"\0")
            found = _PLACE.match(place)
            if found is not None:
                # No column stands there for an empty match at the end of a file.
                yield int(name.removeprefix(b"/dev/fd/")), (int(found[1]), int(found[2] or 1) - 1)
