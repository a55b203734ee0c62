"""Finding the lines that match, by ripgrep or by Python: the same lines, in the order of the files given.

ripgrep gets the files by name and one thread, so that its order is ours and it can be stopped as soon as there is
enough; what to ignore has been decided before.  Paths are relative to the process's working directory.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from nous.tools.regex import translate
from nous.tools.search_request import GrepQuery
from nous.tools.text import SNIFFED_BYTES, looks_binary

_BATCH_FILES: Final = 1000
_BATCH_BYTES: Final = 128 * 1024
"""Well within what an argument list may be anywhere."""
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
    "--null",
    "--max-columns=1",  # the lines themselves are read later, as far as they are shown
)

_FileAction = tuple[int, int, int] | tuple[int, int, str, int, int]

Match = tuple[str, list[int]]
"""A file and the numbers of its lines that match, counted from 1."""


def find_matches(files: Iterable[str], query: GrepQuery, limit: int) -> Iterator[Match]:
    """Yield the matches in ``files``, at most ``limit`` lines; binary files have none."""
    python = _python_engine(query)
    ripgrep = None if query["ripgrep"] is None else _ripgrep_engine(query, query["ripgrep"])
    for batch in _batches(files):
        found: Iterable[Match] | None = None if ripgrep is None else ripgrep(batch, limit)
        if found is None:
            # No ripgrep, or one that cannot do it: a pattern beyond its size limit, say.
            ripgrep, found = None, python(batch, limit)
        for path, numbers in found:
            yield path, numbers
            limit -= len(numbers)
            if limit <= 0:
                return


def _batches(files: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size_bytes = 0
    for path in files:
        batch.append(path)
        size_bytes += len(path)
        if len(batch) >= _BATCH_FILES or size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def _python_engine(query: GrepQuery) -> Callable[[list[str], int], Iterator[Match]]:
    is_match = _line_matcher(query)

    def search(batch: list[str], limit: int) -> Iterator[Match]:
        for path in batch:
            numbers: list[int] = []
            for number, line in enumerate(_lines_of_text_file(path), 1):
                if is_match(line):
                    numbers.append(number)
                    if len(numbers) == limit:
                        break
            if numbers:
                yield path, numbers
                limit -= len(numbers)

    return search


def _line_matcher(query: GrepQuery) -> Callable[[bytes], object]:
    """Return what tells whether a line matches; the translation for lines beyond ASCII is made when one comes."""
    compiled: dict[bool, re.Pattern[str]] = {}

    def is_match(line: bytes) -> object:
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
        return compiled[is_ascii].search(line.decode("utf-8", "surrogateescape"))

    return is_match


def _lines_of_text_file(path: str) -> Iterator[bytes]:
    """Yield the lines of a file without their LFs; nothing of one that is binary or cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        pieces: list[bytes] = []
        block = os.read(fd, _READ_BYTES)
        if looks_binary(block):
            return
        while block:
            *lines, rest = block.split(b"\n")
            for line in lines:
                yield b"".join([*pieces, line])
                pieces.clear()
            if rest:
                pieces.append(rest)
            block = os.read(fd, _READ_BYTES)
        if pieces:
            yield b"".join(pieces)
    except OSError:
        return
    finally:
        os.close(fd)


def _ripgrep_engine(query: GrepQuery, program: str) -> Callable[[list[str], int], list[Match] | None]:
    pattern = translate(query["pattern"], "rust", ignore_case=query["ignore_case"], literal=query["literal"])
    command = [program, *_RIPGREP_OPTIONS, f"--regexp={pattern}"]

    def search(batch: list[str], limit: int) -> list[Match] | None:
        # "./": a file's name may begin with a dash.
        found = _run_ripgrep([*command, f"--max-count={limit}", "--", *(f"./{path}" for path in batch)], limit)
        if not found and not _does_accept(command):
            return None
        return found

    return search


def _does_accept(command: list[str]) -> bool:
    """Return whether ripgrep can do it at all: it exits with 1 if it found nothing in nothing."""
    pid = os.posix_spawn(command[0], [*command, "--", os.devnull], os.environ, file_actions=_silent(None))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def _run_ripgrep(command: list[str], limit: int) -> list[Match]:
    reading, writing = os.pipe()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=_silent(writing))
    os.close(writing)
    try:
        return _collect(_records(reading), limit)
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _silent(output: int | None) -> list[_FileAction]:
    """Return the file actions for a child that writes to ``output`` and nowhere else."""
    null: list[_FileAction] = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    return null if output is None else [*null, (os.POSIX_SPAWN_DUP2, output, 1)]


def _collect(records: Iterator[tuple[str, int]], limit: int) -> list[Match]:
    """Return the records by file, binary files left out, as soon as there are ``limit``."""
    matches: list[Match] = []
    binary_path: str | None = None
    for path, number in records:
        if matches and matches[-1][0] == path:
            matches[-1][1].append(number)
        elif path == binary_path or _is_binary(path):
            binary_path = path
            continue
        else:
            matches.append((path, [number]))
        limit -= 1
        if limit == 0:
            break
    return matches


def _records(fd: int) -> Iterator[tuple[str, int]]:
    """Yield path and line number of each of ripgrep's lines: the path, a NUL, the number, a colon, something, LF."""
    buffer = b""
    while block := os.read(fd, _READ_BYTES):
        buffer += block
        while (path_end := buffer.find(b"\0")) >= 0:
            line_end = buffer.find(b"\n", path_end)
            if line_end < 0:
                break
            number = buffer[path_end + 1 : line_end].partition(b":")[0]
            yield os.fsdecode(buffer[len(b"./") : path_end]), int(number)
            buffer = buffer[line_end + 1 :]


def _is_binary(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return looks_binary(os.read(fd, SNIFFED_BYTES))
    except OSError:
        return True
    finally:
        os.close(fd)
