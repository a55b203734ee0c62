"""docs/mock-scripts.md, executed and held against the steps that a script may have."""

from __future__ import annotations

import re
from pathlib import Path

from nous.providers.script import Step
from tests.support.home import ROOT
from tests.support.pages import check_console, fresh_machine, read_blocks

PAGE = (ROOT / "docs/mock-scripts.md").read_text(encoding="utf-8")


def test_every_console_command_gives_the_output_it_shows(tmp_path: Path) -> None:
    environ = fresh_machine(tmp_path)
    consoles = [block for block in read_blocks(PAGE) if block.language == "console"]
    assert consoles
    for block in consoles:
        check_console(block, environ, tmp_path)


def test_every_step_stands_there() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.M) == list(Step.__struct_fields__)
