"""The built-in tools, in the order in which they are offered."""

from __future__ import annotations

from collections.abc import Collection

from nous.ports.tool import Tool
from nous.tools.bash import DEFAULT_MEMORY_LIMIT_MB, DEFAULT_TIMEOUT_MS, BashTool
from nous.tools.edit import EditTool
from nous.tools.find import FindTool
from nous.tools.grep import GrepTool
from nous.tools.ls import LsTool
from nous.tools.read import ReadTool
from nous.tools.write import WriteTool


def builtin_tools(
    *,
    bash_timeout_ms: int = DEFAULT_TIMEOUT_MS,
    bash_memory_limit_mb: int = DEFAULT_MEMORY_LIMIT_MB,
    closed_names: Collection[str] = (),
) -> list[Tool]:
    """Return the tools: read, write, edit, bash, grep, find, ls.

    ``bash_timeout_ms`` is for calls that name no time; ``bash_memory_limit_mb`` bounds the resident memory of a
    command's whole tree; ``closed_names`` are environment variables that no command sees, besides those whose names
    say that they are secrets.
    """
    return [
        ReadTool(),
        WriteTool(),
        EditTool(),
        BashTool(timeout_ms=bash_timeout_ms, memory_limit_mb=bash_memory_limit_mb, closed_names=closed_names),
        GrepTool(),
        FindTool(),
        LsTool(),
    ]
