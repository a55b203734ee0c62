"""Bytes to lines, and lines to commands: protocol v1, section 1."""

from __future__ import annotations

import pytest

from nous.protocol.codec import (
    DEFAULT_MAX_LINE_BYTES,
    FREE_LINE_BYTES,
    CommandDecoder,
    LineDecoder,
    Refused,
    TooLong,
    UnfinishedLines,
)
from nous.protocol.commands import Command

PING = b'{"id":"c1","type":"ping"}'
TOO_LONG = TooLong()


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", []),
        (b"\r\n", []),
        (b" \t \n", []),
        (b"\x0b\x0c\n", []),
        (b"\n\n\r\n  \r\n", []),
        (b"a\n", [b"a"]),
        (b"a\r\n", [b"a"]),
        (b"a\r\r\n", [b"a\r"]),
        (b"\ra\n", [b"\ra"]),
        (b"a\rb\n", [b"a\rb"]),
        (b" a \n", [b" a "]),
        (b"a\n\nb\n", [b"a", b"b"]),
        (b"a\x00b\n", [b"a\x00b"]),
        ("a\u2028b\u2029c\u0085d\n".encode(), ["a\u2028b\u2029c\u0085d".encode()]),
        (b"a\x0bb\x0cc\x1cd\x1de\x1e\n", [b"a\x0bb\x0cc\x1cd\x1de\x1e"]),
        ("\u2028\n".encode(), ["\u2028".encode()]),
        ("\ufeffa\n".encode(), ["\ufeffa".encode()]),
        (b"\xff\xfe\n", [b"\xff\xfe"]),
    ],
)
def test_lines_end_at_lf_and_nowhere_else(data: bytes, lines: list[bytes]) -> None:
    decoder = LineDecoder()
    assert decoder.feed(data) == lines
    assert decoder.finish() == []


@pytest.mark.parametrize(
    ("data", "last"),
    [(b"a", [b"a"]), (b"a\r", [b"a"]), (b"\r", []), (b"  ", []), (b"a\nb", [b"b"])],
)
def test_a_last_line_needs_no_lf(data: bytes, last: list[bytes]) -> None:
    decoder = LineDecoder()
    decoder.feed(data)
    assert decoder.finish() == last
    assert decoder.finish() == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"x" * 9, b"x" * 9),
        (b"x" * 10, b"x" * 10),
        (b"x" * 10 + b"\r", b"x" * 10),
        (b"x" * 11, TOO_LONG),
        (b"x" * 11 + b"\r", TOO_LONG),
        (b"x" * 10 + b"\r\r", TOO_LONG),
        (b"x" * 10 + b"\ry", TOO_LONG),
        (b" " * 11, TOO_LONG),
        (b"x" * 1000, TOO_LONG),
    ],
)
@pytest.mark.parametrize("cut", [1, 3, 10, 11, 12, 5000])
def test_the_limit_counts_the_line_without_its_end(line: bytes, expected: bytes | TooLong, cut: int) -> None:
    decoder = LineDecoder(max_line_bytes=10)
    data = line + b"\nnext\n"
    out = [item for start in range(0, len(data), cut) for item in decoder.feed(data[start : start + cut])]
    assert out == [expected, b"next"]
    assert decoder.finish() == []


def test_a_long_line_without_an_lf_is_reported_once_at_the_end() -> None:
    decoder = LineDecoder(max_line_bytes=10)
    for _ in range(5):
        assert decoder.feed(b"x" * 7) == []
    assert decoder.finish() == [TOO_LONG]
    assert decoder.finish() == []
    assert decoder.feed(b"next\n") == [b"next"]


def test_the_default_limit_is_8_mib() -> None:
    assert DEFAULT_MAX_LINE_BYTES == 8 * 1024 * 1024
    whole = b"x" * DEFAULT_MAX_LINE_BYTES
    assert LineDecoder().feed(whole + b"\n") == [whole]
    assert LineDecoder().feed(whole + b"x\n") == [TOO_LONG]


def test_every_line_gets_an_answer_and_the_connection_goes_on() -> None:
    decoder = CommandDecoder(max_line_bytes=200)
    bad = [b"\xff", b"no", b"[]", b"{}", b"x" * 201, b"[" * 65, b'{"id":"c9","type":"nothing"}']
    data = b"\n".join([PING, *(part for line in bad for part in (line, b"", PING))]) + b"\r\n"
    results = list(decoder.feed(data))
    assert [isinstance(r, Command) for r in results] == [True, *([False, True] * len(bad))]
    causes = [(r.id, r.error.cause or r.error.code) for r in results if isinstance(r, Refused)]
    assert causes == [
        ("", "invalid_utf8"),
        ("", "invalid_json"),
        ("", "not_an_object"),
        ("", "missing_id"),
        ("", "line_too_long"),
        ("", "too_deep"),
        ("c9", "unknown_command"),
    ]


def test_the_end_of_the_stream_completes_a_last_command() -> None:
    decoder = CommandDecoder()
    assert list(decoder.feed(PING)) == []
    assert [r.id for r in decoder.finish()] == ["c1"]
    assert list(decoder.finish()) == []


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 1000])
@pytest.mark.parametrize("limit", [len(PING), 1000])
def test_a_byte_order_mark_before_the_first_line_is_skipped(cut: int, limit: int) -> None:
    decoder = CommandDecoder(max_line_bytes=limit)
    data = BOM + PING + b"\r\n" + PING
    results = [r for start in range(0, len(data), cut) for r in decoder.feed(data[start : start + cut])]
    assert [type(r) for r in (*results, *decoder.finish())] == [Command, Command]


def test_a_byte_order_mark_anywhere_else_is_part_of_its_line() -> None:
    decoder = CommandDecoder()
    results = list(decoder.feed(b"\n" + BOM + PING + b"\n" + PING + b"\n"))
    assert [type(r) for r in results] == [Refused, Command]
    assert [type(r) for r in CommandDecoder().feed(BOM + BOM + PING + b"\n")] == [Refused]


@pytest.mark.parametrize("cut", [1, 2])
def test_half_a_byte_order_mark_is_no_command(cut: int) -> None:
    decoder = CommandDecoder()
    assert list(decoder.feed(BOM[:cut])) == []
    assert [type(r) for r in decoder.finish()] == [Refused]
    assert list(CommandDecoder().feed(BOM)) == list(CommandDecoder().finish()) == []


def test_strict_starts_on_the_line_after_the_hello() -> None:
    decoder = CommandDecoder()
    lines = (
        b'{"id":"c1","type":"hello","new":1}\n',
        b'{"id":"c2","type":"ping","new":1}\n',
        b'{"id":"c3","type":"ping"}\n',
    )
    results = []
    for result in decoder.feed(b"".join(lines)):
        results.append(result)
        decoder.strict = True
    assert [type(r) for r in results] == [Command, Refused, Command]
    assert [r.id for r in results] == ["c1", "c2", "c3"]


# -- unfinished lines of many decoders

PIECE = b"x" * (FREE_LINE_BYTES + 1)
GIVEN_UP = TooLong(given_up=True)


def test_the_unfinished_line_that_began_first_is_given_up() -> None:
    lines = UnfinishedLines(3 * len(PIECE))
    first, second, third = (LineDecoder(unfinished=lines) for _ in range(3))
    for decoder in (first, second, third):
        decoder.feed(PIECE)
    assert lines.held_bytes == 3 * len(PIECE)
    second.feed(PIECE)
    assert lines.held_bytes == 3 * len(PIECE)
    assert first.feed(b"more\nnext\n") == [GIVEN_UP, b"next"]
    assert second.feed(b"\n") == [PIECE + PIECE]
    assert third.feed(b"\n") == [PIECE]
    assert lines.held_bytes == 0


def test_short_lines_are_never_given_up() -> None:
    lines = UnfinishedLines(0)
    decoders = [LineDecoder(unfinished=lines) for _ in range(10)]
    for decoder in decoders:
        decoder.feed(PIECE[:-1])
    assert lines.held_bytes == 0
    assert [decoder.feed(b"\n") for decoder in decoders] == [[PIECE[:-1]]] * 10


def test_a_line_past_its_own_limit_and_a_closed_decoder_hold_nothing() -> None:
    lines = UnfinishedLines(10 * len(PIECE))
    decoder = LineDecoder(len(PIECE), lines)
    decoder.feed(PIECE)
    decoder.feed(PIECE)
    assert lines.held_bytes == 0
    assert decoder.feed(b"\n") == [TOO_LONG]
    decoder.feed(PIECE)
    decoder.close()
    decoder.close()
    assert lines.held_bytes == 0


def test_a_line_that_was_given_up_is_refused_as_overload() -> None:
    lines = UnfinishedLines(0)
    decoder = CommandDecoder(unfinished=lines)
    assert list(decoder.feed(PIECE)) == []
    refused, pong = decoder.feed(b"\n" + PING + b"\n")
    assert isinstance(refused, Refused)
    assert (refused.id, refused.error.code) == ("", "overloaded")
    assert isinstance(pong, Command)
