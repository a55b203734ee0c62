"""Places in small traces; any trace and any window is for tests/property/test_store.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from nous.store.trace_seek import find_start, last_seq, whole_lines_end
from tests.unit.store.helpers import event, header_line, thinking

HEAD = header_line("r1")


@pytest.mark.parametrize("window_bytes", [1, 100, 65536])
def test_feature_events_after_the_last_one_seen_are_not_skipped(tmp_path: Path, window_bytes: int) -> None:
    first = HEAD + event(1)
    blob = first + b"".join(thinking(1, k) for k in range(50)) + event(2)
    with (tmp_path / "f").open("w+b") as file:
        file.write(blob)
        file.flush()
        assert find_start(file.fileno(), 1, len(blob), window_bytes) <= len(first)
        assert find_start(file.fileno(), 2, len(blob), window_bytes) <= len(blob) - len(event(2))
        assert find_start(file.fileno(), 0, len(blob), window_bytes) == 0


@pytest.mark.parametrize("window_bytes", [1, 100, 65536])
@pytest.mark.parametrize(
    ("blob", "end", "seq"),
    [
        (b"", 0, 0),
        (b"no line", 0, 0),
        (HEAD, len(HEAD), 0),
        (HEAD + event(1) + event(2) + b"torn", len(HEAD + event(1) + event(2)), 2),
        (HEAD + event(1) + b'{"v":"1","id":"strange"}\n', len(HEAD + event(1)) + 25, 1),
        (HEAD + event(12) + thinking(12, 3), len(HEAD + event(12) + thinking(12, 3)), 12),
    ],
)
def test_the_end_and_the_last_event(tmp_path: Path, window_bytes: int, blob: bytes, end: int, seq: int) -> None:
    with (tmp_path / "f").open("w+b") as file:
        file.write(blob)
        file.flush()
        assert whole_lines_end(file.fileno(), len(blob), window_bytes) == end
        assert last_seq(file.fileno(), end, window_bytes) == seq
