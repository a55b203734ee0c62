"""docs/providers.md, executed and held against the tables it was written from."""

from __future__ import annotations

import re
from pathlib import Path

from nous.providers.presets import PRESETS
from tests.support.home import ROOT
from tests.support.pages import check_console, fresh_machine, read_blocks

PAGE = (ROOT / "docs/providers.md").read_text(encoding="utf-8")


def test_every_console_command_gives_the_output_it_shows(tmp_path: Path) -> None:
    environ = fresh_machine(tmp_path)
    consoles = [block for block in read_blocks(PAGE) if block.language == "console"]
    assert len(consoles) >= 3
    for block in consoles:
        check_console(block, environ, tmp_path)


def test_every_provider_stands_there_with_its_key() -> None:
    table = PAGE.split("| provider |")[1].split("\n\n")[0]
    rows = [line.split("|")[1:4] for line in table.split("\n") if line.startswith("| `")]
    found = {
        name: (re.findall(r"`(\w+)`", key) or [None])[0]
        for names, _, key in rows
        for name in re.findall(r"`([\w-]+)`", names)
    }
    assert found == {"mock": None, **{name: preset.key_variable for name, preset in PRESETS.items()}}


def test_every_vendor_stands_there_with_how_it_takes_a_schema() -> None:
    table = PAGE.split("| | the schema is sent as")[1].split("\n\n")[0]
    for name, preset in PRESETS.items():
        form = "json_object" if preset.output == "json_object" else ""
        row = next((line for line in table.split("\n") if f"`{name}`" in line), "")
        assert row or preset.key_variable is None, name
        assert form in row
