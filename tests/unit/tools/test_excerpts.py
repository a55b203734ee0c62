"""Excerpts: the lines that matched and those around them, in bounded memory."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nous.tools.encodings import UTF_8, utf8_blocks
from nous.tools.excerpts import MAX_LINE_CHARACTERS
from nous.tools.excerpts import excerpt as excerpt_of_blocks


def make(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "file"
    path.write_bytes(content)
    return str(path)


def excerpt(path: str, name: str, numbers: list[int], context: int, column: int = 0) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        return excerpt_of_blocks(
            utf8_blocks(fd, UTF_8, 256 * 1024), name, [(number, column) for number in numbers], context
        )
    finally:
        os.close(fd)


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


def test_a_file_that_has_become_shorter(tmp_path: Path) -> None:
    assert excerpt(make(tmp_path, b"1\n2\n"), "f", [2, 9], 0) == "f:2:2\n"


@pytest.mark.parametrize("filler", ["x", "é", "😀"])
@pytest.mark.parametrize("before", [0, 299, 500, 100_000, 300_000])
@pytest.mark.parametrize("after", [0, 10, 400_000])
def test_of_a_long_line_the_part_around_the_match(tmp_path: Path, filler: str, before: int, after: int) -> None:
    line = filler * before + "NEEDLE" + filler * after
    path = make(tmp_path, f"first\n{line}\nlast\n".encode())
    text = excerpt(path, "f", [2], 0, column=len((filler * before).encode()))
    assert "NEEDLE" in text
    shown = text.removeprefix("f:2:").removesuffix("\n")
    assert shown.removeprefix("[line cut] ").removesuffix(" [line cut]") in line
    assert len(shown) <= MAX_LINE_CHARACTERS + 2 * len("[line cut] ")
    assert shown.startswith("[line cut]") == (before > 300 and len(line) > MAX_LINE_CHARACTERS)


def test_the_end_of_a_long_line_is_shown_as_such(tmp_path: Path) -> None:
    path = make(tmp_path, b"x" * 5000 + b"NEEDLE\r\n")
    assert excerpt(path, "f", [1], 0, column=5000) == f"f:1:[line cut] {'x' * 200}NEEDLE\n"
