"""Globs: checked against a slow matcher that is obviously right, and against time."""

from __future__ import annotations

import fnmatch
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.tools.globs import MAX_EXPANSIONS, Glob, GlobError, expand_braces

parts = st.sampled_from(["a", "b", "ab", "*", "?", "a*", "*b", "[ab]", "[!a]", "**"])
patterns = st.lists(parts, min_size=1, max_size=4).map("/".join)
paths = st.lists(st.sampled_from(["a", "b", "ab", "ba", ".a"]), min_size=1, max_size=5).map("/".join)


def slow_match(path: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(slow_match(path[skipped:], pattern[1:]) for skipped in range(len(path) + 1))
    return bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and slow_match(path[1:], pattern[1:])


@given(patterns, paths)
def test_it_matches_what_a_slow_matcher_matches(pattern: str, path: str) -> None:
    wanted = pattern.split("/")
    if "/" not in pattern:
        wanted.insert(0, "**")
    assert Glob(pattern).matches(path, is_directory=False) == slow_match(path.split("/"), wanted)
    assert Glob(f"!{pattern}").matches(path, is_directory=False) != slow_match(path.split("/"), wanted)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.py", "a.py", True),
        ("*.py", "deep/er/a.py", True),
        ("*.py", "a.pyc", False),
        ("/*.py", "deep/a.py", False),
        ("./*.py", "a.py", True),
        ("src/**/*.ts", "src/a.ts", True),
        ("src/**/*.ts", "src/x/y/a.ts", True),
        ("src/**/*.ts", "lib/src/a.ts", False),
        ("**/src/*.ts", "lib/src/a.ts", True),
        ("src/**", "src/a/b", True),
        ("*.{ts,tsx}", "a.tsx", True),
        ("{a,b{1,2}}.txt", "b2.txt", True),
        ("{a,b{1,2}}.txt", "b.txt", False),
        ("{a}.txt", "{a}.txt", True),
        ("[[]x", "[x", True),
        ("[!x]", "y", True),
        ("[", "[", True),
        ("*", ".hidden", True),
        ("A", "a", False),
        ("état\u2028*", "état\u2028x", True),
        ("a\\*", "a\\b", True),
        ("dir/", "dir", False),
    ],
)
def test_by_hand(pattern: str, path: str, matches: bool) -> None:
    assert Glob(pattern).matches(path, is_directory=False) is matches


def test_a_slash_at_the_end_asks_for_a_directory() -> None:
    assert Glob("dir/").matches("x/dir", is_directory=True)
    assert not Glob("dir/").matches("x/dir", is_directory=False)
    assert Glob("x/d*/").matches("x/dir", is_directory=True)


def test_braces_stand_for_all_combinations() -> None:
    expanded = expand_braces("{a,b}x{1,2}{,y}")
    assert sorted(expanded) == sorted(a + "x" + n + y for a, n, y in product("ab", "12", ["", "y"]))


def test_too_many_combinations_are_refused() -> None:
    assert len(expand_braces("{a,b}" * 9)) == 512 <= MAX_EXPANSIONS
    with pytest.raises(GlobError, match="more than 1000"):
        Glob("{a,b}" * 40)


def test_no_pattern_takes_exponential_time() -> None:
    # Each of these would keep a backtracking matcher busy for longer than the machine will last.
    assert not Glob("*a" * 60 + "b").matches("a" * 250, is_directory=False)
    assert not Glob("/".join(["**", "a"] * 40) + "/b").matches("/".join(["a"] * 2000), is_directory=False)
    assert not Glob("/".join(["**"] * 40) + "/b").matches("/".join(["a"] * 2000), is_directory=False)
