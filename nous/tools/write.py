"""``write``: the whole content of a file."""

from __future__ import annotations

import os
import stat
from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from nous.ports.tool import ToolContext, ToolResult
from nous.system.content import write_content
from nous.tools.blocking import Stop, off_the_loop
from nous.tools.builtin import PATH_HELP, BuiltinTool
from nous.tools.failure import ToolFailure, describe, quoted
from nous.tools.known_encoding import encode_like
from nous.tools.paths import Place, open_place
from nous.tools.text import encode


class WriteArguments(Struct, frozen=True, forbid_unknown_fields=True):
    path: Annotated[str, Meta(min_length=1, description=f"The file to write. {PATH_HELP}")]
    content: Annotated[str, Meta(description="The whole new content of the file.")]


class WriteTool(BuiltinTool[WriteArguments]):
    """The tool ``write``."""

    tool_name = "write"
    summary: ClassVar[str] = (
        "Write a file: make it, with its directories, or replace all of it. To change a part of a file use edit."
    )
    shape = WriteArguments

    async def execute(self, arguments: WriteArguments, context: ToolContext) -> ToolResult:
        """Write the file."""
        return await off_the_loop(lambda stop: write_file(arguments, context, stop))


def write_file(arguments: WriteArguments, context: ToolContext, stop: Stop) -> ToolResult:
    """Replace or make the file; return what was done.  Blocks."""
    encode(arguments.content, "content")
    with open_place(arguments.path, context) as place:
        data, note = encode_like(place, arguments.content, stop)
        did_exist = replace_content(place, data, stop)
    done = "Replaced" if did_exist else "Made"
    return ToolResult(text=f"{done} {quoted(arguments.path)}: {len(data)} bytes.{note}")


def replace_content(place: Place, data: bytes, stop: Stop, expected: os.stat_result | None = None) -> bool:
    """Replace a file's content; return whether there was a file before.

    Missing directories are made.  What else an existing file is, it stays (:mod:`nous.system.content`); a new one gets
    the mode that the umask leaves.  With ``expected`` the file must still be the one that was read.

    Raises:
        ToolFailure: it may not be written, is no regular file, or has changed; nothing was replaced.
    """
    directory_fd = place.open_parent(make=expected is None)

    def before_change() -> None:
        stop.check()
        if expected is not None and not _is_unchanged(expected, _stat_target(place.name, directory_fd)):
            raise ToolFailure(f"{quoted(place.given)} was changed by somebody else meanwhile; read it again.")

    try:
        target = _stat_target(place.name, directory_fd)
        if target is not None:
            _require_writable(target, place.name, directory_fd, place.given)
        write_content(directory_fd, place.name, data, target, before_change)
    except OSError as error:
        raise describe(place.given, error) from None
    finally:
        os.close(directory_fd)
    return target is not None


def _stat_target(name: str, directory_fd: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _require_writable(target: os.stat_result, name: str, directory_fd: int, given: str) -> None:
    if stat.S_ISDIR(target.st_mode):
        raise ToolFailure(f"{quoted(given)} is a directory.")
    if not stat.S_ISREG(target.st_mode):
        raise ToolFailure(f"{quoted(given)} is not a regular file.")
    if not os.access(name, os.W_OK, dir_fd=directory_fd):
        raise ToolFailure(f"{quoted(given)} is write-protected.")


def _is_unchanged(before: os.stat_result, now: os.stat_result | None) -> bool:
    return now is not None and (now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
