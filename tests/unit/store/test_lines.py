from __future__ import annotations

import os
from itertools import takewhile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.store.disk import Disk
from nous.store.lines import CHUNK_BYTES, LineTooLongError, read_first_line, read_lines


class MemoryDisk(Disk):
    """Reads from bytes instead of a file, and remembers how much at once."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.largest = 0

    def read_at(self, fd: int, count: int, offset: int) -> bytes:
        self.largest = max(self.largest, count)
        return self.data[offset : offset + count]


def collect(data: bytes, limit: int, start: int = 0, end: int | None = None) -> tuple[list[bytes], int | None]:
    """Return the lines, and the offset of the line that was too long."""
    lines: list[bytes] = []
    try:
        for batch in read_lines(MemoryDisk(data), -1, start, len(data) if end is None else end, limit):
            lines.extend(batch)
    except LineTooLongError as error:
        return lines, error.offset
    return lines, None


def lines_of(data: bytes, limit: int, start: int = 0, end: int | None = None) -> list[bytes]:
    lines, too_long = collect(data, limit, start, end)
    assert too_long is None
    return lines


@given(st.binary(max_size=200).map(lambda data: data.replace(b"\x01", b"\n")), st.integers(1, 60))
def test_any_bytes_and_any_limit(data: bytes, limit: int) -> None:
    """Every line up to the last LF comes whole and in order; the first that is too long is named by its offset."""
    *whole, tail = data.split(b"\n")
    fitting = list(takewhile(lambda line: len(line) <= limit, [*whole, tail]))
    if len(fitting) == len(whole) + 1:
        assert collect(data, limit) == (whole, None)
        return
    got, offset = collect(data, limit)
    assert offset == sum(len(line) + 1 for line in fitting)
    assert got == fitting


@given(st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"")), max_size=9), st.data())
def test_start_and_end(lines: list[bytes], data: st.DataObject) -> None:
    blob = b"".join(line + b"\n" for line in lines)
    first = data.draw(st.integers(0, len(lines)))
    start = sum(len(line) + 1 for line in lines[:first])
    end = data.draw(st.integers(start, len(blob)))
    complete = blob[start:end].split(b"\n")[:-1]
    assert lines_of(blob, 100, start, end) == complete


@given(st.binary(max_size=30).map(lambda data: data.replace(b"\x01", b"\n")), st.integers(1, 40), st.integers(0, 9000))
def test_the_first_line_alone(data: bytes, limit: int, more: int) -> None:
    """Of any length, also over several reads, and never past the limit."""
    data = b"f" * more + data
    limit += more if limit > 20 else 0
    line, newline, _ = data.partition(b"\n")
    if len(line) > limit:
        with pytest.raises(LineTooLongError) as caught:
            read_first_line(MemoryDisk(data), -1, len(data), limit)
        assert caught.value.offset == 0
    else:
        assert read_first_line(MemoryDisk(data), -1, len(data), limit) == (line if newline else None)


def test_the_first_line_is_read_without_the_rest() -> None:
    disk = MemoryDisk(b"first\n" + b"x" * 10_000_000)
    assert read_first_line(disk, -1, len(disk.data), 1000) == b"first"
    assert disk.largest < 10_000


def test_only_lf_ends_a_line() -> None:
    text = "a\rb\x0bc\x0cd\x1ce\x85f\u2028g\u2029h".encode()
    assert lines_of(text + b"\n", 1000) == [text]


def test_a_file_that_ends_early_ends_the_lines() -> None:
    assert lines_of(b"a\nb\n", 10, end=4000) == [b"a", b"b"]


def test_reads_chunks_of_real_files(tmp_path: Path) -> None:
    lines = [b"%d" % n * (1 + n % 7) for n in range(300_000)]
    path = tmp_path / "f"
    path.write_bytes(b"\n".join(lines) + b"\ntorn")
    fd = os.open(path, os.O_RDONLY)
    try:
        batches = list(read_lines(Disk(), fd, 0, path.stat().st_size, 100 * CHUNK_BYTES))
    finally:
        os.close(fd)
    assert len(batches) > 3
    assert [line for batch in batches for line in batch] == lines


def test_never_asks_for_more_than_a_chunk() -> None:
    disk = MemoryDisk(b"x\n" * CHUNK_BYTES)
    assert sum(len(batch) for batch in read_lines(disk, -1, 0, len(disk.data), 1 << 40)) == CHUNK_BYTES
    assert disk.largest == CHUNK_BYTES
