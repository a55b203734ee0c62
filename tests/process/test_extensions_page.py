"""docs/extensions.md, executed: its files are written, its commands run, in one directory, in the order of the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nous.extensions.answers import ANSWERS
from nous.extensions.policy import KEYS, Policy
from nous.ports.extensions import HOOKS
from tests.support.home import ROOT
from tests.support.pages import Block, check_console, fresh_machine, read_blocks

PAGE = (ROOT / "docs/extensions.md").read_text(encoding="utf-8")


def write_file(block: Block, root: Path) -> None:
    """Write a block whose first line is a comment that names its file."""
    name = block.text.split("\n", 1)[0].removeprefix("# ")
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")


def test_every_file_and_command_of_the_page(tmp_path: Path) -> None:
    environ = fresh_machine(tmp_path)
    blocks = read_blocks(PAGE)
    assert [block.language for block in blocks].count("console") >= 3
    for block in blocks:
        if block.language == "console":
            check_console(block, environ, tmp_path)
        else:
            write_file(block, tmp_path)


def rows(heading: str) -> dict[str, list[str]]:
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [line.strip("|").split("|") for line in section.split("\n") if line.startswith("| `")]
    return {name: [c.strip() for c in rest] for first, *rest in cells for name in re.findall(r"`(\w+)`", first)}


@pytest.mark.parametrize("key", KEYS)
def test_the_policy_table_has_each_default(key: str) -> None:
    assert rows("Policy")[key][0] == str(getattr(Policy(), key))


def test_the_table_of_hooks_is_complete() -> None:
    table = rows("Hooks")
    assert tuple(table) == HOOKS
    for hook in HOOKS:
        answers = table[hook][2]
        assert set(re.findall(r"`(\w+)`", answers)) == set(ANSWERS[hook].__struct_fields__), hook
