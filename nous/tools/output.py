"""The bound on what a tool answers: past 2000 lines or 50 KiB it is cut, and the whole is kept in a file.

``bash`` keeps the tail (a build's error stands at its end), the others the head.  The whole, up to 64 MiB, goes to
``<state>/outputs/<run_id>/<tool_call_id>.txt`` (0600, directories 0700); the result names it, and ``read`` and
``grep`` may go there.  :class:`Spool` needs memory for the tail and one buffer only, however long the output.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from nous.ports.tool import Outcome, ToolContext, ToolResult
from nous.system.atomic import write_all
from nous.system.ids import is_safe_id
from nous.system.threads import run_in_thread
from nous.tools.text import count_lines, decode

MAX_LINES: Final = 2000
MAX_BYTES: Final = 50 * 1024
MAX_WHOLE_BYTES: Final = 64 * 1024 * 1024
_FLUSH_BYTES: Final = 1024 * 1024


def cut_head(data: bytes) -> bytes:
    """Return the longest beginning of ``data`` in whole lines that fits, of a first line too long what fits."""
    if _fits(data):
        return data
    end = 0
    for _ in range(MAX_LINES):
        newline = data.find(b"\n", end, MAX_BYTES)
        if newline < 0:
            break
        end = newline + 1
    return data[:end] if end else data[: _character_before(data, MAX_BYTES)]


def cut_tail(data: bytes) -> bytes:
    """Return the longest end of ``data`` in whole lines that fits, of a last line too long what fits."""
    if _fits(data):
        return data
    limit = len(data) - MAX_BYTES
    start = len(data)
    last = len(data) - data.endswith(b"\n")
    for _ in range(MAX_LINES):
        newline = data.rfind(b"\n", max(limit - 1, 0), last)
        if newline < 0:
            start = 0 if limit <= 0 else start
            break
        start, last = newline + 1, newline
    return data[start:] if start < len(data) else data[_character_after(data, limit) :]


async def head_result(data: bytes, context: ToolContext, outcome: Outcome = "ok") -> ToolResult:
    """Return a result of ``data``, cut to its head if it is too long."""
    if _fits(data):
        return ToolResult(text=decode(data), outcome=outcome)
    head = cut_head(data)
    file = OutputFile(context)
    await run_in_thread(file.append, data[:MAX_WHOLE_BYTES])
    note = _note("first", count_lines(head), count_lines(data), len(data), file)
    return ToolResult(text=f"{decode(head).removesuffix(chr(10))}\n{note}", outcome=outcome, truncated=True)


class Spool:
    """Takes output as it comes.  Holds its tail in memory; once it is too long, writes all of it to a file."""

    def __init__(self, context: ToolContext) -> None:
        self._file = OutputFile(context)
        self._tail = bytearray()
        self._unwritten = bytearray()
        self._total_bytes = 0
        self._newlines = 0

    async def feed(self, data: bytes) -> None:
        """Take a piece of output."""
        self._total_bytes += len(data)
        self._newlines += data.count(b"\n")
        self._tail += data
        if len(self._tail) > _FLUSH_BYTES:
            del self._tail[: -2 * MAX_BYTES]
        self._unwritten += data[: max(MAX_WHOLE_BYTES - self._file.size_bytes - len(self._unwritten), 0)]
        if len(self._unwritten) > _FLUSH_BYTES:
            await self._flush()

    async def finish(self) -> tuple[str, str | None]:
        """Return the output, or its tail together with a note that says where the whole is."""
        # What is not UTF-8 becomes longer as text: it is the text that has to fit.
        tail = decode(bytes(self._tail)).encode()
        is_cut = self._total_bytes > len(self._tail) or not _fits(tail)
        if not is_cut:
            return decode(tail), None
        await self._flush()
        tail = cut_tail(tail)
        total_lines = self._newlines + (not self._tail.endswith(b"\n"))
        return decode(tail), _note("last", count_lines(tail), total_lines, self._total_bytes, self._file)

    async def _flush(self) -> None:
        data = bytes(self._unwritten)
        self._unwritten.clear()
        await run_in_thread(self._file.append, data)


class OutputFile:
    """The file of one call's whole output, made when first written to.

    A disk that does not take it costs the file, not the result: ``failure`` says why.
    """

    def __init__(self, context: ToolContext) -> None:
        self._context = context
        self.path: Path | None = None
        self.size_bytes = 0
        self.failure: str | None = None

    def append(self, data: bytes) -> None:
        """Append to the file; a disk that fails is noted in ``failure``, not raised."""
        self.size_bytes += len(data)
        if self.failure is not None:
            return
        try:
            fd = self._create() if self.path is None else os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                write_all(fd, data)
            finally:
                os.close(fd)
        except OSError as error:
            self.failure = error.strerror or type(error).__name__

    def _create(self) -> int:
        for directory in (self._context.outputs_root, self._context.outputs_dir):
            directory.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        stem, number = _file_stem(self._context.tool_call_id), 1
        while True:
            path = self._context.outputs_dir / (f"{stem}.txt" if number == 1 else f"{stem}-{number}.txt")
            try:
                fd = os.open(path, flags, 0o600)
            except FileExistsError:
                number += 1  # a provider that numbers each answer's calls anew
                continue
            self.path = path
            return fd


def _file_stem(tool_call_id: str) -> str:
    """Return a file name for an id that a provider made up."""
    if is_safe_id(tool_call_id):
        return tool_call_id
    import hashlib

    return "call-" + hashlib.sha256(tool_call_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _note(which: str, kept_lines: int, total_lines: int, total_bytes: int, file: OutputFile) -> str:
    lines = f"the {which} {kept_lines} of {total_lines} lines ({total_bytes} bytes) are shown"
    if file.failure is not None:
        return f"[Output cut: {lines}. The whole could not be kept: {file.failure}.]"
    part = "The whole is in" if total_bytes <= MAX_WHOLE_BYTES else f"Its first {MAX_WHOLE_BYTES} bytes are in"
    return f"[Output cut: {lines}. {part} {file.path}]"


def _fits(data: bytes) -> bool:
    return len(data) <= MAX_BYTES and count_lines(data) <= MAX_LINES


def _character_before(data: bytes, index: int) -> int:
    """Return the last index up to ``index`` at which a UTF-8 character begins."""
    while 0 < index < len(data) and data[index] & 0xC0 == 0x80:
        index -= 1
    return index


def _character_after(data: bytes, index: int) -> int:
    """Return the first index from ``index`` on at which a UTF-8 character begins."""
    while index < len(data) and data[index] & 0xC0 == 0x80:
        index += 1
    return index
