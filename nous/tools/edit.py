"""``edit``: exact text replaced in a file; newline style, BOM and everything else stay as they were."""

from __future__ import annotations

import marshal
import os
from pathlib import Path
from typing import Annotated, ClassVar, Final

from msgspec import Meta, Struct

from nous.ports.tool import ToolContext, ToolResult
from nous.system.files import open_anonymous_file
from nous.system.process import spawn
from nous.system.python import own_program
from nous.system.supervise import supervise
from nous.tools.blocking import Stop, off_the_loop
from nous.tools.builtin import PATH_HELP, BuiltinTool
from nous.tools.changing import Change, Replacement, change_text
from nous.tools.failure import ToolFailure, describe, quoted
from nous.tools.output import head_result
from nous.tools.paths import Place, open_place, shown_path
from nous.tools.text import encode, printable_name, read_bytes
from nous.tools.write import replace_content

MAX_EDIT_BYTES: Final = 32 * 1024 * 1024
"""A file longer than this is not edited as a text in memory."""

MAX_QUICK_BYTES: Final = 256 * 1024
"""Texts longer than this together are changed in a process of its own."""
EDIT_TIMEOUT_MS: Final = 60_000
EDIT_MEMORY_BYTES: Final = 2 * 1024 * 1024 * 1024


class EditArguments(Struct, frozen=True, forbid_unknown_fields=True):
    path: Annotated[str, Meta(min_length=1, description=f"The file to edit. {PATH_HELP}")]
    old_text: Annotated[
        str,
        Meta(
            min_length=1,
            description="The text to replace, exactly as it stands in the file, with enough around it to be unique.",
        ),
    ]
    new_text: Annotated[str, Meta(description="What takes its place; may be empty.")]
    replace_all: Annotated[bool, Meta(description="Replace every place where old_text stands.")] = False


class EditTool(BuiltinTool[EditArguments]):
    """The tool ``edit``."""

    tool_name = "edit"
    summary: ClassVar[str] = (
        "Replace text in a file. old_text must stand in the file exactly once, unless replace_all is true. "
        "The result is a diff."
    )
    shape = EditArguments

    async def execute(self, arguments: EditArguments, context: ToolContext) -> ToolResult:
        """Replace the text; a large file is changed in a process of its own."""
        done = await off_the_loop(lambda stop: edit_file(arguments, context, stop))
        if isinstance(done, LargeEdit):
            with done as large:
                change = await change_in_process(large.request_fd, arguments.path)
                done = await off_the_loop(lambda stop: large.write(change, stop))
        return await head_result(done.encode(), context)


class LargeEdit:
    """A file that is to be edited in a process of its own.  Use it as a context manager.

    ``request_fd`` is an anonymous file with what the process needs.
    """

    def __init__(self, place: Place, status: os.stat_result, request_fd: int) -> None:
        self.request_fd = request_fd
        self._place = place
        self._status = status

    def __enter__(self) -> LargeEdit:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A call that was given up leaves its result to nobody.
        self.close()

    def close(self) -> None:
        """Close the file's directory and the request."""
        self._place.close()
        if self.request_fd >= 0:
            os.close(self.request_fd)
            self.request_fd = -1

    def write(self, change: Change, stop: Stop) -> str:
        """Write the changed file and return the diff."""
        return write_change(self._place, change, self._status, stop)


def edit_file(arguments: EditArguments, context: ToolContext, stop: Stop) -> str | LargeEdit:
    """Replace the text and return the diff, or what is needed to do so elsewhere if it is much work."""
    place = open_place(arguments.path, context, takes_look_alikes=True)
    data, status = _read(place)
    name = printable_name(shown_path(place.path, context))
    wanted = Replacement(arguments.path, arguments.old_text, arguments.new_text, arguments.replace_all)
    if len(data) + len(wanted.old) + len(wanted.new) > MAX_QUICK_BYTES:
        encode(wanted.old, "old_text")
        encode(wanted.new, "new_text")
        return LargeEdit(place, status, open_anonymous_file(marshal.dumps((data, *wanted, name))))
    with place:
        return write_change(place, change_text(data, wanted, name), status, stop)


def write_change(place: Place, change: Change, status: os.stat_result, stop: Stop) -> str:
    """Write the changed file, which must still be the one that was read, and return the diff."""
    replace_content(place, change.data, stop, expected=status)
    return f"{change.diff}{place.note}\n" if place.note else change.diff


async def change_in_process(request_fd: int, given: str) -> Change:
    """Return what :func:`change_text` does, computed in a process that is ended past its time or memory."""
    output = bytearray()

    async def receive(piece: bytes) -> None:
        output.extend(piece)

    child = spawn(
        own_program("nous.tools.edit_worker", str(request_fd)),
        cwd=Path("/"),
        env={"PATH": os.environ.get("PATH", os.defpath)},
        stderr="null",
        pass_fds=[request_fd],
    )
    ending = await supervise(child, receive, timeout_ms=EDIT_TIMEOUT_MS, memory_limit_bytes=EDIT_MEMORY_BYTES)
    if ending.stopped is not None:
        reason = "took too long" if ending.stopped == "timeout" else "needed too much memory"
        raise ToolFailure(f"Editing {quoted(given)} {reason}; nothing was changed. Edit it with a command.")
    if ending.returncode != 0:
        raise ToolFailure(f"Editing {quoted(given)} failed; nothing was changed.")
    failure, changed, diff = marshal.loads(output)
    if failure is not None:
        raise ToolFailure(failure)
    return Change(changed, diff)


def _read(place: Place) -> tuple[bytes, os.stat_result]:
    given, fd = place.given, place.open_regular()
    try:
        before = os.fstat(fd)
        if before.st_size > MAX_EDIT_BYTES:
            raise ToolFailure(f"{quoted(given)} is longer than {MAX_EDIT_BYTES} bytes; edit it with a command.")
        return read_bytes(fd, MAX_EDIT_BYTES), before
    except OSError as error:
        raise describe(given, error) from None
    finally:
        os.close(fd)
