"""docs/configuration.md, executed: its commands, in one directory, in the order of the page."""

from __future__ import annotations

from pathlib import Path

from tests.support.home import ROOT
from tests.support.pages import check_console, fresh_machine, read_blocks

PAGE = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")


def test_every_console_command_gives_the_output_it_shows(tmp_path: Path) -> None:
    environ = fresh_machine(tmp_path)
    consoles = [block for block in read_blocks(PAGE) if block.language == "console"]
    assert len(consoles) >= 2
    for block in consoles:
        check_console(block, environ, tmp_path)
