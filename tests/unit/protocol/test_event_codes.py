"""Every code of a ``status`` or ``warning`` stands in the table, and every code of the table is emitted."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from nous.protocol.event_codes import START_WARNING_CODES, STATUS_CODES, WARNING_CODES
from nous.protocol.events import StartWarningCode, StatusCode, WarningCode
from tests.support.home import ROOT

TABLES: Final[dict[str, set[str]]] = {
    "StatusEvent": set(STATUS_CODES),
    "WarningEvent": set(WARNING_CODES),
    "HookWarning": set(WARNING_CODES),
    "StartWarning": set(START_WARNING_CODES),
}
"""Structs with a code, and the codes they may have."""

SOURCES: Final = [path for path in (ROOT / "nous").rglob("*.py") if path.name not in ("event_codes.py", "events.py")]
RECORDED: Final = [*(ROOT / "fixtures").rglob("*.ndjson"), *(ROOT / "protocol" / "v1" / "examples").glob("*.ndjson")]


@pytest.mark.parametrize(
    ("codes", "table"),
    [(StatusCode, STATUS_CODES), (WarningCode, WARNING_CODES), (StartWarningCode, START_WARNING_CODES)],
)
def test_each_code_has_a_meaning_and_an_action(codes: Any, table: Mapping[str, tuple[str, str]]) -> None:
    assert set(get_args(codes)) == set(table)
    for meaning, action in table.values():
        assert meaning.endswith(".")
        assert action.endswith(".")


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            yield name, node


def unknown_codes(source: str) -> list[str]:
    """Return the places of a module that emit a code past the type checker or past the tables."""
    lines = source.split("\n")
    return [
        ast.unparse(call)
        for name, call in calls(ast.parse(source))
        if name in TABLES
        and (not _code_is_known(name, call) or "type: ignore" in "".join(lines[call.lineno - 1 : call.end_lineno]))
    ]


def _code_is_known(name: str, call: ast.Call) -> bool:
    codes = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
    if codes:
        return not isinstance(codes[0], ast.Constant) or codes[0].value in TABLES[name]
    # A status may have no code; the fields of a HookWarning have one that is checked where it is made.
    return name == "StatusEvent" or ast.unparse(call).endswith("**structs.asdict(warning))")


def test_no_code_is_emitted_that_is_not_in_the_table() -> None:
    found = {str(path.relative_to(ROOT)): unknown_codes(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


def test_an_unknown_code_is_seen() -> None:
    assert unknown_codes('WarningEvent(code="nowhere", message="m")')
    assert unknown_codes('events.StatusEvent(code="tool_blocked", message="m")')
    assert unknown_codes("WarningEvent(code=code, message=m)  # type: ignore")
    assert unknown_codes("WarningEvent(**fields)")
    assert not unknown_codes('WarningEvent(code="tool_blocked", message="m", **fields)')


def test_every_code_of_the_table_is_emitted() -> None:
    constants = {
        node.value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set().union(*TABLES.values()) - constants == set()


def test_what_was_recorded_has_no_other_code() -> None:
    tables: dict[str, set[str]] = {"status": set(STATUS_CODES), "warning": set(WARNING_CODES)}
    seen = 0
    for line in (line for path in RECORDED for line in _events(path)):
        code = line["payload"].get("code")
        if code is not None:
            seen += 1
            assert code in tables[line["type"]]
    assert seen > 10


def _events(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_bytes().split(b"\n"):
        if b'"type":"warning"' in text or b'"type":"status"' in text:
            found = json.loads(text)
            line = found.get("event", found)
            if line.get("type") in ("warning", "status") and "payload" in line:
                yield line
