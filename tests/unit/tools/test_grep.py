"""grep: the same result with ripgrep and without, over a real tree, in a process of its own that can be ended."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from nous.ports.tool import ToolResult
from nous.system import procfs
from nous.system.proctree import FAMILY
from nous.tools.grep import GrepTool
from tests.unit.tools.toolroom import DEADLINE_S, Room, needs_ripgrep

pytestmark = pytest.mark.anyio

PYTHON = GrepTool(may_use_ripgrep=False)
RIPGREP = GrepTool()


async def both(room: Room, **arguments: Any) -> str:
    """Return the text of a search that succeeds, the same with ripgrep and without."""
    text = await room.text(PYTHON, **arguments)
    if shutil.which("rg") is not None:
        assert await room.text(RIPGREP, **arguments) == text
    return text


@pytest.fixture
def tree(room: Room) -> Room:
    room.write(".gitignore", "out/\n*.log\n!keep.log\n")
    room.write("out/x.py", "needle\n")
    room.write("a.log", "needle\n")
    room.write("keep.log", "needle\n")
    room.write("src/b.py", "one\nneedle two\nthree\n")
    room.write("src/.gitignore", "generated*\n")
    room.write("src/generated.py", "needle\n")
    room.write("src-old/c.py", "Needle\n")
    room.write("binary", b"needle\0\n")
    room.write(".hidden", "needle here\n")
    room.write(".git/config", "needle\n")
    (room.workdir / "link").symlink_to("src/b.py")
    return room


async def test_lines_by_path_without_what_is_ignored_or_binary(tree: Room) -> None:
    assert await both(tree, pattern="needle") == (".hidden:1:needle here\nkeep.log:1:needle\nsrc/b.py:2:needle two\n")


async def test_below_a_path(tree: Room) -> None:
    assert await both(tree, pattern="needle", path="src") == "src/b.py:2:needle two\n"
    assert await both(tree, pattern="needle", path="src/b.py") == "src/b.py:2:needle two\n"
    assert await both(tree, pattern="needle", path="link") == "src/b.py:2:needle two\n"
    assert await both(tree, pattern="needle", path="out") == "out/x.py:1:needle\n"
    assert await both(tree, pattern="needle", path="a.log") == "a.log:1:needle\n"


async def test_options(tree: Room) -> None:
    assert await both(tree, pattern="needle", glob="*.py") == "src/b.py:2:needle two\n"
    assert await both(tree, pattern="NEEDLE", ignoreCase=True, glob="src*/*.py") == (
        "src-old/c.py:1:Needle\nsrc/b.py:2:needle two\n"
    )
    assert await both(tree, pattern="n..dle two", literal=True) == "[No matching lines]"
    assert await both(tree, pattern="two", context=1) == "src/b.py-1-one\nsrc/b.py:2:needle two\nsrc/b.py-3-three\n"
    assert await both(tree, pattern="one|Needle", context=1, include="*.py") == (
        "src-old/c.py:1:Needle\n--\nsrc/b.py:1:one\nsrc/b.py-2-needle two\n"
    )


async def test_no_more_than_asked_for(tree: Room) -> None:
    more = "[There are more than 2 matching lines; narrow the search or raise `limit`]"
    assert await both(tree, pattern="needle", max=2) == f".hidden:1:needle here\nkeep.log:1:needle\n{more}"
    tree.write("many", "needle\n" * 10)
    assert await both(tree, pattern="needle", path="many", limit=2) == f"many:1:needle\nmany:2:needle\n{more}"
    assert "more than" not in await both(tree, pattern="needle", path="many", limit=10)


async def test_many_lines_are_cut_and_kept(room: Room) -> None:
    room.write("file", "x\n" * 5000)
    result = await room.run(PYTHON, pattern="x", limit=10_000)
    assert result.truncated
    assert result.text.startswith("file:1:x\n")
    assert (room.outputs / "call1.txt").read_text().count("\n") == 5000


async def test_names_of_any_kind(room: Room) -> None:
    for name in ("-e", "a b", "\u2028", "new\nline", "é/-", os.fsdecode(b"raw\xff")):
        room.write(name, "x\n")
    names = ["-e", "a b", "new\\x0aline", "raw\ufffd", "é/-", "\u2028"]
    assert await both(room, pattern="x") == "".join(f"{name}:1:x\n" for name in names)


async def test_the_outputs_can_be_searched_and_the_rest_of_the_state_not(room: Room) -> None:
    room.outputs.mkdir(parents=True)
    (room.outputs / "call1.txt").write_text("a\nneedle\n")
    (room.state / "sessions").mkdir()
    (room.state / "sessions" / "s.ndjson").write_text("needle\n")
    file = room.outputs / "call1.txt"
    assert await both(room, pattern="needle", path=str(file)) == f"{file}:2:needle\n"
    assert await both(room, pattern="needle", path=str(room.state / "outputs")) == f"{file}:2:needle\n"
    for path in (room.state, room.state / "sessions"):
        assert "not open to tools" in await room.failure(RIPGREP, pattern="needle", path=str(path))


async def test_a_state_directory_within_is_not_searched(room: Room) -> None:
    room.write("x", "needle\n")
    room.state = room.workdir / ".state"
    room.write(".state/sessions/secret", "needle\n")
    assert await both(room, pattern="needle") == "x:1:needle\n"


async def test_outside(room: Room) -> None:
    (room.outside / "x").write_text("needle\n")
    (room.workdir / "out").symlink_to(room.outside)
    assert "not open" in await room.failure(RIPGREP, pattern="needle", path="out")
    with anyio.fail_after(DEADLINE_S):
        context = room.context(allow_outside_workdir=True)
        result = await RIPGREP.run({"pattern": "needle", "path": "out"}, context)
    assert result.text == f"{room.outside}/x:1:needle\n"


async def test_what_is_not_there(room: Room) -> None:
    assert await room.failure(RIPGREP, pattern="x", path="missing") == '"missing": No such file or directory.'
    os.mkfifo(room.workdir / "fifo")
    for tool in (PYTHON, RIPGREP):
        assert await room.failure(tool, pattern="x", path="fifo") == '"fifo" is not a regular file.'
    assert await both(room, pattern="x") == "[No matching lines]"


@pytest.mark.parametrize("pattern", ["(", "a**", "(?=a)", r"(a)\1", "a\nb"])
async def test_a_pattern_that_cannot_be_used_is_a_bad_call(room: Room, pattern: str) -> None:
    room.write("x", pattern)
    for tool in (PYTHON, RIPGREP):
        result = await room.run(tool, pattern=pattern)
        assert result.outcome == "invalid_arguments"
        assert result.text.startswith("Invalid arguments: `pattern` cannot be used: ")


async def test_bad_calls(room: Room) -> None:
    for arguments in ({}, {"pattern": ""}, {"pattern": "x", "glob": "{a,b}" * 30}, {"pattern": "x", "context": -1}):
        assert (await RIPGREP.run(arguments, room.context())).outcome == "invalid_arguments"


async def test_a_pattern_made_to_take_forever_is_stopped(room: Room) -> None:
    room.write("a", "found aa\n")
    room.write("b", "a" * 60 + "!\n")
    impatient = GrepTool(may_use_ripgrep=False, timeout_ms=3000)
    text = await room.failure(impatient, pattern="(a+)+$|found")
    assert text.endswith("[Stopped after 3000 ms: what stands here is a part. Search less, or for something simpler]")
    assert FAMILY.roots == {}


@needs_ripgrep
async def test_ripgrep_takes_it(room: Room) -> None:
    room.write("b", "a" * 60 + "!\n")
    assert await room.text(RIPGREP, pattern="(a+)+$") == "[No matching lines]"


async def test_an_ignore_file_made_to_take_forever_is_stopped(room: Room) -> None:
    room.write(".gitignore", "*a" * 40 + "b\n")
    room.write("a" * 200, "x\n")
    impatient = GrepTool(timeout_ms=2000)
    assert "[Stopped after 2000 ms" in await room.failure(impatient, pattern="x")


async def test_a_search_for_memory_is_stopped(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nous.tools.search.SEARCH_MEMORY_BYTES", 100_000_000)
    path = room.write("file", "x" * 10_000)
    os.truncate(path, 3_000_000_000)
    assert "[Stopped for its use of memory" in await room.failure(PYTHON, pattern="x$")


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
async def test_cancelling_leaves_no_process(room: Room) -> None:
    room.write("b", "a" * 60 + "!\n")
    results: list[ToolResult] = []

    async def call() -> None:
        results.append(await room.run(PYTHON, pattern="(a+)+$"))

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            while not FAMILY.roots:
                await anyio.wait_all_tasks_blocked()
            (pid,) = FAMILY.roots
            tasks.cancel_scope.cancel()
    assert results == []
    assert procfs.read_stat(pid) is None


async def test_a_worker_that_dies_is_said(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nous.system.python._program", lambda module: "raise SystemExit(3)")
    assert await room.failure(RIPGREP, pattern="x") == "The search failed: the process that searched died."


async def test_the_child_knows_nothing_of_the_environment(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    program = "import os; print(sorted(os.environ)); print(end='\\0' + '1 0 0.')"
    monkeypatch.setattr("nous.system.python._program", lambda module: program)
    names = await room.text(RIPGREP, pattern="x")
    assert "OPENAI_API_KEY" not in names
    assert "PATH" in names


async def test_it_starts_also_where_modules_lie_that_it_would_import(room: Room) -> None:
    room.write("re.py", "raise SystemExit('imported from the working directory')\n")
    room.write("pathspec.py", "raise SystemExit('imported from the working directory')\n")
    assert Path("re.py").name in await both(room, pattern="imported")
