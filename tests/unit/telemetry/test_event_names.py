"""The names of log records are a promise: docs/operations.md lists them, and the code logs those and no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.support.home import ROOT

LEVELS = ("debug", "info", "warning", "error")
ROW = re.compile(r"^\| `([a-z_]+)` \| ([a-z, ]+) \| ([a-z, ]+) \| \S.* \|$", re.MULTILINE)
LoggedEvent = tuple[str, str, str]


def listed() -> set[LoggedEvent]:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    _, _, section = page.partition("\n## Logs\n")
    rows = ROW.findall(section.partition("\n## ")[0])
    return {
        (event, room, level)
        for event, rooms, levels in rows
        for room in rooms.split(", ")
        for level in levels.split(", ")
    }


def logged() -> set[LoggedEvent]:
    found: set[LoggedEvent] = set()
    for path in sorted((ROOT / "nous").rglob("*.py")):
        found |= set(calls(ast.parse(path.read_text(encoding="utf-8"))))
    # Two records that are not written by a plain call: one picks its level, one reports on the writer itself.
    return found | {
        ("foreign_record", "foreign", "warning"),
        ("foreign_record", "foreign", "error"),
        ("log_dropped", "telemetry", "warning"),
    }


def calls(tree: ast.Module) -> Iterator[LoggedEvent]:
    room = next(rooms(tree), None)
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=receiver, attr=level), args=args) if level in (*LEVELS, "last"):
                if room is not None and is_log(receiver):
                    assert len(args) == 1, ast.unparse(node)
                    assert isinstance(args[0], ast.Constant), f"a name is fixed: {ast.unparse(node)}"
                    assert isinstance(args[0].value, str)
                    yield args[0].value, room, "error" if level == "last" else level


def rooms(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="get_log"), args=[ast.Constant(value=str(room))]):
                yield room


def is_log(receiver: ast.expr) -> bool:
    match receiver:
        case ast.Name(id="log" | "_log") | ast.Attribute(attr="_log") | ast.Call(func=ast.Name(id="get_log")):
            return True
    return False


def test_the_page_lists_what_the_code_logs() -> None:
    assert sorted(logged() - listed()) == []


def test_the_code_logs_what_the_page_lists() -> None:
    assert sorted(listed() - logged()) == []


def test_names_that_are_no_plain_calls_are_still_in_the_code() -> None:
    sources = (ROOT / "nous" / "telemetry" / "foreign.py", ROOT / "nous" / "telemetry" / "writer.py")
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert '"foreign_record"' in text
    assert '"log_dropped"' in text
