"""Bytes as text: what is binary, what names look like."""

from __future__ import annotations

import os

import pytest

from nous.tools.failure import ToolFailure, describe, quoted
from nous.tools.text import SNIFFED_BYTES, decode, encode, looks_binary, printable_name, read_bytes


def test_a_nul_near_the_beginning_is_binary() -> None:
    assert looks_binary(b"a" * (SNIFFED_BYTES - 1) + b"\0")
    assert not looks_binary(b"a" * SNIFFED_BYTES + b"\0")
    assert not looks_binary(b"\xff\x01\x1b")


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    assert decode(b"a\xff\xc3") == "a\ufffd\ufffd"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain é\u2028.txt", "plain é\u2028.txt"),
        (os.fsdecode(b"bad\xff\xe9"), "bad\ufffd\ufffd"),
        ("a\nb\x1b[31m\x7f", "a\\x0ab\\x1b[31m\\x7f"),
    ],
)
def test_names_stand_on_one_line_and_can_be_encoded(name: str, shown: str) -> None:
    assert printable_name(name) == shown
    printable_name(name).encode()


def test_what_has_a_lone_surrogate_is_refused() -> None:
    assert encode("é", "content") == b"\xc3\xa9"
    with pytest.raises(ToolFailure, match="`content` has a lone surrogate"):
        encode("\ud800", "content")


def test_read_bytes_reads_up_to_the_limit() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"abcdef")
    assert read_bytes(reading, 4) == b"abcd"
    os.close(writing)
    assert read_bytes(reading, 100) == b"ef"
    os.close(reading)


def test_failures_quote_what_was_given() -> None:
    assert quoted('a"b') == '"a"b"'
    assert len(quoted("x" * 1000)) < 310
    assert str(describe("given", FileNotFoundError(2, "x", "/elsewhere"))) == '"given": No such file or directory.'
    assert str(describe("given", OSError("odd"))) == '"given": OSError.'
