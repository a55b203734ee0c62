"""The bound on results: what is kept, what is cut, where the whole is, and that memory does not grow."""

from __future__ import annotations

import os
import resource
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.tools.output import MAX_BYTES, MAX_LINES, MAX_WHOLE_BYTES, OutputFile, Spool, cut_head, cut_tail, head_result
from nous.tools.text import count_lines
from tests.unit.tools.toolroom import Room

pytestmark = pytest.mark.anyio

lengths = st.lists(
    st.one_of(
        st.integers(0, 60),
        st.sampled_from([MAX_BYTES - 1, MAX_BYTES, MAX_BYTES + 1, MAX_BYTES // 2, MAX_BYTES // 2 + 1]),
    ),
    max_size=6,
)
texts = st.builds(
    lambda ends, filler, count, more, last: (
        "\n".join(["é" * (n // 2) + "x" * (n % 2) for n in ends] + [filler] * count + ["y" * n for n in more])
        + ("\n" if last else "")
    ),
    lengths,
    st.sampled_from(["", "line", "日本語 \u2028"]),
    st.sampled_from([0, 1, MAX_LINES - 3, MAX_LINES - 1, MAX_LINES, MAX_LINES + 1, 3 * MAX_LINES]),
    lengths,
    st.booleans(),
)


def fits(data: bytes) -> bool:
    return len(data) <= MAX_BYTES and count_lines(data) <= MAX_LINES


@given(texts)
def test_the_head_is_the_longest_that_fits(text: str) -> None:
    data = text.encode()
    head = cut_head(data)
    assert data.startswith(head)
    assert fits(head)
    head.decode()
    if fits(data):
        assert head == data
    elif head.endswith(b"\n"):
        next_line_end = data.find(b"\n", len(head)) + 1 or len(data)
        assert not fits(data[:next_line_end])
    else:
        assert b"\n" not in head
        assert len(head) > MAX_BYTES - 4


@given(texts)
def test_the_tail_is_the_longest_that_fits(text: str) -> None:
    data = text.encode()
    tail = cut_tail(data)
    assert data.endswith(tail)
    assert fits(tail)
    tail.decode()
    start = len(data) - len(tail)
    if fits(data):
        assert tail == data
    elif data[start - 1 : start] == b"\n":
        assert not fits(data[data.rfind(b"\n", 0, start - 1) + 1 :])
    else:
        assert b"\n" not in tail[:-1]
        assert len(tail) > MAX_BYTES - 4


async def test_a_short_result_is_the_text_and_makes_no_file(room: Room) -> None:
    result = await head_result(b"text \xff\n", room.context())
    assert (result.text, result.truncated, result.outcome) == ("text \ufffd\n", False, "ok")
    assert not room.outputs.exists()


async def test_a_long_result_is_cut_and_names_the_whole(room: Room) -> None:
    data = b"".join(b"line %d\n" % number for number in range(5000))
    result = await head_result(data, room.context())
    path = room.outputs / "call1.txt"
    assert result.truncated
    assert result.text.startswith("line 0\nline 1\n")
    assert result.text.endswith(
        f"line 1999\n[Output cut: the first 2000 of 5000 lines ({len(data)} bytes) are shown. The whole is in {path}]"
    )
    assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for directory in (room.outputs, room.outputs.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


async def test_two_calls_of_one_name_have_two_files(room: Room) -> None:
    for number in (1, 2, 3):
        result = await head_result(b"%d\n" % number * 3000, room.context())
        path = room.outputs / ("call1.txt" if number == 1 else f"call1-{number}.txt")
        assert str(path) in result.text
        assert path.read_bytes() == b"%d\n" % number * 3000


@pytest.mark.parametrize("tool_call_id", ["../../escape", "a/b", "", "x" * 300, "é", "a\0b", ".", "\ud800"])
async def test_an_id_that_is_no_file_name_names_no_file_elsewhere(room: Room, tool_call_id: str) -> None:
    result = await head_result(b"x\n" * 3000, room.context(tool_call_id=tool_call_id))
    (path,) = room.outputs.iterdir()
    assert str(path) in result.text
    assert path.name.startswith("call-")


async def test_a_file_put_in_the_way_is_not_written_to(room: Room) -> None:
    room.outputs.mkdir(parents=True)
    (room.outputs / "call1.txt").symlink_to(room.outside / "target")
    await head_result(b"x\n" * 3000, room.context())
    assert not (room.outside / "target").exists()
    assert (room.outputs / "call1-2.txt").exists()


async def test_a_disk_that_takes_no_more_costs_the_file_only(room: Room) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        result = await head_result(b"x" * 99 + b"\n" * 200_000, room.context())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.truncated
    assert result.text.endswith("The whole could not be kept: File too large.]")


@pytest.mark.parametrize("chunk", [1, 7, 65536])
async def test_short_output_is_all_there(room: Room, chunk: int) -> None:
    data = "déjà vu \u2028\r\n".encode() * 100
    spool = Spool(room.context())
    for start in range(0, len(data), chunk):
        await spool.feed(data[start : start + chunk])
    assert await spool.finish() == (data.decode(), None)
    assert not room.outputs.exists()


@pytest.mark.parametrize("lines", [MAX_LINES, MAX_LINES + 1])
async def test_the_number_of_lines_decides(room: Room, lines: int) -> None:
    spool = Spool(room.context())
    await spool.feed(b"x\n" * lines)
    text, note = await spool.finish()
    assert text == "x\n" * MAX_LINES
    assert (note is None) == (lines == MAX_LINES)


@pytest.mark.parametrize(("unit", "size"), [(b"x" * 99 + b"\n", 3_000_000), (b"\xff\xfe", 3_000_000), (b"y", 60_000)])
async def test_long_output_shows_its_tail_and_keeps_the_whole(room: Room, unit: bytes, size: int) -> None:
    data = b"first\n" + unit * (size // len(unit))
    spool = Spool(room.context())
    for start in range(0, len(data), 65536):
        await spool.feed(data[start : start + 65536])
    text, note = await spool.finish()
    assert note is not None
    assert str(room.outputs / "call1.txt") in note
    assert f"of {count_lines(data)} lines ({len(data)} bytes)" in note
    assert (room.outputs / "call1.txt").read_bytes() == data
    assert fits(text.encode())
    assert len(text.encode()) > MAX_BYTES - 200
    assert data.decode("utf-8", "replace").endswith(text)


async def test_of_more_than_fits_a_file_the_beginning_is_kept(room: Room) -> None:
    chunk = os.urandom(32768).hex().encode()
    spool = Spool(room.context())
    for _ in range(MAX_WHOLE_BYTES // len(chunk) + 20):
        await spool.feed(chunk)
        assert len(spool._tail) + len(spool._unwritten) < 4_000_000
    _, note = await spool.finish()
    assert note is not None
    assert f"Its first {MAX_WHOLE_BYTES} bytes are in" in note
    assert (room.outputs / "call1.txt").stat().st_size == MAX_WHOLE_BYTES


def test_an_output_file_is_made_when_something_is_written(room: Room) -> None:
    file = OutputFile(room.context())
    assert not room.outputs.exists()
    file.append(b"a")
    file.append(b"b")
    assert file.path == room.outputs / "call1.txt"
    assert file.path.read_bytes() == b"ab"


def test_count_lines() -> None:
    counted = {data: count_lines(data) for data in (b"", b"a", b"a\n", b"a\nb", b"\n", b"\n\n", b"a\r\xe2\x80\xa8b")}
    assert list(counted.values()) == [0, 1, 1, 2, 1, 2, 1]
