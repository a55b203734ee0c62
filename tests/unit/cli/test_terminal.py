"""Text that others made, on its way to a terminal: nothing in it steers, reorders or hides anything."""

from __future__ import annotations

import ast
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nous.cli
from nous.cli.terminal import exact_line, many_lines, one_line

JOINERS = "\u200c\u200d"


def steers(text: str, *, allowed: str = "") -> list[str]:
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    # Arabic and Kaithi number signs are formatting characters by category, but are shown.
    visible = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
    layout = {chr(code) for code in range(0x13430, 0x13440)}  # of hieroglyphs
    return [
        c for c in text if unicodedata.category(c) in kinds and c not in allowed + JOINERS + visible and c not in layout
    ]


@given(st.text(st.characters(codec=None)))
def test_a_line_holds_nothing_that_a_terminal_obeys_or_hides(text: str) -> None:
    assert not steers(one_line(text))
    assert not steers(exact_line(text))
    assert not steers(many_lines(text), allowed="\t\n")


def test_no_character_gets_through_by_itself() -> None:
    every = "".join(map(chr, range(0x110000)))
    assert not steers(one_line(every))
    assert not steers(many_lines(every), allowed="\t\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("caf\u00e9 \u65e5\u672c \U0001f468\u200d\U0001f469", "caf\u00e9 \u65e5\u672c \U0001f468\u200d\U0001f469"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\rb\tc\x7f\x9b", "a\\rb\\tc\\x7f\\x9b"),
        ("a\nb\r\nc", "a b c"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\U000e0041", "\\U000e0041"),
        ("\udcff\ud800", "\\xff\\ud800"),
    ],
)
def test_what_is_not_shown_is_escaped(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_line_ends_count_where_every_character_does() -> None:
    assert exact_line("sh\r\n-c") == "sh\\r\\n-c"


def test_a_text_keeps_its_lines() -> None:
    assert many_lines("a\r\n\tb\x1b\r") == "a\n\tb\\x1b"


PACKAGE = Path(nous.cli.__file__).parent
"""Only its module ``terminal`` may touch the standard streams' writing side."""


def writes(tree: ast.AST) -> Iterator[int]:
    """Yield the lines on which a module prints or names sys.stdout or sys.stderr."""
    forbidden = ("print", "sys.stdout", "sys.stderr")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in forbidden:
            yield node.lineno


def test_every_command_writes_through_this_module() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "terminal.py"
        for line in writes(ast.parse(path.read_text()))
    ]
    assert not found


def test_the_rule_finds_what_it_forbids() -> None:
    source = "print(1)\nsys.stdout.write('')\nsys.stderr.buffer.flush()\nsys.stdin.read()\nx = [print]"
    assert [*sorted(writes(ast.parse(source)))] == [1, 2, 3, 5]
