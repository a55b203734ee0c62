"""docs/operations.md, executed."""

from __future__ import annotations

from pathlib import Path

from tests.support.daemon import run_nous
from tests.support.home import ROOT, Home
from tests.support.pages import check_console, fresh_machine, read_blocks

PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")


def test_every_console_command_gives_the_output_it_shows(tmp_path: Path) -> None:
    environ = fresh_machine(tmp_path)
    consoles = [block for block in read_blocks(PAGE) if block.language == "console"]
    assert consoles
    for block in consoles:
        check_console(block, environ, tmp_path)


def test_every_configuration_shown_is_valid(tmp_path: Path) -> None:
    home = Home(tmp_path)
    shown = [block.text for block in read_blocks(PAGE) if block.language == "yaml"]
    assert shown
    for text in shown:
        (home.workdir / "shown.yaml").write_text(text, encoding="utf-8")
        done = run_nous(home, "config", "check", "--config", "shown.yaml")
        assert done.returncode == 0, done
