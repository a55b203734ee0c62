"""docs/protocol.md names what there is: every command with its fields, every event, every error code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from nous.errors import WIRE_CODES
from nous.protocol.commands import COMMANDS
from nous.protocol.events import EVENTS, FEATURE_EVENTS
from nous.protocol.responses import ANSWERS

ROOT: Final = Path(__file__).resolve().parents[3]
PAGE: Final = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"^## \d+\. {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found.group(1)


def rows(text: str) -> list[list[str]]:
    """Return the cells of every row of a section's tables, without heads and rules."""
    lines = [line for line in text.split("\n") if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(cell: str) -> set[str]:
    """Return the field names of a cell: ``mode: a, b`` is one, what stands in parentheses is said of one."""
    plain = re.sub(r"\([^)]*\)|:.*", "", cell)
    return {name.strip().rstrip("+?") for name in plain.split(",") if name.strip()}


def test_every_command_stands_there_with_its_fields() -> None:
    table = {re.findall(r"`(\w+)`", cells[0])[0]: cells for cells in rows(section("Commands"))}
    assert set(table) == set(COMMANDS)
    for name, cells in table.items():
        fields = {f.encode_name: f.required for f in msgspec.structs.fields(COMMANDS[name])}
        if name == "branch_session":
            # One of the two is needed, which the struct checks by itself.
            del fields["parent_id"]
            fields["session_id"] = True
        assert names(cells[1]) == {field for field, required in fields.items() if required}, name
        assert names(cells[2]) == {field for field, required in fields.items() if not required}, name


def test_every_answer_stands_there() -> None:
    cells = " ".join(row[3] for row in rows(section("Commands")))
    assert set(re.findall(r"`(\w+)`", cells)) == set(ANSWERS)


def test_every_event_stands_there() -> None:
    text = section("Events")
    table = {name for cells in rows(text) for name in re.findall(r"`(\w+)`", cells[0])}
    assert table == set(EVENTS)
    for name, (feature, _) in FEATURE_EVENTS.items():
        assert f"`{feature}`" in text
        assert f"`{name}`" in text


def test_every_error_code_stands_with_its_category() -> None:
    found = {}
    for cells in rows(section("Errors")):
        categories = re.findall(r"`(\w+)`", cells[0])
        for code in categories if cells[1] == "the same" else re.findall(r"\w+", cells[1]):
            found[code] = code if cells[1] == "the same" else categories[0]
    assert found == {code: info.category for code, info in WIRE_CODES.items()}
