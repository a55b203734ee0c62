"""``ls``: what is in a directory, sorted, directories with a slash, also what .gitignore hides."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from typing import Annotated, ClassVar, Final

from msgspec import Meta, Struct

from nous.ports.tool import ToolContext, ToolResult
from nous.tools.blocking import Stop, off_the_loop
from nous.tools.builtin import PATH_HELP, BuiltinTool
from nous.tools.failure import describe
from nous.tools.output import head_result
from nous.tools.paths import open_place
from nous.tools.text import printable_name

DEFAULT_LIMIT: Final = 1000
MAX_LIMIT: Final = 100_000


class LsArguments(Struct, frozen=True, forbid_unknown_fields=True):
    path: Annotated[str, Meta(min_length=1, description=f"The directory. {PATH_HELP}")] = "."
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="How many entries to list at most.")] = DEFAULT_LIMIT


class LsTool(BuiltinTool[LsArguments]):
    """The tool ``ls``."""

    tool_name = "ls"
    summary: ClassVar[str] = (
        "List a directory, one entry per line, sorted, hidden ones too. Directories end with /, links with -> target."
    )
    shape = LsArguments

    async def execute(self, arguments: LsArguments, context: ToolContext) -> ToolResult:
        """List the directory."""
        text = await off_the_loop(lambda stop: list_directory(arguments, context, stop))
        return await head_result(text.encode(), context)


def list_directory(arguments: LsArguments, context: ToolContext, stop: Stop) -> str:
    """Return the listing as text.  Blocks."""
    with open_place(arguments.path, context, takes_look_alikes=True) as place:
        note, fd = place.note, place.open_directory()
    try:
        # One more than asked for tells whether there are more; a directory of millions never stands in memory.
        entries = heapq.nsmallest(arguments.limit + 1, _entries(fd, stop))
    except OSError as error:
        raise describe(arguments.path, error) from None
    finally:
        os.close(fd)
    lines = [text for _, text in entries[: arguments.limit]]
    if len(entries) > arguments.limit:
        lines.append(f"[There are more than {arguments.limit} entries; raise `limit` to see more]")
    if not lines:
        lines.append("[The directory is empty]")
    if note:
        lines.append(note)
    return "\n".join(lines)


def _entries(fd: int, stop: Stop) -> Iterator[tuple[str, str]]:
    """Yield what each entry is sorted by, and how it is shown."""
    with os.scandir(fd) as entries:
        for entry in entries:
            stop.check()
            yield entry.name, printable_name(entry.name) + _suffix(entry, fd)


def _suffix(entry: os.DirEntry[str], fd: int) -> str:
    try:
        if entry.is_symlink():
            return f" -> {printable_name(os.readlink(entry.name, dir_fd=fd))}"
        return "/" if entry.is_dir(follow_symlinks=False) else ""
    except OSError:
        return ""
