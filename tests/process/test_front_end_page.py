"""docs/front-end.md and its two programs, executed against real daemons."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.home import ROOT
from tests.support.pages import check_console, fresh_machine, read_blocks, run

PAGE: Final = (ROOT / "docs/front-end.md").read_text(encoding="utf-8")
EXAMPLES: Final = ROOT / "docs" / "examples"

SHOWN: Final = """\
ready: nous with mock
> What is here?
Let me look.
[ls {"path":"."}]
[notes.txt]
One file.
(completed)
> Count to three
One, two, three.
> In French, please
Un, deux, trois.
(completed)
> Tell me everything
In the beginning(The model call was stopped.)

(aborted)
> Another subject
Gladly.
(completed)
session: Another subject
session: What is here?
back in: What is here?
exit code 0
> Take your time
Almost done.
(completed)
exit code 0
"""


@pytest.fixture(params=["front_end.py", "front_end.mjs"])
def program(request: pytest.FixtureRequest) -> list[str]:
    name = str(request.param)
    if name.endswith(".py"):
        return [sys.executable, "-W", "error", str(EXAMPLES / name)]
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the front end in Node was not run")
    return [node, str(EXAMPLES / name)]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return fresh_machine(tmp_path)


def run_program(
    program: list[str], environ: dict[str, str], place: Path, *flags: str
) -> subprocess.CompletedProcess[str]:
    work = place / "w"
    work.mkdir()
    (work / "notes.txt").write_text("milk\n", encoding="utf-8")
    return run([*program, ".", "--workdir", str(work), *flags], environ, place)


def test_a_front_end_does_all_of_the_page(program: list[str], environ: dict[str, str], tmp_path: Path) -> None:
    script = str(EXAMPLES / "front_end.yaml")
    out = run_program(program, environ, tmp_path, "--provider", "mock", "--script", script, "--bootstrap")
    assert (out.returncode, out.stderr) == (0, "")
    shown = out.stdout.replace('": ', '":')
    # On a machine that is slow enough the run has ended before it is steered: the correction is a prompt then.
    assert shown.replace("three.\n(completed)\n> In", "three.\n> In") == SHOWN


def test_a_run_that_goes_on_or_ends_unseen_is_shown_whole(
    program: list[str], environ: dict[str, str], tmp_path: Path
) -> None:
    """The run is long in events and short in time: it may end before the front end is back, or not."""
    script = (EXAMPLES / "front_end.yaml").read_text(encoding="utf-8")
    before, delay, after = script.rpartition("    - delay_ms: 300\n")
    assert delay
    path = tmp_path / "script.yaml"
    path.write_text(f'{before}    - text_repeat: {{text: "0123456789", count: 3000}}\n{after}', encoding="utf-8")
    out = run_program(program, environ, tmp_path, "--provider", "mock", "--script", str(path), "--bootstrap")
    assert (out.returncode, out.stderr) == (0, "")
    assert f"> Take your time\nAlmost {'0123456789' * 3000}done.\n(completed)\nexit code 0\n" in out.stdout


def test_a_daemon_that_does_not_start_is_not_waited_for(
    program: list[str], environ: dict[str, str], tmp_path: Path
) -> None:
    out = run_program(program, environ, tmp_path, "--provider", "nowhere")
    assert (out.returncode, out.stdout) == (1, "")
    assert "--provider: expected one of" in out.stderr
    assert "the daemon has gone" in out.stderr


def test_a_line_that_was_cut_is_ignored(program: list[str], environ: dict[str, str], tmp_path: Path) -> None:
    ready = '{"v":"1","id":"evt-1","type":"status","payload":{"message":"ready","server":"cut","provider":"p"}}'
    fake = tmp_path / "bin" / "nous"
    fake.write_text(
        f"#!/bin/sh\nprintf '%s\\n%s' '{ready}' '{ready[:20]}'\nexec >&-\nexec cat >/dev/null\n", encoding="utf-8"
    )
    out = run_program(program, environ, tmp_path)
    assert (out.returncode, out.stdout) == (1, "ready: cut with p\n")
    assert "the daemon has gone" in out.stderr
    assert "JSON" not in out.stderr


def test_every_console_command_gives_the_output_it_shows(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (block,) = [block for block in read_blocks(PAGE) if block.language == "console"]
    check_console(block, environ, tmp_path)


def test_the_page_shows_the_programs_as_they_are() -> None:
    shown = {block.language: block.text for block in read_blocks(PAGE) if block.language != "console"}
    programs = {"python": "front_end.py", "javascript": "front_end.mjs"}
    assert shown == {language: (EXAMPLES / name).read_text(encoding="utf-8") for language, name in programs.items()}


def test_the_programs_need_no_package() -> None:
    python = (EXAMPLES / "front_end.py").read_text(encoding="utf-8")
    imported = set(re.findall(r"^(?:import|from) (\w+)", python, re.MULTILINE))
    assert imported <= sys.stdlib_module_names
    node = (EXAMPLES / "front_end.mjs").read_text(encoding="utf-8")
    assert all(name.startswith("node:") for name in re.findall(r'from "([^"]+)"', node))
