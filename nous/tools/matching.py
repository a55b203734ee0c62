"""Finding the lines that match, by ripgrep or by Python: the same lines, in the order of the files given.

ripgrep gets the files by descriptor (``/dev/fd/N``), so that what is searched is what was opened.  It gets one thread,
so that its order is ours and it can be stopped as soon as there is enough; what to ignore has been decided before.
Files with a byte order mark are searched by Python, as the text they hold.
"""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Final, NamedTuple

from nous.tools.encodings import UTF_8, TextEncoding, detect_encoding, utf8_blocks
from nous.tools.excerpts import LineMatch
from nous.tools.regex import translate
from nous.tools.search_request import GrepQuery
from nous.tools.text import SNIFFED_BYTES

_BATCH_FILES: Final = 1000
_PLACE: Final = re.compile(rb"(\d+):(?:(\d+):)?")
_SPARE_DESCRIPTORS: Final = 128
"""For the walk and for ripgrep itself."""
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


class TextFile(NamedTuple):
    """An open file that is searched; ``path`` is how its matches are named."""

    path: str
    fd: int
    encoding: TextEncoding


Match = tuple[TextFile, list[LineMatch]]
"""A file and its lines that match."""

_Search = Callable[[list[TextFile], int], Iterable[Match]]


def find_matches(files: Iterable[tuple[str, int]], query: GrepQuery, limit: int) -> Iterator[Match]:
    """Yield the matches in ``files`` (pairs of path and descriptor), at most ``limit`` lines; binary files have none.

    The descriptors are closed here; one is open as long as the iteration stands at its match.
    """
    python = _python_engine(query)
    ripgrep = None if query["ripgrep"] is None else _ripgrep_engine(query, query["ripgrep"])
    for batch in _batches(files):
        try:
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
        finally:
            for file in batch:
                os.close(file.fd)


def _batches(files: Iterable[tuple[str, int]]) -> Iterator[list[TextFile]]:
    """Yield the files that hold text, as many as may be open at once."""
    size = max(min(_BATCH_FILES, _allow_descriptors() - _SPARE_DESCRIPTORS), 1)
    batch: list[TextFile] = []
    try:
        for path, fd in files:
            encoding = _encoding_of(fd)
            if encoding is None:
                os.close(fd)
                continue
            batch.append(TextFile(path, fd, encoding))
            if len(batch) >= size:
                full, batch = batch, []
                yield full
        full, batch = batch, []
        if full:
            yield full
    finally:
        for file in batch:
            os.close(file.fd)


def _allow_descriptors() -> int:
    """Allow this process as many descriptors as a batch takes, if it may, and return how many it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _BATCH_FILES + _SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft


def _encoding_of(fd: int) -> TextEncoding | None:
    try:
        return detect_encoding(os.pread(fd, SNIFFED_BYTES, 0))
    except OSError:
        return None


def _python_engine(query: GrepQuery) -> _Search:
    column_of = _line_matcher(query)

    def search(batch: list[TextFile], limit: int) -> Iterator[Match]:
        for file in batch:
            matches: list[LineMatch] = []
            for number, line in enumerate(_lines(file), 1):
                column = column_of(line)
                if column is not None:
                    matches.append((number, column))
                    if len(matches) == limit:
                        break
            if matches:
                yield file, matches
                limit -= len(matches)

    return search


def _line_matcher(query: GrepQuery) -> Callable[[bytes], int | None]:
    """Return what tells where a line matches first, in bytes.

    The translation for lines beyond ASCII is made when one comes.
    """
    compiled: dict[bool, re.Pattern[str]] = {}

    def column_of(line: bytes) -> int | None:
        is_ascii = line.isascii()
        if is_ascii not in compiled:
            compiled[is_ascii] = re.compile(
                translate(
                    query["pattern"],
                    "python-ascii" if is_ascii else "python",
                    ignore_case=query["ignore_case"],
                    literal=query["literal"],
                )
            )
        text = line.decode("utf-8", "surrogateescape")
        found = compiled[is_ascii].search(text)
        if found is None:
            return None
        return found.start() if is_ascii else len(text[: found.start()].encode("utf-8", "surrogateescape"))

    return column_of


def _lines(file: TextFile) -> Iterator[bytes]:
    """Yield the lines of a file as UTF-8 without their LFs, up to where it cannot be read any more."""
    pieces: list[bytes] = []
    try:
        for block in utf8_blocks(file.fd, file.encoding, _READ_BYTES):
            *lines, rest = block.split(b"\n")
            for line in lines:
                yield b"".join([*pieces, line])
                pieces.clear()
            if rest:
                pieces.append(rest)
    except OSError:
        return
    if pieces:
        yield b"".join(pieces)


def _ripgrep_engine(query: GrepQuery, program: str) -> Callable[[list[TextFile], int], list[Match] | None]:
    pattern = translate(query["pattern"], "rust", ignore_case=query["ignore_case"], literal=query["literal"])
    command = [program, *_RIPGREP_OPTIONS, f"--regexp={pattern}"]

    def search(batch: list[TextFile], limit: int) -> list[Match] | None:
        for file in batch:
            os.set_inheritable(file.fd, True)
        names = [f"/dev/fd/{file.fd}" for file in batch]
        found = _run_ripgrep([*command, f"--max-count={limit}", "--", *names], batch, limit)
        if not found and not _does_accept(command):
            return None
        return found

    return search


def _does_accept(command: list[str]) -> bool:
    """Return whether ripgrep can do it at all: it exits with 1 if it found nothing in nothing."""
    pid = os.posix_spawn(command[0], [*command, "--", os.devnull], os.environ, file_actions=_silent(None))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def _run_ripgrep(command: list[str], batch: list[TextFile], limit: int) -> list[Match]:
    reading, writing = os.pipe()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=_silent(writing))
    os.close(writing)
    try:
        return _collect(_records(reading), batch, limit)
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _silent(output: int | None) -> list[_FileAction]:
    """Return the file actions for a child that writes to ``output`` and nowhere else."""
    null: list[_FileAction] = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    return null if output is None else [*null, (os.POSIX_SPAWN_DUP2, output, 1)]


def _collect(records: Iterator[tuple[int, LineMatch]], batch: list[TextFile], limit: int) -> list[Match]:
    """Return the records by file, as soon as there are ``limit``."""
    files = {file.fd: file for file in batch}
    matches: list[Match] = []
    for fd, match in records:
        if matches and matches[-1][0].fd == fd:
            matches[-1][1].append(match)
        else:
            matches.append((files[fd], [match]))
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
