"""Text that can go out, and in pieces that fit."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.protocol.text import clean, split_text

any_text = st.text(st.characters() | st.characters(categories=["Cs"]))
HIGH, LOW = "\ud83d", "\ude00"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("", ""),
        ("plain", "plain"),
        ("\ufeffmark", "\ufeffmark"),
        ("\ufeff" + HIGH, "\ufeff\ufffd"),
        (HIGH + LOW, "\U0001f600"),
        (HIGH, "\ufffd"),
        (LOW, "\ufffd"),
        (LOW + HIGH, "\ufffd\ufffd"),
        (HIGH + HIGH + LOW, "\ufffd\U0001f600"),
        (f"a{HIGH}b{LOW}c", "a\ufffdb\ufffdc"),
    ],
)
def test_halves_are_joined_or_replaced(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def joined_halves(high: str, low: str) -> str:
    return chr(0x10000 + ((ord(high) - 0xD800) << 10) + (ord(low) - 0xDC00))


@given(any_text)
def test_cleaned_text_can_be_encoded_and_loses_nothing_else(text: str) -> None:
    joined = re.sub(
        "[\ud800-\udbff][\udc00-\udfff]", lambda m: m[0].encode("utf-16", "surrogatepass").decode("utf-16"), text
    )
    assert clean(text) == re.sub("[\ud800-\udfff]", "\ufffd", joined)
    assert clean(text).encode("utf-8").decode("utf-8") == clean(text)


@pytest.mark.parametrize(
    ("text", "max_bytes", "pieces"),
    [
        ("", 10, []),
        ("abc", 12, ["abc"]),
        ("abcdef", 4, ["abcd", "ef"]),
        ("abcdefgh", 4, ["abcd", "efgh"]),
        ("aéb€c", 4, ["aéb", "€c"]),
        ("\U0001f600\U0001f600", 7, ["\U0001f600", "\U0001f600"]),
        ("\U0001f600a", 1, ["\U0001f600", "a"]),
        ("a\u2028b", 4, ["a\u2028", "b"]),
    ],
)
def test_text_is_split_at_characters(text: str, max_bytes: int, pieces: list[str]) -> None:
    assert list(split_text(text, max_bytes)) == pieces


@given(st.text(), st.integers(4, 40))
def test_pieces_fit_and_join_to_the_text(text: str, max_bytes: int) -> None:
    pieces = list(split_text(text, max_bytes))
    assert "".join(pieces) == text
    assert all(0 < len(piece.encode()) <= max_bytes for piece in pieces)
