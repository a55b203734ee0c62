"""While somebody swaps a directory for a link that leads out, no tool reads or writes outside."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from nous.ports.tool import Tool
from nous.tools.edit import EditTool
from nous.tools.find import FindTool
from nous.tools.grep import GrepTool
from nous.tools.ls import LsTool
from nous.tools.read import ReadTool
from nous.tools.write import WriteTool
from tests.support.swapping import swapping
from tests.unit.tools.toolroom import Room

pytestmark = pytest.mark.anyio

CALLS = int(os.environ.get("NOUS_SWAP_CALLS", "8"))
"""Calls per tool; the process of a search walks long enough to meet thousands of swaps in each."""


@pytest.fixture
def tree(room: Room) -> Room:
    for number in range(40):
        room.write(f"top/inner/{number:02}/file", "needle inside\n")
        (room.outside / f"inner/{number:02}").mkdir(parents=True)
        (room.outside / f"inner/{number:02}/file").write_text("needle secret\n")
        (room.outside / f"inner/{number:02}/name-of-a-secret").touch()
    return room


def everything(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in directory.rglob("*")}


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        (GrepTool(may_use_ripgrep=False), {"pattern": "needle"}),
        pytest.param(
            GrepTool(),
            {"pattern": "needle"},
            marks=pytest.mark.skipif(shutil.which("rg") is None, reason="ripgrep is not installed"),
        ),
        (GrepTool(), {"pattern": "needle", "path": "top/inner/05/file"}),
        (FindTool(), {"pattern": "*"}),
        (FindTool(), {"pattern": "*", "path": "top/inner"}),
        (LsTool(), {"path": "top/inner/05"}),
        (ReadTool(), {"path": "top/inner/05/file"}),
        (EditTool(), {"path": "top/inner/05/file", "old_text": "needle", "new_text": "needle"}),
        (EditTool(), {"path": "top/inner/05/file", "old_text": "needle", "new_text": "needle needle"}),
        (WriteTool(), {"path": "top/inner/05/file", "content": "needle inside\n"}),
        (WriteTool(), {"path": "top/inner/new/file", "content": "needle inside\n"}),
    ],
)
async def test_no_tool_leaves_the_working_directory(tree: Room, tool: Tool, arguments: dict[str, Any]) -> None:
    before = everything(tree.outside)
    with swapping(tree.workdir / "top", tree.outside):
        for _ in range(CALLS if isinstance(tool, GrepTool | FindTool) else 20 * CALLS):
            result = await tree.run(tool, **arguments)
            assert "secret" not in result.text
    assert everything(tree.outside) == before
