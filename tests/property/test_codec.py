"""Any bytes, cut anywhere: the same commands or named errors, never an exception, bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nous.errors import WIRE_CODES
from nous.protocol.codec import (
    DEFAULT_MAX_LINE_BYTES,
    MAX_DEPTH,
    CommandDecoder,
    LineDecoder,
    Refused,
    TooLong,
    decode_command,
)
from nous.protocol.commands import COMMANDS, FIELDS, Command

LIMIT = 64

INVALID_COMMAND_CAUSES = {
    "invalid_json",
    "invalid_utf8",
    "not_an_object",
    "duplicate_key",
    "too_deep",
    "invalid_version",
    "missing_id",
    "missing_type",
    "unknown_command",
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["1", "all", "c1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
field_names = st.sampled_from(sorted({name for names in FIELDS.values() for name in names}))
payloads = st.dictionaries(field_names | st.text(max_size=3), json_values | st.text(min_size=1), max_size=4)
envelopes = st.fixed_dictionaries(
    {"id": st.text(min_size=1, max_size=8) | json_values, "type": st.sampled_from(sorted(COMMANDS)) | json_values},
    optional={"v": st.sampled_from(["1", 1]) | json_values, "payload": payloads | json_values, "meta": json_values},
)
json_lines = st.builds(
    lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"),
    envelopes | json_values,
    st.booleans(),
)
# What a line breaks on: pieces of JSON and of UTF-8, put together in any way.
pieces = st.lists(
    st.sampled_from([b"{", b"}", b"[", b"]", b'"', b"\\", b'\\"', b"\\u", b"d800", b":", b",", b'"id"', b'"type"'])
    | st.sampled_from([b'"ping"', b'"v"', b"1", b"null", b" ", b"\xff", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\x00"])
    | st.binary(max_size=3),
    max_size=40,
).map(b"".join)
lines = json_lines | pieces | st.binary(max_size=2 * LIMIT)
streams = st.lists(lines | st.sampled_from([b"\n", b"\r\n", b"\r", b"  "]), max_size=12).map(b"\n".join)


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Return bytes, and the same bytes in pieces."""
    data = draw(streams)
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=20))
    edges = [0, *sorted(cuts), len(data)]
    return data, [data[start:end] for start, end in pairwise(edges)]


def comparable(result: Command | Refused) -> tuple[Any, ...]:
    if isinstance(result, Command):
        return result.id, result.payload, result.raw_payload
    return result.id, result.error.code, result.error.cause


def decode_all(chunks: list[bytes], max_line_bytes: int, strict: bool) -> list[tuple[Any, ...]]:
    decoder = CommandDecoder(max_line_bytes)
    decoder.strict = strict
    results = [result for chunk in chunks for result in decoder.feed(chunk)]
    return [comparable(result) for result in (*results, *decoder.finish())]


@given(lines, st.booleans())
@example(b'{"id":"a","type":"ping","payload":{"\\ud800":1}}', True)
@example(b'"' + b'\\"' * 2000, False)
def test_any_line_is_a_command_or_a_named_error(line: bytes, strict: bool) -> None:
    result = decode_command(line, strict=strict)
    if isinstance(result, Refused):
        assert result.error.code in ("invalid_command", "invalid_payload")
        assert result.error.code in WIRE_CODES
        assert result.error.cause is not None
        if result.error.code == "invalid_command":
            assert result.error.cause in INVALID_COMMAND_CAUSES
    else:
        assert result.id
        assert type(result.payload) is COMMANDS[result.type]


@given(cut_streams(), st.sampled_from([1, 10, LIMIT, 10_000]), st.booleans())
def test_cut_anywhere_the_same_bytes_give_the_same_results(
    stream: tuple[bytes, list[bytes]], max_line_bytes: int, strict: bool
) -> None:
    data, chunks = stream
    assert decode_all(chunks, max_line_bytes, strict) == decode_all([data], max_line_bytes, strict)


@given(cut_streams(), st.sampled_from([1, 10, LIMIT, 10_000]))
def test_lines_are_what_stands_between_lfs(stream: tuple[bytes, list[bytes]], limit: int) -> None:
    data, chunks = stream
    expected: list[bytes | TooLong] = []
    for line in (whole.removesuffix(b"\r") for whole in data.split(b"\n")):
        if len(line) > limit:
            expected.append(TooLong())
        elif line.strip(b" \t\r\n\x0b\x0c"):
            expected.append(line)
    decoder = LineDecoder(limit)
    got = [line for chunk in chunks for line in decoder.feed(chunk)]
    assert [*got, *decoder.finish()] == expected


def strict_json(line: bytes) -> Any:
    """Decode with another library, as strictly as it can."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    return json.loads(line.decode("utf-8"), parse_constant=refuse)


@given(json_lines | pieces)
def test_nothing_is_accepted_that_another_library_would_refuse(line: bytes) -> None:
    result = decode_command(line)
    if isinstance(result, Command):
        envelope = strict_json(line)
        assert envelope["id"] == result.id
        assert envelope["type"] == result.type
        assert type(envelope.get("v", "1")) in (str, int)
        assert str(envelope.get("v", "1")) == "1"


@given(st.text(min_size=1), st.sampled_from(sorted(COMMANDS)), payloads, st.booleans())
def test_what_a_client_writes_is_what_is_read(command_id: str, kind: str, payload: Any, ascii_only: bool) -> None:
    line = json.dumps({"v": "1", "id": command_id, "type": kind, "payload": payload}, ensure_ascii=ascii_only)
    result = decode_command(line.encode("utf-8", "surrogatepass"))
    assert result.id in (command_id, "")
    if isinstance(result, Command):
        assert (result.id, result.type) == (command_id, kind)
        known = {name: value for name, value in payload.items() if name in FIELDS[kind] and value is not None}
        assert all(getattr(result.payload, name) is not None for name in known)


@given(json_values, st.integers(1, 2 * MAX_DEPTH), st.sampled_from(["[%s]", '{"a":%s}', '[0,"[",%s]']))
def test_only_what_nests_past_the_limit_is_too_deep(leaf: Any, depth: int, wrapping: str) -> None:
    inner = json.dumps(leaf, allow_nan=True).replace("NaN", "0").replace("-Infinity", "0").replace("Infinity", "0")
    for _ in range(depth):
        inner = wrapping.replace("%s", inner)
    result = decode_command(b'{"id":"c1","type":"ping","meta":%b}' % inner.encode())
    too_deep = isinstance(result, Refused) and result.error.cause == "too_deep"
    assert too_deep == (1 + depth + depth_of(leaf) > MAX_DEPTH)
    assert result.id == "c1" or not too_deep


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((depth_of(child) for child in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((depth_of(child) for child in value), default=0)
    return 0


@pytest.mark.parametrize("chunk_bytes", [1, 17, 4096])
def test_a_line_past_the_limit_takes_no_more_memory_than_the_limit(chunk_bytes: int) -> None:
    """However small the pieces it comes in: a list of them would be many times as large as their bytes."""
    limit = 256 * 1024
    decoder = LineDecoder(limit)
    chunk = b"x" * chunk_bytes
    tracemalloc.start()
    try:
        for _ in range(2 * limit // chunk_bytes):
            decoder.feed(chunk)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        for _ in range(2 * limit // chunk_bytes):
            decoder.feed(chunk)
        skipping = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * limit
    assert skipping < 64 * 1024
    assert decoder.feed(b"\nnext\n") == [TooLong(), b"next"]


def test_a_gigabyte_without_an_lf_is_one_error() -> None:
    decoder = CommandDecoder()
    chunk = b"[" * (1024 * 1024)
    tracemalloc.start()
    try:
        for _ in range(1024):
            assert list(decoder.feed(chunk)) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * 1024 * 1024
    results = list(decoder.feed(b'\n{"id":"c1","type":"ping"}\n'))
    assert [comparable(result)[:2] for result in results[:1]] == [("", "line_too_long")]
    assert [result.id for result in results] == ["", "c1"]


@pytest.mark.full
@pytest.mark.parametrize(
    ("unit", "accepted"),
    [
        (b"[],", True),
        (b'"",', True),
        (b'{"":"\\\\"},', True),
        (b'"\\u0041",', True),
        (b'"a":', False),
        (b'"\\"', False),
        (b'\\"', False),
        (b'" \t', False),
        (b"[]]", False),
        (b"}", False),
    ],
)
def test_the_worst_lines_of_the_default_length_are_answered(unit: bytes, accepted: bool) -> None:
    """A scan that is not linear would not come back from these."""
    decoder = CommandDecoder()
    body = unit * ((DEFAULT_MAX_LINE_BYTES - 100) // len(unit))
    results = list(decoder.feed(b'{"id":"c1","type":"ping","meta":[%b0]}\n' % body))
    assert [isinstance(result, Command) for result in results] == [accepted]
