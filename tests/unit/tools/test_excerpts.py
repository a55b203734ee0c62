"""Excerpts: the lines that matched and those around them, in bounded memory."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nous.tools.excerpts import MAX_LINE_CHARACTERS, excerpt


def make(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "file"
    path.write_bytes(content)
    return str(path)


def test_matching_lines_only(tmp_path: Path) -> None:
    path = make(tmp_path, b"a\nb\nc\nd\n")
    assert excerpt(path, "name", [2, 4], 0) == "name:2:b\nname:4:d\n"


def test_with_context(tmp_path: Path) -> None:
    path = make(tmp_path, b"".join(b"%d\n" % number for number in range(1, 21)))
    assert excerpt(path, "f", [3, 4, 12], 1) == ("f-2-2\nf:3:3\nf:4:4\nf-5-5\n--\nf-11-11\nf:12:12\nf-13-13\n")
    assert "--" not in excerpt(path, "f", [3, 6], 1)
    assert excerpt(path, "f", [1, 20], 100).count("\n") == 20


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 30), st.sets(st.integers(1, 30), min_size=1), st.integers(0, 5), st.booleans())
def test_every_line_within_reach_once_and_no_other(
    tmp_path: Path, count: int, numbers: set[int], context: int, ends: bool
) -> None:
    wanted = sorted(number for number in numbers if number <= count)
    path = make(tmp_path, b"\n".join(b"%d" % number for number in range(1, count + 1)) + b"\n" * ends)
    shown = excerpt(path, "f", wanted, context).split("\n")[:-1]
    near = [n for n in range(1, count + 1) if any(abs(n - number) <= context for number in wanted)]
    assert [line for line in shown if line != "--"] == [f"f:{n}:{n}" if n in wanted else f"f-{n}-{n}" for n in near]
    gaps = sum(1 for one, other in pairwise(near) if other > one + 1)
    assert shown.count("--") == (gaps if context else 0)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("x\r", "x"),
        ("é" * MAX_LINE_CHARACTERS, "é" * MAX_LINE_CHARACTERS),
        ("😀" * (MAX_LINE_CHARACTERS + 1), "😀" * MAX_LINE_CHARACTERS + " [line cut]"),
        ("y" * 1_000_000, "y" * MAX_LINE_CHARACTERS + " [line cut]"),
        ("a\u2028b", "a\u2028b"),
    ],
)
def test_of_a_long_line_the_beginning(tmp_path: Path, line: str, shown: str) -> None:
    path = make(tmp_path, f"first\n{line}\nlast".encode())
    assert excerpt(path, "f", [2, 3], 0) == f"f:2:{shown}\nf:3:last\n"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    assert excerpt(make(tmp_path, b"a\xff\0"), "f", [1], 0) == "f:1:a\ufffd\0\n"


def test_a_file_that_is_gone_or_has_become_shorter(tmp_path: Path) -> None:
    assert excerpt(str(tmp_path / "missing"), "f", [1], 0) == ""
    assert excerpt(make(tmp_path, b"1\n2\n"), "f", [2, 9], 0) == "f:2:2\n"
