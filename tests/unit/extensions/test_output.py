"""What is logged of an extension's stderr: bounded, in memory and in lines."""

from __future__ import annotations

import pytest

from nous.extensions import output
from nous.extensions.output import MAX_STDERR_LINE_BYTES, STDERR_BURST_BYTES, LeakyBucket, StderrLog


class RecordingLog:
    """Takes records as :class:`nous.telemetry.log.Log` does."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, /, **fields: object) -> None:
        self.records.append((event, fields))

    warning = info

    def lines(self) -> list[object]:
        return [fields["line"] for event, fields in self.records if event == "extension_stderr"]


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> RecordingLog:
    recording = RecordingLog()
    monkeypatch.setattr(output, "log", recording)
    return recording


def test_lines_wherever_they_are_cut(records: RecordingLog) -> None:
    log = StderrLog("one")
    assert all(log.feed(piece, 0) for piece in (b"a", b"b\nc", b"\n\xff\n", b"end"))
    log.finish(0)
    assert records.lines() == ["ab", "c", "\ufffd", "end"]


def test_a_line_without_end(records: RecordingLog) -> None:
    log = StderrLog("one")
    for _ in range(100):
        log.feed(b"x" * 65536, 0)
    log.feed(b"\nafter\n", 0)
    assert records.lines() == [f"[a line of more than {MAX_STDERR_LINE_BYTES} bytes]", "after"]


def test_a_flood_is_counted_and_then_said(records: RecordingLog) -> None:
    log = StderrLog("one")
    assert not log.feed(b"0123456789\n" * 100_000, 0)
    logged = len(records.lines())
    assert logged == STDERR_BURST_BYTES // 64
    assert log.feed(b"later\n", 60)
    assert records.records[-2] == ("extension_stderr_dropped", {"extension": "one", "lines": 100_000 - logged})
    assert records.lines()[-1] == "later"


def test_the_bucket_leaks() -> None:
    bucket = LeakyBucket(100, 10)
    assert bucket.take(100, 0)
    assert not bucket.take(1, 0)
    assert bucket.take(10, 1)
    assert not bucket.take(1, 1)
