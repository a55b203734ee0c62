"""The README, executed: its commands, the output it shows, both of its programs, its links."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import pytest

from tests.support.gates import chat
from tests.support.home import ROOT, bounded
from tests.support.markdown import PAGES, links
from tests.support.pages import LEFT_OUT, Block, check_console, fresh_machine, read_blocks, run, shows
from tests.support.sse_server import serve, streams

README: Final = (ROOT / "README.md").read_text(encoding="utf-8")

BLOCKS: Final = read_blocks(README)

ACTIVATION: Final = [".", ".venv/bin/activate"]


def blocks(language: str) -> list[Block]:
    found = [block for block in BLOCKS if block.language == language]
    assert found, f"the README shows no {language}"
    return found


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return fresh_machine(tmp_path)


def test_nothing_in_the_readme_goes_untested() -> None:
    assert {block.language for block in BLOCKS} == {"sh", "console", "python", "javascript"}


def test_the_first_commands_are_targets_of_make_and_the_activation(environ: dict[str, str]) -> None:
    for line in first_commands():
        if line[0] == "make":
            out = run([*line, "--dry-run"], environ, ROOT)
            assert out.returncode == 0, out.stderr
        else:
            assert line == ACTIVATION


def first_commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.text.split("\n")[:-1]]
    return [shlex.split(line, comments=True) for line in lines]


def test_the_activation_comes_after_setup_and_puts_nous_into_the_path(environ: dict[str, str], tmp_path: Path) -> None:
    commands = first_commands()
    assert commands.index(["make", "setup"]) < commands.index(ACTIVATION)
    activate = Path(sys.prefix) / "bin" / "activate"
    if not activate.exists():
        pytest.skip("the tests do not run in a virtual environment: its activation was not tried")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    out = run(["bash", "-euc", f"{shlex.join(ACTIVATION)}; command -v nous"], environ, tmp_path)
    assert (out.returncode, out.stdout) == (0, f"{Path(sys.prefix) / 'bin' / 'nous'}\n")


def test_the_command_is_typed_in_one_way() -> None:
    for page in PAGES:
        assert "venv/bin/nous" not in page.read_text(encoding="utf-8"), page


@asynccontextmanager
async def model_server(environ: dict[str, str]) -> AsyncIterator[None]:
    """Put a server of the test in the place of the provider's, for the one command that asks it."""
    async with serve(streams(*chat("It is an ", "agent core."))) as server:
        environ["NOUS_API_BASE"] = server.url
        yield
        assert len(server.exchanges) == 1


@pytest.mark.anyio
async def test_every_console_command_gives_the_output_it_shows(environ: dict[str, str], tmp_path: Path) -> None:
    with bounded():
        async with model_server(environ):
            for block in blocks("console"):
                await anyio.to_thread.run_sync(check_console, block, environ, tmp_path)


def test_the_python_program_does_what_it_says(environ: dict[str, str], tmp_path: Path) -> None:
    (block,) = blocks("python")
    check_program([sys.executable, "-c", block.text], environ, tmp_path)


def test_the_node_program_does_what_it_says(environ: dict[str, str], tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the README's Node program was not run")
    (block,) = blocks("javascript")
    check_program([node, "-e", block.text], environ, tmp_path)


def check_program(command: list[str], environ: dict[str, str], cwd: Path) -> None:
    assert run(["nous", "init"], environ, cwd).returncode == 0
    out = run(command, environ, cwd)
    assert (out.returncode, out.stdout, out.stderr) == (0, "mock response: Hello\n(completed)\n", "")


def test_a_trace_plays_again_without_a_model(environ: dict[str, str], tmp_path: Path) -> None:
    (flags,) = re.findall(r"`nous serve (--provider replay [^`]*)`", README)
    assert run(["nous", "init"], environ, tmp_path).returncode == 0
    first = run(["nous", "prompt", "Hello", "--provider", "mock"], environ, tmp_path)
    (trace,) = tmp_path.glob("home/**/traces/*.ndjson")
    elsewhere = ["--state-dir", str(tmp_path / "elsewhere"), "--bootstrap"]
    again = run(["nous", "prompt", "Hello", *flags.replace("FILE", str(trace)).split(), *elsewhere], environ, tmp_path)
    assert (again.returncode, again.stdout) == (0, first.stdout)


def test_the_programs_are_short() -> None:
    for language in ("python", "javascript"):
        (block,) = blocks(language)
        assert block.text.count("\n") <= 22


def test_every_page_is_linked() -> None:
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")} - set(links(README)) == set()


def test_the_comparison_of_outputs_can_fail() -> None:
    assert shows(["a…c", LEFT_OUT, "z"], ["abc", "1", "2", "z"])
    assert shows(["a…c", LEFT_OUT, "z"], ["ac", "z"])
    assert not shows(["a…c", "z"], ["abc", "1", "z"])
    assert not shows(["abc"], ["abcd"])
    assert not shows([], ["abc"])
