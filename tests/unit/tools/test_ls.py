"""ls: everything in a directory, sorted, bounded."""

from __future__ import annotations

import os

import pytest

from nous.tools.ls import LsTool
from nous.tools.output import MAX_LINES
from tests.unit.tools.toolroom import Room

pytestmark = pytest.mark.anyio

LS = LsTool()


async def test_everything_sorted_with_its_kind(room: Room) -> None:
    room.write(".gitignore", "ignored\n")
    room.write("ignored")
    room.write("b.txt")
    room.write("B.txt")
    room.write("dir/inner")
    (room.workdir / ".git").mkdir()
    (room.workdir / "link").symlink_to("dir")
    (room.workdir / "broken").symlink_to("no/where")
    os.mkfifo(room.workdir / "fifo")
    assert (await room.text(LS)).split("\n") == [
        ".git/",
        ".gitignore",
        "B.txt",
        "b.txt",
        "broken -> no/where",
        "dir/",
        "fifo",
        "ignored",
        "link -> dir",
    ]
    assert await room.text(LS, path="dir") == "inner"
    assert await room.text(LS, path="link/") == "inner"


async def test_an_empty_directory(room: Room) -> None:
    assert await room.text(LS, path="$PWD") == "[The directory is empty]"


async def test_names_of_any_kind_stand_on_a_line_each(room: Room) -> None:
    for name in ("a\nb", "c\u2028d", os.fsdecode(b"e\xff"), "é"):
        room.write(name)
    assert (await room.text(LS)).split("\n") == ["a\\x0ab", "c\u2028d", "e\ufffd", "é"]


async def test_no_more_than_asked_for(room: Room) -> None:
    for number in range(12):
        room.write(f"file{number:02}")
    result = await room.run(LS, limit="10")
    assert result.text.split("\n")[9:] == ["file09", "[There are more than 10 entries; raise `limit` to see more]"]
    assert (await room.text(LS, limit=12)).count("\n") == 11


async def test_a_long_list_is_cut_and_kept(room: Room) -> None:
    for number in range(MAX_LINES + 5):
        room.write(f"{number:05}")
    result = await room.run(LS, limit=100_000)
    assert result.truncated
    assert (room.outputs / "call1.txt").read_text().endswith(f"{MAX_LINES + 4:05}")


async def test_what_is_not_listed(room: Room) -> None:
    room.write("file")
    assert await room.failure(LS, path="file") == '"file": Not a directory.'
    assert await room.failure(LS, path="missing") == '"missing": No such file or directory.'
    (room.workdir / "out").symlink_to(room.outside)
    for path in ("..", "out", str(room.state), str(room.state / "outputs")):
        assert "not open to tools" in await room.failure(LS, path=path)
