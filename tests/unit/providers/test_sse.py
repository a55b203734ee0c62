"""Server-sent events: lines, fields, chunking, bounds."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.errors import NousError
from nous.providers.sse import SseParser


def parse(*chunks: bytes) -> list[bytes]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\r\n\r\ndata: b\r\r", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\rdata: b\r\n\n", [b"a\nb"]),
        (b"data\ndata: b\n\n", [b"\nb"]),
        (b"data\n\n", []),
        (b"data:\n\n", []),
        (b": comment\n\ndata: a\n\n", [b"a"]),
        (b"event: x\nid: 1\nretry: 5\ndata: a\n\n", [b"a"]),
        (b"event: x\n\ndata: a\n\n", [b"a"]),
        (b"database: no\ndata : no\nDATA: no\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"\n\xef\xbb\xbfdata: a\n\ndata: b\n\n", [b"b"]),
        (b"data: a\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
        (b"data: a\n", []),
        (b"data: a", []),
        (b"\n\n\n", []),
        ("data: a\u2028b\x0bc\x85d\x1e\n\n".encode(), ["a\u2028b\x0bc\x85d\x1e".encode()]),
        (b"data: \xff\x00\n\n", [b"\xff\x00"]),
    ],
)
def test_reads_what_the_standard_says_cut_at_every_byte(stream: bytes, events: list[bytes]) -> None:
    assert parse(stream) == events
    for cut in range(len(stream) + 1):
        assert parse(stream[:cut], b"", stream[cut:]) == events
    assert parse(*(bytes([byte]) for byte in stream)) == events


def reference(stream: bytes) -> list[bytes]:
    """The standard's algorithm, written for plainness."""
    *lines, _unfinished = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))
    events, data = [], None
    for line in lines:
        name, _, value = line.partition(b":")
        if not line:
            if data:
                events.append(data)
            data = None
        elif name == b"data":
            value = value.removeprefix(b" ")
            data = value if data is None else data + b"\n" + value
    return events


PIECES = st.sampled_from(
    [b"data", b":", b" ", b"\r", b"\n", b"\r\n", b"x", b"\xef\xbb\xbf", b"\xc3", b"data: y\n\n", b"id: 1"]
)


@given(st.lists(PIECES, max_size=30), st.data())
def test_any_chunking_gives_the_same_events(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parse(*chunks) == reference(stream)


def feed_all(parser: SseParser, chunks: list[bytes], seen: list[bytes]) -> None:
    for chunk in chunks:
        seen += parser.feed(chunk)


@pytest.mark.parametrize(
    "long",
    [b"data: " + b"x" * 40, b": " + b"x" * 40, b"data: x\n" * 6, b"\n".join([b"id: 1"] * 10) + b"\n"],
    ids=["data", "comment", "many-lines", "no-data"],
)
def test_an_event_past_the_limit_fails_after_those_before_it_however_it_is_cut(long: bytes) -> None:
    stream = b"data: ok\n\n" + long + b"\n\ndata: never\n\n"
    for size in range(1, len(stream) + 1):
        parser = SseParser(max_event_bytes=32)
        seen: list[bytes] = []
        with pytest.raises(NousError) as caught:
            feed_all(parser, [stream[start : start + size] for start in range(0, 2 * len(stream), size)], seen)
        assert seen == [b"ok"]
        assert caught.value.code == "provider_error"


def test_an_event_at_the_limit_passes() -> None:
    line = b"data: " + b"x" * 26
    assert SseParser(max_event_bytes=32).feed(line + b"\n\n") == [b"x" * 26]


def test_a_long_event_in_small_reads_is_not_copied_again_and_again() -> None:
    parser = SseParser()
    piece = b"x" * 1024
    parser.feed(b"data: ")
    for _ in range(4096):
        assert parser.feed(piece) == []
    assert parser.feed(b"\n\n") == [piece * 4096]
