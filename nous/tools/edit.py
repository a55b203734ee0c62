"""``edit``: exact text replaced in a file; newline style, BOM and everything else stay as they were."""

from __future__ import annotations

import os
from typing import Annotated, ClassVar, Final, NamedTuple

from msgspec import Meta, Struct

from nous.ports.tool import ToolContext, ToolResult
from nous.tools.blocking import Stop, off_the_loop
from nous.tools.builtin import PATH_HELP, BuiltinTool
from nous.tools.diff import unified_diff
from nous.tools.failure import ToolFailure, describe, quoted
from nous.tools.newlines import NewlineText, Replaced, replace_spans
from nous.tools.output import head_result
from nous.tools.paths import Place, open_place, shown_path
from nous.tools.text import encode, looks_binary, printable_name, read_bytes
from nous.tools.write import replace_content

MAX_EDIT_BYTES: Final = 32 * 1024 * 1024
"""A file longer than this is not edited as a text in memory."""

_BOM: Final = "\ufeff"


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


class _Content(NamedTuple):
    """A file as read: its text (bytes that are not UTF-8 as lone surrogates) and what it was at that time."""

    text: str
    stat: os.stat_result


class EditTool(BuiltinTool[EditArguments]):
    tool_name = "edit"
    summary: ClassVar[str] = (
        "Replace text in a file. old_text must stand in the file exactly once, unless replace_all is true. "
        "The result is a diff."
    )
    shape = EditArguments

    async def execute(self, arguments: EditArguments, context: ToolContext) -> ToolResult:
        diff = await off_the_loop(lambda stop: edit_file(arguments, context, stop))
        return await head_result(diff.encode(), context)


def edit_file(arguments: EditArguments, context: ToolContext, stop: Stop) -> str:
    """Replace the text and return the diff."""
    with open_place(arguments.path, context, takes_look_alikes=True) as place:
        content = _read_text(place)
        replacements = find_replacements(content.text, arguments)
        data = replace_spans(content.text, replacements).encode("utf-8", "surrogateescape")
        diff = unified_diff(printable_name(shown_path(place.path, context)), content.text, replacements)
        replace_content(place, data, stop, expected=content.stat)
        if place.note:
            diff += f"{place.note}\n"
    return diff.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def find_replacements(text: str, arguments: EditArguments) -> list[Replaced]:
    """Return what to replace in ``text``.

    Raises:
        ToolFailure: the old text is not there, not unique, or the same as the new one.
    """
    old, new = _plain(arguments.old_text, "old_text"), _plain(arguments.new_text, "new_text")
    if not old:
        raise ToolFailure("`old_text` is empty but for a BOM: say what to replace.")
    if old == new:
        raise ToolFailure("`old_text` and `new_text` are the same: there is nothing to change.")
    newlines = NewlineText(text)
    places = newlines.find_all(old)
    if not places:
        raise ToolFailure(_not_found(newlines.plain, old, arguments.path))
    if not arguments.replace_all and not newlines.is_unique(old):
        lines = ", ".join(str(newlines.plain.count("\n", 0, at) + 1) for at in places[:10])
        raise ToolFailure(
            f"`old_text` stands {max(len(places), 2)} times in {quoted(arguments.path)} (line {lines}). "
            "Give more of the text around it to make it unique, or set `replace_all`."
        )
    return [newlines.replacement(at, old, new) for at in places]


def _plain(text: str, field: str) -> str:
    """Return a text as it is compared: its newlines LF, without the BOM of the file it was copied from."""
    return encode(text, field).decode().replace("\r\n", "\n").removeprefix(_BOM)


def _not_found(plain: str, old: str, given: str) -> str:
    sentence = f"`old_text` stands 0 times in {quoted(given)}; nothing was changed. "
    first_line = next((line.strip() for line in old.split("\n") if line.strip()), "")
    at = plain.find(first_line) if first_line else -1
    if at < 0:
        return f"{sentence}Read the file again and copy the text exactly."
    number = plain.count("\n", 0, at) + 1
    return (
        f"{sentence}Its first line is like line {number}: compare indentation and what follows, character by character."
    )


def _read_text(place: Place) -> _Content:
    given, fd = place.given, place.open_regular()
    try:
        before = os.fstat(fd)
        if before.st_size > MAX_EDIT_BYTES:
            raise ToolFailure(f"{quoted(given)} is longer than {MAX_EDIT_BYTES} bytes; edit it with a command.")
        data = read_bytes(fd, MAX_EDIT_BYTES)
    except OSError as error:
        raise describe(given, error) from None
    finally:
        os.close(fd)
    if looks_binary(data):
        raise ToolFailure(f"{quoted(given)} is a binary file and is not edited.")
    return _Content(data.decode("utf-8", "surrogateescape"), before)
