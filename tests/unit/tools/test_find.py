"""find: paths by a glob, over a real tree, in a process of its own."""

from __future__ import annotations

import os

import pytest

from nous.tools.find import FindTool
from tests.unit.tools.toolroom import Room

pytestmark = pytest.mark.anyio

FIND = FindTool()


async def test_by_name_anywhere_sorted_with_directories_marked(room: Room) -> None:
    for name in ("b.py", "a/x.py", "a.py", "a/b.py/inner", ".hidden.py", "z/é\u2028.py", "other.txt"):
        room.write(name)
    assert (await room.text(FIND, pattern="*.py")).split("\n")[:-1] == [
        ".hidden.py",
        "a.py",
        "a/b.py/",
        "a/x.py",
        "b.py",
        "z/é\u2028.py",
    ]


async def test_by_path_below_a_directory(room: Room) -> None:
    for name in ("src/a.ts", "src/x/b.tsx", "lib/src/c.ts"):
        room.write(name)
    assert await room.text(FIND, pattern="src/**/*.{ts,tsx}") == "src/a.ts\nsrc/x/b.tsx\n"
    assert await room.text(FIND, pattern="x/*", path="src") == "src/x/b.tsx\n"
    assert await room.text(FIND, pattern="**/", path="lib") == "lib/src/\n"
    assert await room.text(FIND, pattern="!*.ts*") == "lib/\nlib/src/\nsrc/\nsrc/x/\n"


async def test_what_git_ignores_is_left_out_unless_it_is_named(room: Room) -> None:
    room.write(".gitignore", "out/\n*.log\n")
    for name in ("out/x", "sub/a.log", "sub/a", ".git/HEAD", "sub/.gitignore"):
        room.write(name)
    room.write("sub/.gitignore", "!a.log\n")
    assert await room.text(FIND, pattern="*") == ".gitignore\nsub/\nsub/.gitignore\nsub/a\nsub/a.log\n"
    assert await room.text(FIND, pattern="*", path="out") == "out/x\n"


async def test_nothing(room: Room) -> None:
    assert await room.text(FIND, pattern="*.nothing") == "[No paths]"


async def test_no_more_than_asked_for(room: Room) -> None:
    for number in range(10):
        room.write(f"{number}")
    assert await room.text(FIND, pattern="*", limit=3) == (
        "0\n1\n2\n[There are more than 3 paths; narrow the search or raise `limit`]"
    )
    assert (await room.text(FIND, pattern="*", limit=10)).endswith("9\n")


async def test_a_long_list_is_cut_and_kept(room: Room) -> None:
    for number in range(2100):
        room.write(f"{number:04}")
    result = await room.run(FIND, pattern="*", limit=5000)
    assert result.truncated
    assert (room.outputs / "call1.txt").read_text().split("\n")[-2] == "2099"


async def test_names_that_are_no_text(room: Room) -> None:
    room.write(os.fsdecode(b"raw\xff"))
    room.write("new\nline")
    assert await room.text(FIND, pattern="*") == "new\\x0aline\nraw\ufffd\n"


async def test_what_is_closed(room: Room) -> None:
    room.write("file")
    (room.workdir / "out").symlink_to(room.outside)
    room.outputs.mkdir(parents=True)
    for path in ("..", "out", str(room.state), str(room.outputs)):
        assert "not open to tools" in await room.failure(FIND, pattern="*", path=path)
    assert await room.failure(FIND, pattern="*", path="file") == '"file" is not a directory.'
    assert await room.failure(FIND, pattern="*", path="missing") == '"missing": No such file or directory.'


async def test_a_state_directory_within_is_not_listed(room: Room) -> None:
    room.write("x")
    room.state = room.workdir / ".state"
    room.write(".state/sessions/secret")
    assert await room.text(FIND, pattern="*") == "x\n"


async def test_bad_calls(room: Room) -> None:
    for arguments in ({}, {"pattern": ""}, {"pattern": "{a,b}" * 30}, {"pattern": "x", "limit": 0}):
        result = await FIND.run(arguments, room.context())
        assert result.outcome == "invalid_arguments"
