"""Pages whose console blocks are executed: ``$`` is a command, ``>`` goes on with it, the rest is its output."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.daemon import NOUS
from tests.support.home import SCALE, TEST_SECONDS

_FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LEFT_OUT: Final = "…"


class Block(NamedTuple):
    language: str
    text: str


def read_blocks(page: str) -> list[Block]:
    return [Block(*match.groups()) for match in _FENCE.finditer(page)]


class Step(NamedTuple):
    """A command of a console block, and the output shown below it."""

    command: str
    output: list[str]


def steps(block: Block) -> list[Step]:
    out: list[Step] = []
    for line in block.text.split("\n")[:-1]:
        if line.startswith("$ "):
            out.append(Step(line[2:], []))
        elif line.startswith("> ") and not out[-1].output:
            out[-1] = Step(f"{out[-1].command}\n{line[2:]}", [])
        else:
            out[-1].output.append(line)
    return out


def shows(shown: list[str], real: list[str]) -> bool:
    """Whether the output shown is the real one: ``…`` stands for any part of a line, alone for any lines."""
    parts = [r"(?:.*\n)*" if line == LEFT_OUT else _line_pattern(line) for line in shown]
    return re.fullmatch("".join(parts), "".join(f"{line}\n" for line in real)) is not None


def _line_pattern(line: str) -> str:
    return ".*".join(map(re.escape, line.split(LEFT_OUT))) + r"\n"


def fresh_machine(tmp_path: Path) -> dict[str, str]:
    """A fresh machine: no state, no configuration, and ``nous`` on the PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    nous = programs / "nous"
    nous.write_text(f'#!/bin/sh\nexec {shlex.join(NOUS)} "$@"\n', encoding="utf-8")
    nous.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path / "home"), "LANG": "C.UTF-8"}


def run(command: list[str], environ: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=environ,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TEST_SECONDS * SCALE,
        check=False,
    )


def check_console(block: Block, environ: dict[str, str], cwd: Path) -> None:
    """Run a block's commands in one shell; each must succeed and print what the page shows."""
    expected = steps(block)
    script = "set -euo pipefail\n" + "\nprintf '\\0'\n".join(step.command for step in expected)
    out = run(["bash", "-c", script], environ, cwd)
    assert out.returncode == 0, out.stderr
    for step, real in zip(expected, out.stdout.split("\0"), strict=True):
        assert shows(step.output, real.split("\n")[:-1]), f"{step.command}\n{real}"
