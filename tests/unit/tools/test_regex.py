"""The dialect: what is accepted, what is refused and why, and what it means to Python.

That ripgrep means the same is shown in test_matching.py.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.tools.regex import MAX_COUNT, MAX_DEPTH, MAX_PATTERN_CHARACTERS, DialectError, translate


def matches(pattern: str, line: str, *, ignore_case: bool = False, literal: bool = False) -> bool:
    """Return whether the pattern matches, having asked both translations where both are for this line."""
    found = re.search(translate(pattern, "python", ignore_case=ignore_case, literal=literal), line) is not None
    if line.isascii():
        quick = re.search(translate(pattern, "python-ascii", ignore_case=ignore_case, literal=literal), line)
        assert (quick is not None) == found
    return found


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("abc", "xabcx", "ab c"),
        ("a.c", "a\u2028c", "ac"),
        ("^a|b$", "xb", "bx"),
        ("a{2,3}b", "aab", "ab"),
        ("xa{,2}b$", "xaab", "xaaab"),
        ("a{2}$", "baa", "ba"),
        ("^a{2,}$", "aaaa", "a"),
        (r"function f\(\) {", "function f() {", "function f {"),
        (r"(^|,)a(,|$)", "b,a", "ba"),
        ("^(^|a)?b$|^c", "ab", "ac"),
        ("a{b}{,}{", "a{b}{,}{", "ab"),
        ("x}", "x}", "x"),
        ("[]a-]+x", "]-ax", "bx"),
        ("[^]a]x", "bx", "]x"),
        ("[a&&b]", "&", "c"),
        ("[a-c-]", "-", "d"),
        ("[[:upper:][:digit:]_]x", "_x", "ax"),
        (r"[\w.-]+@", "a.b-c@", " @"),
        (r"[^\s]", "a", " \t"),
        (r"[\]\\\-]", "\\", "a"),
        (r"\bword\b", "a word.", "words"),
        (r"\bдядя\b", "эй дядя.", "дядям"),
        (r"^\w+$", "naïve_日本1", "a-b"),
        (r"^\w+$", "e\u0301", "²"),
        (r"^\d$", "٣", "²"),
        (r"a\sb", "a\u00a0b", "a\x1cb"),
        (r"^\S$", "\x1c", "\u2003"),
        (r"\x41\u00e9\u{1F600}\x{42}\U0001F600", "Aé😀B😀", "A"),
        (r"\"\'\/\@\ \€", "\"'/@ €", "x"),
        (r"a\tb", "a\tb", "atb"),
        ("(?P<name>a)(?<other>b)(?:c)", "abc", "ab"),
        ("(?i)ÉTAT", "état", "etat"),
        ("a+?b*?c??", "ab", "b"),
        ("a|", "", None),
        ("()", "", None),
        (r"\.\*\[\]\(\)\{\}\^\$\|\?\+\\", ".*[](){}^$|?+\\", "."),
        (r"\$(HOME|PWD)", "$PWD", "HOME"),
    ],
)
def test_what_matches_and_what_does_not(pattern: str, yes: str, no: str | None) -> None:
    assert matches(pattern, yes)
    if no is not None:
        assert not matches(pattern, no)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("i", "iI", "\u0130\u0131"),
        ("[i]", "I", "\u0131"),
        ("[a-z]", "I", "\u0130"),
        ("^[^i]$", "\u0130", "I"),
        ("^[^\u0131]$", "i", "\u0131"),
        ("\u0130", "\u0130", "i"),
        (r"[\wi]", "\u0131", " "),
        ("straße", "STRAẞE", "STRASSE"),
        ("k", "\u212a", "x"),
        ("Σ", "ς", "s"),
    ],
)
def test_case(pattern: str, yes: str, no: str) -> None:
    for character in yes if len(yes) == 2 else [yes]:
        assert matches(pattern, character, ignore_case=True)
    for character in no if len(no) == 2 else [no]:
        assert not matches(pattern, character, ignore_case=True)


@pytest.mark.parametrize(
    "pattern", [".", "[^a]", r"\W", r"\S", r"\D", r"[^\w]", r"[\W]", r"[^\d\s]", "[^a-z]", r"[\D\S]", "(?i)[^i]"]
)
def test_a_byte_that_is_no_text_is_no_character(pattern: str) -> None:
    line = b"\xff".decode("utf-8", "surrogateescape")
    assert not matches(pattern, line)
    assert matches(f"^{re.escape('a')}", f"a{line}")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("*a", "nothing to count"),
        ("a**", "nothing to count"),
        ("a++", "nothing to count"),
        ("a{2}{3}", "nothing to count"),
        ("^*", "nothing to count"),
        (r"\b+", "nothing to count"),
        ("(+)", "nothing to count"),
        ("a|?", "nothing to count"),
        ("{2}", "nothing to count"),
        ("a^b", "^ can only stand"),
        ("$^", "^ can only stand"),
        ("a(b|^)", "^ can only stand"),
        (r"\b^", "^ can only stand"),
        ("(^|a)+", "cannot be repeated"),
        ("((^)){2}", "cannot be repeated"),
        (r"\é", r"\é is not supported"),
        ("(a", "is not closed"),
        ("a)", "closes nothing"),
        ("[a", "ends too early"),
        ("[]", "ends too early"),
        ("a\\", "ends too early"),
        ("[z-a]", "must go upwards"),
        (r"[a-\d]", "must go upwards"),
        ("a{3,2}", "must go upwards"),
        (f"a{{{MAX_COUNT + 1}}}", "not past 1000"),
        ("(?=a)", "look-around"),
        ("(?<!a)b", "look-around"),
        ("a(?i)b", "flags inside"),
        ("(?x)a", "flags inside"),
        (r"(a)\1", r"\1 is not supported"),
        (r"\p{L}", r"\p is not supported"),
        (r"\Ba", r"\B is not supported"),
        (r"\Aa\z", r"\A is not supported"),
        (r"\<word\>", r"\< is not supported"),
        (r"a\nb", r"\n is not supported"),
        ("a\nb", "a line break in it"),
        (r"\x0a", "can stand in a line"),
        (r"\u{d800}", "can stand in a line"),
        (r"\x4", "can stand in a line"),
        (r"\u{110000}", "can stand in a line"),
        ("[[:letter:]]", "no class [:letter:]"),
        ("(" * (MAX_DEPTH + 1), "nested deeper"),
        ("a" * (MAX_PATTERN_CHARACTERS + 1), "longer than"),
    ],
)
def test_what_is_refused_and_why(pattern: str, reason: str) -> None:
    with pytest.raises(DialectError) as error:
        translate(pattern, "python")
    assert reason in str(error.value)
    with pytest.raises(DialectError):
        translate(pattern, "rust")


@given(st.text(max_size=30) | st.text("ab()[]{}*+?|^$.\\-,0:i dwsbpxu", max_size=20), st.booleans())
def test_any_text_is_a_pattern_or_one_named_error(pattern: str, ignore_case: bool) -> None:
    try:
        translated = translate(pattern, "python", ignore_case=ignore_case)
    except DialectError:
        with pytest.raises(DialectError):
            translate(pattern, "rust", ignore_case=ignore_case)
        return
    re.compile(translated)
    re.compile(translate(pattern, "python-ascii", ignore_case=ignore_case))


@given(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1, max_size=10))
def test_a_literal_matches_itself(text: str) -> None:
    assert matches(text, f"before {text} after", literal=True)
    assert not matches(text, text[:-1], literal=True)


def test_the_deepest_and_the_longest_compile() -> None:
    assert matches("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH, "a")
    assert matches("a" * MAX_PATTERN_CHARACTERS, "a" * MAX_PATTERN_CHARACTERS)
    assert matches(f"a{{{MAX_COUNT}}}", "a" * MAX_COUNT)
