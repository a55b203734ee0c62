"""Text that may leave: surrogates joined or replaced, long pieces split."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.ports.model import MAX_DELTA_BYTES
from nous.providers.text import MAX_PIECE_CHARS, TextChannel, clean, clean_pieces


@pytest.mark.parametrize(
    ("deltas", "pieces"),
    [
        (["a", "b"], ["a", "b"]),
        (["", "a", ""], ["a"]),
        (["a\ud83d", "\ude00b"], ["a", "\U0001f600b"]),
        (["\ud83d", "\ude00"], ["\U0001f600"]),
        (["\ud83d", "", "\ude00"], ["\U0001f600"]),
        (["a\ud83d"], ["a", "\ufffd"]),
        (["a\ud83d", "b"], ["a", "\ufffdb"]),
        (["\ude00a"], ["\ufffda"]),
        (["\ud83d\ud83d", "\ude00"], ["\ufffd", "\U0001f600"]),
        (["\ud83d", "\ud83d"], ["\ufffd", "\ufffd"]),
        (["a\ud83d\ude00b"], ["a\U0001f600b"]),
        (["\ude00\ud83d"], ["\ufffd", "\ufffd"]),
    ],
)
def test_half_pairs(deltas: list[str], pieces: list[str]) -> None:
    assert clean_pieces(deltas) == pieces


def reference(text: str) -> str:
    """Pairs joined, every other surrogate replaced, character by character."""
    out: list[str] = []
    for char in text:
        if "\udc00" <= char <= "\udfff" and out and "\ud800" <= out[-1] <= "\udbff":
            out[-1] = chr(0x10000 + ((ord(out[-1]) - 0xD800) << 10) + (ord(char) - 0xDC00))
        else:
            out.append(char)
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in out)


CHARS = st.sampled_from(
    ["a", "\xfc", "\u2028", "\U0001f600", "\ud800", "\ud83d", "\udbff", "\udc00", "\ude00", "\udfff"]
)


@given(st.lists(st.lists(CHARS, max_size=4).map("".join), max_size=8))
def test_joined_output_does_not_depend_on_the_cuts(deltas: list[str]) -> None:
    whole = "".join(deltas)
    assert "".join(clean_pieces(deltas)) == reference(whole)
    assert all(clean_pieces(deltas))


@pytest.mark.parametrize("char", ["a", "\x01", '"', "\xfc", "\U0001f600"])
def test_no_piece_is_longer_than_a_line_can_carry_even_escaped(char: str) -> None:
    text = char * (2 * MAX_PIECE_CHARS + 1)
    pieces = TextChannel().feed(text)
    assert "".join(pieces) == text
    assert len(pieces) == 3
    assert all(len(msgspec.json.encode(piece)) <= MAX_DELTA_BYTES + 2 for piece in pieces)
    assert all(len(piece.encode()) <= MAX_DELTA_BYTES for piece in pieces)


@given(st.text(st.characters(categories=("Cs", "L", "So"))))
def test_whole_text_keeps_all_but_lone_surrogates(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.encode() == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
    assert clean(cleaned) == cleaned
