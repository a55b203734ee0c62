"""write: files made and replaced, atomically, where and as they should be."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from nous.tools.blocking import Stop
from nous.tools.failure import ToolFailure
from nous.tools.paths import open_place
from nous.tools.read import ReadTool
from nous.tools.write import WriteArguments, WriteTool, replace_content, write_file
from tests.unit.tools.toolroom import DEADLINE_S, Room

pytestmark = pytest.mark.anyio

WRITE = WriteTool()


@pytest.fixture(autouse=True)
def umask_022() -> Iterator[None]:
    old = os.umask(0o022)
    yield
    os.umask(old)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("content", ["", "text\n", "crlf\r\n\u2028é日\0", "x" * 1_000_000])
async def test_a_new_file_holds_what_was_given(room: Room, content: str) -> None:
    size = len(content.encode())
    assert await room.text(WRITE, path="file", content=content) == f'Made "file": {size} bytes.'
    assert (room.workdir / "file").read_bytes() == content.encode()
    assert mode_of(room.workdir / "file") == 0o644


async def test_directories_are_made(room: Room) -> None:
    await room.text(WRITE, path="a/b/c/file", content="x")
    assert (room.workdir / "a/b/c/file").read_text() == "x"
    assert mode_of(room.workdir / "a") == 0o755


async def test_an_existing_file_keeps_its_mode(room: Room) -> None:
    room.write("script", "old").chmod(0o750)
    assert await room.text(WRITE, path="script", content="new") == 'Replaced "script": 3 bytes.'
    assert (room.workdir / "script").read_text() == "new"
    assert mode_of(room.workdir / "script") == 0o750


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to another user needs root")
async def test_an_existing_file_keeps_its_owner(room: Room) -> None:
    os.chown(room.write("file", "old"), 12345, 12345)
    await room.text(WRITE, path="file", content="new")
    assert (room.workdir / "file").stat().st_uid == 12345


async def test_it_is_a_new_file_in_place_of_the_old_one(room: Room) -> None:
    path = room.write("file", "old")
    with path.open() as reader:
        await room.text(WRITE, path="file", content="new")
        assert reader.read() == "old"
    assert [entry.name for entry in room.workdir.iterdir()] == ["file"]


async def test_a_link_within_the_working_directory_stays_a_link(room: Room) -> None:
    room.write("real/file", "old")
    (room.workdir / "link").symlink_to("real/file")
    await room.text(WRITE, path="link", content="new")
    assert (room.workdir / "link").is_symlink()
    assert (room.workdir / "real/file").read_text() == "new"


async def test_a_link_to_a_file_that_is_not_there_makes_it(room: Room) -> None:
    (room.workdir / "link").symlink_to("real/file")
    await room.text(WRITE, path="link", content="new")
    assert (room.workdir / "real/file").read_text() == "new"


async def test_links_that_lead_out_are_refused(room: Room) -> None:
    (room.workdir / "file").symlink_to(room.outside / "file")
    (room.workdir / "directory").symlink_to(room.outside)
    for path in ("file", "directory/file", "directory/new/file", "../outside/file", str(room.state / "x")):
        assert "not open to tools" in await room.failure(WRITE, path=path, content="x")
    assert list(room.outside.iterdir()) == []
    assert list(room.state.iterdir()) == []


async def test_outputs_can_be_read_but_not_written(room: Room) -> None:
    assert "not open" in await room.failure(WRITE, path=str(room.outputs / "call1.txt"), content="x")


async def test_what_is_in_the_way(room: Room) -> None:
    room.write("file", "content")
    (room.workdir / "directory").mkdir()
    os.mkfifo(room.workdir / "fifo")
    assert await room.failure(WRITE, path="directory", content="x") == '"directory" is a directory.'
    assert await room.failure(WRITE, path="fifo", content="x") == '"fifo" is not a regular file.'
    assert await room.failure(WRITE, path="file/x", content="x") in (
        '"file/x": Not a directory.',
        '"file/x": File exists.',
    )
    assert "too long" in await room.failure(WRITE, path="x" * 300, content="x")
    assert (room.workdir / "file").read_text() == "content"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
async def test_a_write_protected_file_stays(room: Room) -> None:
    room.write("file", "old").chmod(0o444)
    assert await room.failure(WRITE, path="file", content="x") == '"file" is write-protected.'
    assert (room.workdir / "file").read_text() == "old"


async def test_content_that_is_no_text(room: Room) -> None:
    assert "`content` has a lone surrogate" in await room.failure(WRITE, path="file", content="\ud800")
    assert not (room.workdir / "file").exists()


async def test_a_call_that_was_given_up_changes_nothing(room: Room) -> None:
    room.write("file", "old")
    stop = Stop(DEADLINE_S)
    stop.set()
    with pytest.raises(ToolFailure, match="too long"):
        write_file(WriteArguments("file", "new"), room.context(), stop)
    assert (room.workdir / "file").read_text() == "old"
    assert [entry.name for entry in room.workdir.iterdir()] == ["file"]


async def test_a_file_that_was_changed_meanwhile_is_not_replaced(room: Room) -> None:
    path = room.write("file", "old")
    seen = path.stat()
    path.write_text("somebody else's")
    with open_place("file", room.context()) as place, pytest.raises(ToolFailure, match="changed by somebody else"):
        replace_content(place, b"new", Stop(DEADLINE_S), expected=seen)
    path.unlink()
    with open_place("file", room.context()) as place, pytest.raises(ToolFailure, match="changed by somebody else"):
        replace_content(place, b"new", Stop(DEADLINE_S), expected=seen)
    assert list(room.workdir.iterdir()) == []


@pytest.mark.usefixtures("nested")
async def test_directories_of_any_depth_are_made(room: Room) -> None:
    assert (await room.text(WRITE, path="d/" * 2000 + "file", content="x")).startswith("Made")
    assert await room.text(ReadTool(), path="d/" * 2000 + "file") == "x"


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("content", ["", "日本\r\n😀", "\ufeffx"])
async def test_a_known_encoding_is_kept(room: Room, codec: str, content: str) -> None:
    mark = "\ufeff" * codec.startswith("utf-16")
    room.write("file", (mark + "old é\n").encode(codec))
    result = await room.text(WRITE, path="file", content=content)
    written = (room.workdir / "file").read_bytes()
    assert written == (mark + (content if codec == "utf-8" else content.removeprefix("\ufeff"))).encode(codec)
    assert result.startswith(f'Replaced "file": {len(written)} bytes.')
    assert ("as before" in result) == (codec != "utf-8")


NOT_UTF_8 = [
    "caf\u00e9\n".encode("latin-1"),
    "日本語\n".encode("shift_jis"),
    b"x" * 3_000_000 + b"\xe9",
    b"x" * ((1 << 20) - 1) + "日本語\n".encode("iso2022_jp"),
    "ｱｲｳ".encode("iso2022_jp_ext"),
]


@pytest.mark.parametrize("old", NOT_UTF_8, ids=["latin-1", "shift-jis", "late", "iso-2022-jp", "half-width"])
async def test_an_encoding_that_is_not_known_is_not_replaced_by_another(room: Room, old: bytes) -> None:
    room.write("file", old)
    refused = await room.failure(WRITE, path="file", content="日本")
    assert "its encoding is not known" in refused
    assert (room.workdir / "file").read_bytes() == old
    # ASCII is the same in all of them.
    assert await room.text(WRITE, path="file", content="ascii\n") == 'Replaced "file": 6 bytes.'
    assert (room.workdir / "file").read_bytes() == b"ascii\n"


async def test_replacing_a_binary_file_is_told(room: Room) -> None:
    room.write("file", b"\x89PNG\0\0")
    assert await room.text(WRITE, path="file", content="é") == (
        'Replaced "file": 2 bytes. It was a binary file before and is UTF-8 text now.'
    )


async def test_bad_calls(room: Room) -> None:
    for arguments in ({"path": "x"}, {"content": "x"}, {"path": "x", "content": 5}, {"path": "", "content": ""}):
        assert (await WRITE.run(arguments, room.context())).outcome == "invalid_arguments"
    assert list(room.workdir.iterdir()) == []
