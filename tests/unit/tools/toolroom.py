"""A place for a tool to work in: a working directory, a state directory, what was streamed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest

from nous.ports.tool import Tool, ToolContext, ToolResult
from tests.support.home import SCALE

DEADLINE_S = 30.0 * SCALE

needs_ripgrep = pytest.mark.skipif(shutil.which("rg") is None, reason="ripgrep is not installed")


class Room:
    """Calls are made in ``workdir``; what a tool streamed stands in ``streamed``."""

    def __init__(self, root: Path) -> None:
        self.workdir = root / "work"
        self.state = root / "state"
        self.outputs = self.state / "outputs" / "run1"
        self.outside = root / "outside"
        self.streamed: list[str] = []
        self.takes_images = False
        for directory in (self.workdir, self.state, self.outside):
            directory.mkdir()

    def context(self, *, tool_call_id: str = "call1", allow_outside_workdir: bool = False) -> ToolContext:
        return ToolContext(
            run_id="run1",
            tool_call_id=tool_call_id,
            workdir=self.workdir,
            state_dir=self.state,
            outputs_root=self.state / "outputs",
            outputs_dir=self.outputs,
            allow_outside_workdir=allow_outside_workdir,
            takes_images=self.takes_images,
            progress=self.progress,
        )

    async def progress(self, text: str) -> None:
        self.streamed.append(text)

    async def run(self, tool: Tool, /, **arguments: Any) -> ToolResult:
        with anyio.fail_after(DEADLINE_S):
            return await tool.run(arguments, self.context())

    async def text(self, tool: Tool, /, **arguments: Any) -> str:
        """Return the text of a call that succeeds."""
        result = await self.run(tool, **arguments)
        assert result.outcome == "ok", result.text
        return result.text

    async def failure(self, tool: Tool, /, **arguments: Any) -> str:
        """Return the text of a call that the tool answers with an error."""
        result = await self.run(tool, **arguments)
        assert result.outcome == "error", result
        return result.text

    def write(self, path: str, content: str | bytes = "") -> Path:
        """Make a file in the working directory, with its directories."""
        target = self.workdir / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
        return target


def nest(directory: Path, depth: int) -> None:
    """Make directories within each other, each with a file that sorts behind the next one."""
    fd = os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("e", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def remove_nested(directory: Path) -> None:
    """Remove what :func:`nest` made, and whatever is as deep: what cleans up after tests goes down by path."""
    subprocess.run(["rm", "-rf", directory / "d"], check=True)
