"""``read``: a text file, or a part of it, as it is; images are shown to models that see, other binary files refused."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from typing import Annotated, ClassVar, Final, NamedTuple

from msgspec import Meta, Struct, structs

from nous.ports.tool import ToolContext, ToolResult
from nous.protocol.messages import IMAGE_TYPES, ImageBlock
from nous.tools.blocking import Stop, off_the_loop
from nous.tools.builtin import PATH_HELP, BuiltinTool
from nous.tools.encodings import detect_encoding, utf8_blocks
from nous.tools.failure import ToolFailure, describe, quoted
from nous.tools.image_check import MAX_IMAGE_BYTES, find_image_fault
from nous.tools.images import HEAD_BYTES, ImageFile, identify_image
from nous.tools.output import MAX_BYTES, MAX_LINES, cut_head
from nous.tools.paths import open_place
from nous.tools.text import count_lines, decode

_CHUNK_BYTES: Final = 256 * 1024


class ReadArguments(Struct, frozen=True, forbid_unknown_fields=True):
    path: Annotated[str, Meta(min_length=1, description=f"The file to read. {PATH_HELP}")]
    offset: Annotated[int, Meta(ge=1, le=10**9, description="The first line to read, counted from 1.")] = 1
    limit: Annotated[int, Meta(ge=1, le=10**9, description="How many lines to read at most.")] = MAX_LINES


class _Part(NamedTuple):
    """Lines of a file: ``data`` begins at the line asked for; ``has_more`` if the file goes on after it."""

    data: bytes
    skipped_lines: int
    has_more: bool


class ReadTool(BuiltinTool[ReadArguments]):
    """The tool ``read``."""

    tool_name = "read"
    summary: ClassVar[str] = (
        "Read a text file, or the lines from offset on. "
        f"At most {MAX_LINES} lines or {MAX_BYTES // 1024} KiB at a time; the result says how to go on. "
        "An image is shown if you can see images, else its type and size are told."
    )
    shape = ReadArguments

    async def execute(self, arguments: ReadArguments, context: ToolContext) -> ToolResult:
        """Read the file."""
        return await off_the_loop(lambda stop: read_file(arguments, context, stop))


def read_file(arguments: ReadArguments, context: ToolContext, stop: Stop) -> ToolResult:
    """Return the lines or the image.  Blocks."""
    with open_place(arguments.path, context, may_read_outputs=True, takes_look_alikes=True) as place:
        note, fd = place.note, place.open_regular()
    try:
        head = os.read(fd, HEAD_BYTES)
        size_bytes = os.fstat(fd).st_size
        if (image := identify_image(head)) is not None:
            shown = _show_image(image, fd, head, size_bytes, stop, takes_images=context.takes_images)
            return _with_place_note(shown, note)
        encoding = detect_encoding(head)
        if encoding is None:
            raise ToolFailure(f"{quoted(arguments.path)} is a binary file ({size_bytes} bytes) and is not shown.")
        blocks = utf8_blocks(fd, encoding, _CHUNK_BYTES)
        part = _read_part(blocks, arguments.offset, min(arguments.limit, MAX_LINES), stop)
    except OSError as error:
        raise describe(arguments.path, error) from None
    finally:
        os.close(fd)
    return _with_place_note(_answer(part, arguments, size_bytes), note)


def _show_image(
    image: ImageFile, fd: int, head: bytes, size_bytes: int, stop: Stop, *, takes_images: bool
) -> ToolResult:
    """Return an image for a model that can see it, and that any vendor takes; else what can be said of it."""
    pixels = f", {image.width}x{image.height} pixels" if image.width and image.height else ""
    about = f"{image.mime_type}{pixels}, {size_bytes} bytes"
    if not takes_images or image.mime_type not in IMAGE_TYPES:
        return ToolResult(text=f"[{about}: an image, not shown]")
    if size_bytes > MAX_IMAGE_BYTES:
        return ToolResult(text=f"[{about}: an image, too large to be shown: the limit is {MAX_IMAGE_BYTES} bytes]")
    data = head
    while len(data) <= MAX_IMAGE_BYTES and (chunk := os.read(fd, _CHUNK_BYTES)):
        data += chunk
    if fault := find_image_fault(data, stop.check):
        return ToolResult(text=f"[{about}: an image, not shown: {fault}]")
    return ToolResult(text=f"[{about}]", images=(ImageBlock(image.mime_type, base64.b64encode(data).decode()),))


def _read_part(blocks: Iterator[bytes], offset: int, limit: int, stop: Stop) -> _Part:
    """Return the lines from ``offset`` on: ``limit`` of them, or a little more than any result may hold."""
    data, skipped = next(blocks, b""), 0
    while (newlines := data.count(b"\n")) < offset - 1 - skipped:
        stop.check()
        last_line = data[data.rfind(b"\n") + 1 :]
        data = next(blocks, b"")
        if not data:
            return _Part(b"", skipped + newlines + bool(last_line), has_more=False)
        skipped += newlines
    start = _nth_line(data, offset - 1 - skipped)
    data = data[start:]
    while data.count(b"\n") < limit and len(data) <= MAX_BYTES:
        stop.check()
        chunk = next(blocks, b"")
        if not chunk:
            return _Part(data, offset - 1, has_more=False)
        data += chunk
    end = _nth_line(data, limit)
    return _Part(data[:end], offset - 1, has_more=end < len(data) or bool(next(blocks, b"")))


def _nth_line(data: bytes, number: int) -> int:
    """Return where the line after ``number`` LFs starts, or the end if there are fewer."""
    at = 0
    for _ in range(number):
        at = data.find(b"\n", at) + 1
        if at == 0:
            return len(data)
    return at


def _answer(part: _Part, arguments: ReadArguments, size_bytes: int) -> ToolResult:
    if not part.data:
        if part.skipped_lines == 0 and arguments.offset == 1:
            return ToolResult(text="[The file is empty]")
        raise ToolFailure(f"`offset` {arguments.offset} is past the end: the file has {part.skipped_lines} lines.")
    if b"\0" in part.data:
        raise ToolFailure(f"{quoted(arguments.path)} is a binary file ({size_bytes} bytes) and is not shown.")
    shown = cut_head(part.data)
    if len(shown) == len(part.data) and not part.has_more:
        return ToolResult(text=decode(shown))
    return ToolResult(text=_with_note(shown, arguments, size_bytes), truncated=True)


def _with_place_note(result: ToolResult, note: str) -> ToolResult:
    if not note:
        return result
    separator = "" if result.text.endswith("\n") else "\n"
    return structs.replace(result, text=f"{result.text}{separator}{note}")


def _with_note(shown: bytes, arguments: ReadArguments, size_bytes: int) -> str:
    last = arguments.offset + count_lines(shown) - 1
    note = f"[Lines {arguments.offset} to {last} of {quoted(arguments.path)} ({size_bytes} bytes) are shown"
    if shown.endswith(b"\n"):
        return f"{decode(shown)}{note}. Go on with offset {last + 1}]"
    return f"{decode(shown)}\n{note}; line {last} is longer than {MAX_BYTES} bytes, its rest is left out]"
