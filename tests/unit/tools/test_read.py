"""read: real files, every kind of line, and what is not read."""

from __future__ import annotations

import base64
import os
import random
import struct
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nous.tools.blocking import Stop
from nous.tools.failure import ToolFailure
from nous.tools.image_check import MAX_IMAGE_BYTES
from nous.tools.output import MAX_BYTES, MAX_LINES
from nous.tools.read import ReadArguments, ReadTool, read_file
from tests.support.pictures import png
from tests.unit.tools.toolroom import DEADLINE_S, Room

pytestmark = pytest.mark.anyio

READ = ReadTool()


@pytest.mark.parametrize(
    "content",
    [
        "one\ntwo\n",
        "no newline at the end",
        "\n\n",
        "crlf\r\nlines\r\n",
        "a\u2028b\u2029c\x85d\x0be\x0cf\rg",
        "日本語\n",
    ],
)
async def test_a_short_file_as_it_is(room: Room, content: str) -> None:
    room.write("file", content)
    result = await room.run(READ, path="file")
    assert (result.text, result.outcome, result.truncated) == (content, "ok", False)


async def test_an_empty_file(room: Room) -> None:
    room.write("file")
    assert await room.text(READ, path="file") == "[The file is empty]"


async def test_a_bom_is_not_shown(room: Room) -> None:
    room.write("file", "\ufefftext\n")
    assert await room.text(READ, path="file") == "text\n"


async def test_what_is_not_utf_8_is_shown_as_far_as_it_is_text(room: Room) -> None:
    room.write("file", b"caf\xe9\n")
    assert await room.text(READ, path="file") == "caf\ufffd\n"


async def test_a_part(room: Room) -> None:
    room.write("file", "".join(f"{number}\n" for number in range(1, 11)))
    result = await room.run(READ, path="file", offset=4, limit=3)
    assert result.text == '4\n5\n6\n[Lines 4 to 6 of "file" (21 bytes) are shown. Go on with offset 7]'
    assert result.truncated
    assert await room.text(READ, path="file", offset=9) == "9\n10\n"
    assert await room.text(READ, path="file", offset=10, limit=1) == "10\n"


async def test_past_the_end(room: Room) -> None:
    for content, lines in (("a\nb\n", 2), ("a\nb", 2), ("", 0), ("a\n" * 300_000, 300_000)):
        room.write("file", content)
        text = await room.failure(READ, path="file", offset=lines + 5)
        assert text == f"`offset` {lines + 5} is past the end: the file has {lines} lines."
    assert "has 300000 lines" in await room.failure(READ, path="file", offset=300_001)


async def test_many_lines_are_cut_and_can_be_gone_on_with(room: Room) -> None:
    room.write("file", "".join(f"{number}\n" for number in range(1, MAX_LINES + 11)))
    result = await room.run(READ, path="file", limit=1_000_000)
    assert result.truncated
    assert result.text.endswith(
        f'\n{MAX_LINES}\n[Lines 1 to {MAX_LINES} of "file" (8943 bytes) are shown. Go on with offset {MAX_LINES + 1}]'
    )
    rest = await room.text(READ, path="file", offset=MAX_LINES + 1)
    assert rest.split("\n")[0] == str(MAX_LINES + 1)


async def test_long_lines_are_cut_at_a_line(room: Room) -> None:
    line = "é" * 10_000 + "\n"
    room.write("file", line * 5)
    result = await room.run(READ, path="file")
    assert result.text.startswith(line * 2 + "[Lines 1 to 2")
    assert result.truncated


async def test_one_line_that_is_too_long_is_cut_at_a_character(room: Room) -> None:
    room.write("file", "x" + "日" * MAX_BYTES)
    result = await room.run(READ, path="file")
    shown, note = result.text.split("\n")
    assert shown == "x" + "日" * ((MAX_BYTES - 1) // 3)
    assert note.endswith(f"line 1 is longer than {MAX_BYTES} bytes, its rest is left out]")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.sampled_from("aé日\r\u2028"), max_size=5), max_size=30),
    st.integers(1, 35),
    st.integers(1, 35),
    st.booleans(),
    st.sampled_from([0, 262_140, 262_143]),
)
def test_any_part_is_those_lines(room: Room, lines: list[str], offset: int, limit: int, ends: bool, shift: int) -> None:
    # The shift puts the lines across the boundary of the chunks in which the file is read.
    lines = [*(["s" * shift] if shift else []), *lines]
    content = "\n".join(lines) + ("\n" if ends else "")
    whole = [f"{line}\n" for line in content.split("\n")]
    whole[-1] = whole[-1][:-1]
    wanted = "".join(whole[offset - 1 : offset - 1 + limit])
    room.write("file", content)
    if not wanted or (shift and offset == 1):
        return
    result = read_file(ReadArguments("file", offset, limit), room.context(), Stop(DEADLINE_S))
    if offset - 1 + limit >= len([line for line in whole if line]) and not result.truncated:
        assert result.text == wanted
    else:
        assert result.text.startswith(wanted + "[Lines ")


async def test_paging_through_a_large_file_gives_all_of_it(room: Room) -> None:
    content = "".join(f"{number} {'é' * (number % 90)}\n" for number in range(20_000))
    room.write("file", content)
    pages, offset = [], 1
    while True:
        result = await room.run(READ, path="file", offset=offset)
        text = result.text
        if not result.truncated:
            pages.append(text)
            break
        page, _, note = text.rpartition("[")
        pages.append(page)
        offset = int(note.rpartition(" ")[2].removesuffix("]"))
    assert "".join(pages) == content


async def test_images_are_named(room: Room) -> None:
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 640, 480) + bytes(1000)
    room.write("image", data)
    assert await room.text(READ, path="image") == f"[image/png, 640x480 pixels, {len(data)} bytes: an image, not shown]"
    room.write("image", b"\xff\xd8\xff")
    assert await room.text(READ, path="image") == "[image/jpeg, 3 bytes: an image, not shown]"


async def test_images_are_shown_to_a_model_that_sees(room: Room) -> None:
    room.takes_images = True
    noise = b"".join(b"\0" + random.Random(row).randbytes(640) for row in range(480))
    data = png(640, 480, data=noise)
    assert len(data) > 256 * 1024
    room.write("image", data)
    result = await room.run(READ, path="image")
    assert result.text == f"[image/png, 640x480 pixels, {len(data)} bytes]"
    [shown] = result.images
    assert (shown.mime_type, base64.b64decode(shown.data)) == ("image/png", data)


@pytest.mark.parametrize("data", [png(9000, 10), png(16, 16)[:60]], ids=["large", "damaged"])
async def test_an_image_that_a_vendor_would_refuse_is_not_shown(room: Room, data: bytes) -> None:
    room.takes_images = True
    room.write("image", data)
    result = await room.run(READ, path="image")
    assert (result.images, "an image, not shown: it " in result.text) == ((), True)


async def test_images_of_types_nobody_takes_and_large_ones_are_only_named(room: Room) -> None:
    room.takes_images = True
    room.write("image", b"BM" + struct.pack("<IHHIIii", 1000, 0, 0, 54, 40, 10, -20))
    assert (await room.run(READ, path="image")).images == ()
    data = b"\x89PNG\r\n\x1a\n" + bytes(MAX_IMAGE_BYTES)
    room.write("image", data)
    result = await room.run(READ, path="image")
    assert (result.images, "too large to be shown" in result.text) == ((), True)


@pytest.mark.parametrize("content", [b"ELF\0\0", b"x" * 9000 + b"\n\0\n", "utf-32".encode("utf-32")])
async def test_binary_files_are_refused_in_a_sentence(room: Room, content: bytes) -> None:
    room.write("file", content)
    text = await room.failure(READ, path="file")
    assert text == f'"file" is a binary file ({len(content)} bytes) and is not shown.'


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
async def test_utf_16_with_a_byte_order_mark_is_shown_as_text(room: Room, codec: str) -> None:
    lines = [f"{number} é日😀 \u0a0d\r\n" for number in range(60_000)]
    room.write("file", ("\ufeff" + "".join(lines)).encode(codec))
    assert (await room.text(READ, path="file", offset=59_990)) == "".join(lines[59_989:])
    assert (await room.text(READ, path="file", limit=2)).startswith("".join(lines[:2]) + "[Lines 1 to 2")


async def test_a_name_that_looks_like_the_one_given_is_taken(room: Room) -> None:
    for real, asked in (("at 6\u202fAM", "at 6 AM"), ("cafe\u0301", "caf\u00e9"), ("d\u2019e\u00a0x", "d'e x")):
        room.write(f"{real}/{real}", "hi\n")
        text = await room.text(READ, path=f"{asked}/{asked}")
        assert text.startswith("hi\n[There is no ")
        assert "\\u" in text
    room.write("at 6\u00a0AM/x")
    assert "No such file" in await room.failure(READ, path="at 6 AM/at 6 AM")


async def test_text_before_binary_data_can_be_read(room: Room) -> None:
    room.write("file", b"text\n" * 4000 + b"\0")
    assert (await room.text(READ, path="file", limit=1)).startswith("text\n[Lines")


async def test_what_is_not_there_is_named_as_given(room: Room) -> None:
    assert await room.failure(READ, path="./no/such") == '"./no/such": No such file or directory.'
    (room.workdir / "dir").mkdir()
    assert await room.failure(READ, path="dir/") == '"dir/" is a directory.'
    room.write("file")
    assert await room.failure(READ, path="file/x") == '"file/x": Not a directory.'
    (room.workdir / "loop").symlink_to("loop")
    assert "symbolic links" in await room.failure(READ, path="loop")


async def test_names_of_any_kind(room: Room) -> None:
    for name in ("with space", "a\u2028b", "quote\"'", "-dash", "$HOME2", "état", os.fsdecode(b"raw\xff")):
        room.write(name, "content")
        assert await room.text(READ, path=name) == "content"


async def test_the_outputs_can_be_read_and_the_rest_of_the_state_not(room: Room) -> None:
    room.outputs.mkdir(parents=True)
    (room.outputs / "call1.txt").write_text("output")
    (room.state / "sessions").write_text("closed")
    assert await room.text(READ, path=str(room.outputs / "call1.txt")) == "output"
    assert "not open to tools" in await room.failure(READ, path=str(room.state / "sessions"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_that_may_not_be_read(room: Room) -> None:
    room.write("file").chmod(0)
    assert await room.failure(READ, path="file") == '"file": Permission denied.'


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs /proc")
async def test_a_file_that_claims_to_be_empty(room: Room) -> None:
    with anyio.fail_after(DEADLINE_S):
        result = await READ.run({"path": "/proc/self/status"}, room.context(allow_outside_workdir=True))
    assert result.text.startswith("Name:\t")


async def test_a_fifo_and_an_endless_device_do_not_hang(room: Room) -> None:
    os.mkfifo(room.workdir / "fifo")
    assert await room.failure(READ, path="fifo") == '"fifo" is not a regular file.'
    with anyio.fail_after(DEADLINE_S):
        result = await READ.run({"path": "/dev/zero"}, room.context(allow_outside_workdir=True))
    assert result.text == '"/dev/zero" is not a regular file.'


async def test_a_line_that_never_ends_needs_no_memory(room: Room) -> None:
    path = room.write("sparse", "first\n" + "x" * MAX_BYTES)
    os.truncate(path, 8_000_000_000)
    text = await room.text(READ, path="sparse", limit=1)
    assert text.startswith("first\n[Lines 1 to 1")


async def test_a_search_for_a_far_line_stops_when_nobody_waits(room: Room) -> None:
    path = room.write("sparse", "x" * 300_000)
    os.truncate(path, 2**43)
    stop = Stop(DEADLINE_S)
    stop.set()
    with pytest.raises(ToolFailure, match="too long"):
        read_file(ReadArguments("sparse", 10), room.context(), stop)


async def test_bad_calls(room: Room) -> None:
    for arguments in ({}, {"path": 3}, {"path": "x", "offset": 0}, {"path": "x", "lines": 3}):
        result = await READ.run(arguments, room.context())
        assert result.outcome == "invalid_arguments"
        assert result.is_error
