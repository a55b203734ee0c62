"""Two engines, one answer: ripgrep and Python find the same lines in the same order."""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nous.tools import matching, text_files
from nous.tools.encodings import UTF_8
from nous.tools.excerpts import LineMatch
from nous.tools.matching import find_matches
from nous.tools.regex import DialectError, translate
from nous.tools.search_request import GrepQuery
from nous.tools.text import SNIFFED_BYTES
from nous.tools.text_files import TextFile
from tests.unit.tools.toolroom import needs_ripgrep

RIPGREP = shutil.which("rg")

Found = tuple[str, list[int]]


@pytest.fixture(autouse=True)
def in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def query(pattern: str, *, ripgrep: str | None, ignore_case: bool = False, literal: bool = False) -> GrepQuery:
    return GrepQuery(pattern=pattern, ignore_case=ignore_case, literal=literal, context=0, ripgrep=ripgrep)


def both(files: list[str], pattern: str, limit: int = 1000, **options: bool) -> list[Found]:
    """Return what Python finds, having made sure that ripgrep finds it too, at the same places."""
    found = find(files, query(pattern, ripgrep=None, **options), limit)
    if RIPGREP is not None:
        same = find(files, query(pattern, ripgrep=RIPGREP, **options), limit)
        # ripgrep does not tell the place of an empty match at the end of a file; it counts as the line's beginning.
        assert [(path, [(n, c and without_end(path, c)) for n, c in lines]) for path, lines in same] == [
            (path, [(n, without_end(path, c)) for n, c in lines]) for path, lines in found
        ]
    return [(path, [number for number, _ in lines]) for path, lines in found]


def without_end(path: str, column: int) -> int:
    """Return a column, 0 for the end of a last line that has no LF."""
    content = Path(path).read_bytes()
    return 0 if column == len(content.rpartition(b"\n")[2]) else column


def find(files: list[str], what: GrepQuery, limit: int) -> list[tuple[str, list[LineMatch]]]:
    return [(file.path, lines) for file, lines in find_matches(opened(files), what, limit)]


def numbers_of(files: list[str], what: GrepQuery, limit: int) -> list[Found]:
    return [(path, [number for number, _ in lines]) for path, lines in find(files, what, limit)]


def opened(files: list[str]) -> Iterator[tuple[str, int]]:
    for path in files:
        yield path, os.open(path, os.O_RDONLY)


def write(files: dict[str, bytes]) -> list[str]:
    for name, content in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return list(files)


characters = st.sampled_from("aAbBiI\u0131\u0130kK\u017fsSßẞ\u03c3ςé1٣²_- .\t\x1c\u0301\u2028\u00a0日😀")
atoms = st.one_of(
    characters.map(lambda c: c if c.isalnum() or c in "_ " or ord(c) > 127 else f"\\x{ord(c):02x}"),
    st.sampled_from([".", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", "[a-c]", "[^a-c]", r"[\w-]", r"[^\w]", r"[^\s\d]"]),
    st.sampled_from(
        ["[[:alpha:]]", "[^[:punct:]]", "[i-k]", "[^i]", "[\u0130]", "[^\u0131]", r"[\W\d]", r"[^\W]", "[&&-]", "[]^]"]
    ),
)
counts = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,2}", "+?"])
counted = st.builds("{}{}".format, atoms, counts)
pieces = st.lists(counted | st.sampled_from([r"\b", "$"]), min_size=1, max_size=4).map("".join)
inner_patterns = st.recursive(
    pieces,
    lambda inner: st.one_of(
        st.builds("({}|{})".format, inner, inner),
        st.builds("(?:{})+".format, inner),
        st.builds("{}{}".format, inner, inner),
    ),
    max_leaves=4,
)
starts = st.sampled_from(["", "", "^", "(^|a)", "(?:^)?", r"(^|\s)"])
patterns = st.builds("{}{}".format, starts, inner_patterns)
raw_lines = st.lists(characters.map(str.encode) | st.sampled_from([b"\xff", b"\xc3", b"\xe2\x82", b"\r"]), max_size=6)


@needs_ripgrep
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(pattern=patterns, lines=st.lists(raw_lines.map(b"".join), max_size=12), ends=st.booleans(), ignore=st.booleans())
def test_any_pattern_finds_the_same_lines(pattern: str, lines: list[bytes], ends: bool, ignore: bool) -> None:
    both(write({"file": b"\n".join(lines) + b"\n" * ends}), pattern, ignore_case=ignore)


@needs_ripgrep
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=st.text(characters, min_size=1, max_size=3), lines=st.lists(raw_lines.map(b"".join), max_size=12))
def test_any_text_finds_the_same_lines(text: str, lines: list[bytes]) -> None:
    both(write({"file": b"\n".join(lines)}), text, literal=True)


@needs_ripgrep
@pytest.mark.parametrize("pattern", [r"^\w$", r"^\d$", r"^\s$", "^.$", r"^\W$", "^[^a]$", r"^\b"])
def test_every_character_there_is(pattern: str) -> None:
    codes = (code for code in range(1, sys.maxunicode + 1) if code != 10 and not 0xD800 <= code < 0xE000)
    # Only what has long been known: a ripgrep and a Python of different years know different characters.
    known = [chr(code) for code in codes if unicodedata.ucd_3_2_0.category(chr(code)) != "Cn"]
    content = "\n".join(known).encode()
    found = {}
    for engine in (None, RIPGREP):
        ((_, numbers),) = numbers_of(write({"file": content}), query(pattern, ripgrep=engine), 2_000_000)
        found[engine] = numbers
    differing = set(found[None]) ^ set(found[RIPGREP])
    assert [hex(ord(known[number - 1])) for number in sorted(differing)] == []


def test_in_the_order_of_the_files_given_and_up_to_the_limit() -> None:
    files = write({"b": b"x\nx\ny\nx\n", "a": b"y\n", "c/d": b"x\nx\n"})
    assert both(files, "x") == [("b", [1, 2, 4]), ("c/d", [1, 2])]
    assert both(files, "x", limit=4) == [("b", [1, 2, 4]), ("c/d", [1])]
    assert both(files, "x", limit=3) == [("b", [1, 2, 4])]
    assert both(files, "x", limit=1) == [("b", [1])]
    assert both(files, "none") == []
    assert both([], "x") == []


def test_names_that_could_be_something_else() -> None:
    names = ["-", "--files", "-e", "a:1:b", "new\nline", os.fsdecode(b"raw\xff"), "é\u2028", "*", "c/-"]
    files = write(dict.fromkeys(names, b"x\n"))
    assert both(files, "x") == [(name, [1]) for name in names]


def test_binary_files_have_no_lines() -> None:
    files = write(
        {
            "early": b"x\n\0",
            "late": b"x\n" * SNIFFED_BYTES + b"\0\nx\n",
            "last": b"x" * (SNIFFED_BYTES - 1) + b"\0\nx\n",
            "just after": b"x" * SNIFFED_BYTES + b"\0\nx\n",
            "utf-32": "x\n".encode("utf-32"),
            "utf-16 without a mark": "x\n".encode("utf-16-le"),
            "utf-16 with a nul": "x\0\n".encode("utf-16"),
            "bom": b"\xef\xbb\xbfx\n",
            "text": b"x\n",
        }
    )
    found = both(files, "^x", limit=20)
    assert [path for path, _ in found] == ["late"]  # its limit is reached before the next file
    found = both(files, "x", limit=100_000)
    assert [path for path, _ in found] == ["late", "just after", "bom", "text"]
    assert found[0][1][-1] == SNIFFED_BYTES + 2
    assert both(["early", "text"], "^x$", limit=1) == [("text", [1])]


def test_what_is_no_regular_file_or_not_there_has_no_lines() -> None:
    files = write({"file": b"x\n", "empty": b""})
    Path("dir").mkdir()
    found = both([*files, "dir"], "x")
    assert found == [("file", [1])]
    assert both(["empty"], "^") == []
    assert both(["file"], "^") == [("file", [1])]


def test_only_lf_ends_a_line() -> None:
    files = write({"file": "a\u2028x\r\nb\x85x\x0bx\rx\nx".encode()})
    assert both(files, "x") == [("file", [1, 2, 3])]
    assert both(files, "^x") == [("file", [3])]
    assert both(files, "x$") == [("file", [1, 2, 3])]
    assert both(files, r"x\r$") == [("file", [1])]


def test_a_cr_belongs_to_the_end_of_its_line() -> None:
    files = write({"file": b"foo\r\nfoo \r\n\r\nfoo\rbar\r\nfoo\n\nfoo\r"})
    assert both(files, "foo$") == [("file", [1, 5, 7])]
    assert both(files, "^$") == [("file", [3, 6])]
    assert both(files, "foo.") == both(files, "foo[^x]") == both(files, r"foo\W") == [("file", [2])]
    assert both(files, r"\s$") == both(files, "[[:space:]]$") == [("file", [2])]
    assert both(files, r"foo\r") == both(files, r"foo[\r]") == [("file", [1, 4, 7])]
    assert both(files, "foo$|x", literal=True) == []


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-be", "utf-8-sig"])
def test_files_with_a_byte_order_mark_are_searched_as_text(codec: str) -> None:
    text = "alpha\r\nbéta 日 😀 \u0a0d\r\nlast"
    files = write({"plain": text.encode(), "marked": ("\ufeff" * (codec == "utf-16-be") + text).encode(codec)})
    for pattern, numbers in (("^alpha$", [1]), ("ta 日 .", [2]), ("last$", [3])):
        found = find(files, query(pattern, ripgrep=RIPGREP), 100)
        assert [path for path, _ in found] == ["plain", "marked"]
        assert found[0][1] == found[1][1]
        assert both(files, pattern) == [("plain", numbers), ("marked", numbers)]


def test_where_a_line_matches_is_counted_in_bytes() -> None:
    files = write({"file": "é😀x\nx x\n".encode() + b"\xff\xfex\n"})
    assert find(files, query("x", ripgrep=None), 10) == [("file", [(1, 6), (2, 0), (3, 2)])]
    assert both(files, "x") == [("file", [1, 2, 3])]


def test_no_descriptor_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    files = write({f"{number}": b"x\n" * (number + 1) for number in range(50)} | {"binary": b"\0"})
    for limit in (1, 3, 1000):
        both(files, "x", limit=limit)
    matches = find_matches(opened(files), query("x", ripgrep=None), 1000)
    next(matches)
    del matches
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_lines_longer_than_any_buffer() -> None:
    content = b"a" * 3_000_000 + b"needle" + b"b" * 3_000_000
    files = write({"file": b"short\n" + content + b"\nshort\n" + content})
    assert both(files, "needle") == [("file", [2, 4])]
    assert both(files, "b$") == [("file", [2, 4])]


def test_more_files_than_one_command_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "_BATCH_FILES", 7)
    files = write({f"{number:03}": b"x\n" if number % 3 else b"y\n" for number in range(60)})
    assert both(files, "x") == [(name, [1]) for number, name in enumerate(files) if number % 3]
    assert len(both(files, "x", limit=11)) == 11


@pytest.mark.parametrize("long_files", [1, 3, 1000])
@pytest.mark.parametrize("short_bytes", [0, 6, 1000])
def test_short_and_long_files_in_turn(monkeypatch: pytest.MonkeyPatch, long_files: int, short_bytes: int) -> None:
    monkeypatch.setattr(text_files, "_BATCH_LONG_FILES", long_files)
    monkeypatch.setattr(text_files, "MAX_SHORT_BYTES", short_bytes)
    contents = [
        b"x",
        b"",
        b"y\nx\n",
        b"\n\n",
        b"long long\nx\nx",
        b"no",
        b"x\r\n\n",
        "x\nß x".encode("utf-16"),
        b"\0x",
        b"x\n",
    ]
    files = write({f"{number:02}": content for number, content in enumerate(contents * 2)})
    expected = [("00", [1]), ("02", [2]), ("04", [2, 3]), ("06", [1]), ("07", [1, 2]), ("09", [1])]
    expected += [(f"{int(name) + 10}", numbers) for name, numbers in expected]
    assert both(files, "x$") == expected
    assert both(files, "x$", limit=5) == [*expected[:3], ("06", [1])]
    empty = [("03", [1, 2]), ("06", [2]), ("13", [1, 2]), ("16", [2])]
    assert both(files, "^$") == empty


@needs_ripgrep
def test_what_is_too_much_for_ripgrep_is_done_by_python() -> None:
    pattern = r"(\w{1000}){100}"
    files = write({"file": b"a" * 100_000 + b"\n" + b"a" * 99_999})
    fd = os.open("file", os.O_RDONLY)
    batch = [TextFile("file", None, fd, UTF_8)]
    assert matching._ripgrep_engine(query(pattern, ripgrep=RIPGREP), str(RIPGREP))(batch, 10) is None
    os.close(fd)
    assert numbers_of(files, query(pattern, ripgrep=RIPGREP), 10) == [("file", [1])]


def test_a_ripgrep_that_cannot_run_is_done_without() -> None:
    files = write({"file": b"x\n", "rg": b"#!/bin/sh\nexit 2\n"})
    Path("rg").chmod(0o755)
    assert numbers_of(files, query("x", ripgrep=str(Path("rg").absolute())), 10) == [
        ("file", [1]),
        ("rg", [2]),
    ]


def test_the_user_s_settings_of_ripgrep_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    files = write({"config": b"--invert-match\n", "file": b"x\n", ".ignore": b"file\n"})
    monkeypatch.setenv("RIPGREP_CONFIG_PATH", str(Path("config").absolute()))
    assert both(files, "^x") == [("file", [1])]


@pytest.mark.parametrize("pattern", ["(", "a**", "(?=a)"])
def test_a_pattern_that_is_none_is_refused_by_both(pattern: str) -> None:
    for engine in (None, RIPGREP):
        with pytest.raises(DialectError):
            find(write({"file": b"x\n"}), query(pattern, ripgrep=engine), 1)


def test_python_has_its_fast_way_only_where_it_is_the_same() -> None:
    assert re.search(translate("\u017f", "python-ascii", ignore_case=True), "S")
    assert both(write({"file": "S\n\u017f\ns\n".encode()}), "\u017f", ignore_case=True) == [("file", [1, 2, 3])]
