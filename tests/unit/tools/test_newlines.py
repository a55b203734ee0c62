"""Editing without minding newlines: what is replaced is what was meant, and nothing else changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nous.tools.newlines import NewlineText, Replaced, replace_spans

texts = st.text(st.sampled_from("ab\n\r"), max_size=20)
mixed = st.lists(st.sampled_from(["a", "b", "\n", "\r\n", "\r"]), max_size=20).map("".join)
plain = st.text(st.sampled_from("ab\n"), min_size=1, max_size=4)


def replace_all(text: str, wanted: str, new: str) -> str:
    newlines = NewlineText(text)
    return replace_spans(text, [newlines.replacement(at, wanted, new) for at in newlines.find_all(wanted)])


def lf(text: str) -> str:
    return text.replace("\r\n", "\n")


@given(texts, plain, plain)
def test_seen_with_plain_newlines_it_is_a_plain_replacement(text: str, wanted: str, new: str) -> None:
    changed = replace_all(text, wanted, new)
    # A CR before what became an LF joins with it: two halves of different origin.
    if "\r" not in lf(text):
        assert lf(changed) == lf(text).replace(wanted, new)


@given(plain, plain, plain)
def test_a_file_of_one_kind_stays_of_one_kind(text: str, wanted: str, new: str) -> None:
    crlf = text.replace("\n", "\r\n")
    changed = replace_all(crlf, wanted, new)
    if "\n" in text:
        assert changed == text.replace(wanted, new).replace("\n", "\r\n")
    assert replace_all(text, wanted, new) == text.replace(wanted, new)


@given(mixed, plain, plain)
def test_what_is_around_the_replaced_stays_as_it_was(text: str, wanted: str, new: str) -> None:
    newlines = NewlineText(text)
    at = 0
    for place in newlines.find_all(wanted):
        replaced = newlines.replacement(place, wanted, new)
        assert at <= replaced.start <= replaced.end
        assert lf(text[replaced.start : replaced.end]) == wanted
        at = replaced.end


@given(texts, plain)
def test_unique_means_at_one_place_overlaps_counted(text: str, wanted: str) -> None:
    seen = lf(text)
    places = [at for at in range(len(seen)) if seen.startswith(wanted, at)]
    assert NewlineText(text).is_unique(wanted) == (len(places) == 1)


def test_new_newlines_are_of_the_kind_that_stood_there() -> None:
    text = "a\r\nb\nc\nd\n"
    assert replace_all(text, "a\nb", "1\n2\n3") == "1\r\n2\r\n3\nc\nd\n"
    assert replace_all(text, "c\n", "1\n2\n") == "a\r\nb\n1\n2\nd\n"
    assert replace_all(text, "c", "1\n2") == "a\r\nb\n1\n2\nd\n"
    assert replace_all("a\r\nb\r\nc\n", "c", "1\n2") == "a\r\nb\r\n1\r\n2\n"
    assert replace_all("abc", "b", "1\n2") == "a1\n2c"


def test_replace_spans() -> None:
    assert replace_spans("abcdef", [Replaced(1, 2, "X"), Replaced(4, 4, "Y"), Replaced(5, 6, "")]) == "aXcdYe"
    assert replace_spans("abc", []) == "abc"
