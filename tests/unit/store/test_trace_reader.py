from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from nous.errors import NousError
from nous.store.trace_file import TraceWriter
from nous.store.trace_lines import BrokenTraceError, TraceCounts, TraceEnd
from nous.store.trace_reader import iter_events, iter_line_batches, last_time, open_trace, read_end, read_header, scan
from tests.unit.store.helpers import LATER, NOW, SMALL, effect_line, event, header_line, input_line

MIB = 1024 * 1024
END = TraceEnd(status="completed", ended_at=LATER, counts=TraceCounts(inputs=1, events=3))
ALL = frozenset({"thinking", "tool_arguments"})


def write(tmp_path: Path, lines: list[bytes], torn: bytes = b"") -> Path:
    path = tmp_path / "r1.ndjson"
    path.write_bytes(b"".join(lines) + torn)
    return path


def never_dead(epoch: str) -> bool:
    assert epoch == "e1"
    return False


class TestEvents:
    @pytest.mark.parametrize(
        ("after_seq", "features", "expected"),
        [
            (0, frozenset[str](), [2, 4, 8]),
            (0, ALL, [2, 4, 5, 6, 8]),
            (1, frozenset({"thinking"}), [4, 5, 8]),
            (2, frozenset[str](), [8]),
            (2, ALL, [5, 6, 8]),
            (3, ALL, []),
            (99, ALL, []),
        ],
    )
    def test_what_a_reader_lacks(
        self, tmp_path: Path, after_seq: int, features: frozenset[str], expected: list[int]
    ) -> None:
        path = write(tmp_path, SMALL)
        assert list(iter_events(path, after_seq, features)) == [SMALL[index] for index in expected]

    def test_stops_at_the_end_offset_and_at_the_last_lf(self, tmp_path: Path) -> None:
        path = write(tmp_path, SMALL, event(4)[:-1])
        assert list(iter_events(path))[-1] == SMALL[8]
        for end in range(path.stat().st_size + 10):
            whole = (b"".join(SMALL) + event(4)[:-1])[:end].split(b"\n")[:-1]
            expected = [line + b"\n" for line in whole if line.startswith(b'{"v":"1"') and b"thinking" not in line]
            assert list(iter_events(path, features=frozenset({"tool_arguments"}), end_offset=end)) == expected

    def test_reads_only_what_comes_after(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A page near the end of a long run does not cost the whole file."""
        lines = [header_line("r1")]
        for seq in range(1, 40_001):
            lines.append(event(seq, "x" * 100))
            if seq % 100 == 0:
                lines.append(input_line(seq, seq, data='"' + "y" * 5_000 + '"'))
        path = write(tmp_path, lines)
        size = path.stat().st_size
        read = 0
        real = os.pread

        def counting(fd: int, count: int, offset: int) -> bytes:
            nonlocal read
            data = real(fd, count, offset)
            read += len(data)
            return data

        monkeypatch.setattr(os, "pread", counting)
        assert list(iter_events(path, 39_990)) == [event(seq, "x" * 100) for seq in range(39_991, 40_001)]
        assert read < size / 3
        assert sum(1 for _ in iter_events(path)) == 40_000

    def test_a_missing_trace(self, tmp_path: Path) -> None:
        with pytest.raises(NousError) as caught:
            list(iter_events(tmp_path / "no.ndjson"))
        assert caught.value.code == "run_not_found"

    def test_an_unreadable_trace(self, tmp_path: Path) -> None:
        with pytest.raises(NousError) as caught:
            list(iter_events(tmp_path))
        assert caught.value.code == "io_failure"

    def test_leaving_early_closes_the_file(self, tmp_path: Path) -> None:
        before = len(list(Path("/dev/fd").iterdir()))
        events = iter_events(write(tmp_path, SMALL))
        next(events)
        del events
        assert len(list(Path("/dev/fd").iterdir())) == before


class TestHugeLines:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """A trace whose second line has a thousand million bytes (and hardly any on disk)."""
        path = write(tmp_path, SMALL[:1])
        os.truncate(path, 1_000_000_000)
        return path

    def test_are_reported_and_not_held(self, path: Path) -> None:
        tracemalloc.start()
        try:
            with pytest.raises(BrokenTraceError) as caught:
                list(iter_line_batches(path, max_line_bytes=4 * MIB))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 10 * MIB
        assert (caught.value.code, caught.value.offset) == ("verification_failed", len(SMALL[0]))
        assert caught.value.cause == f"r1.ndjson, byte {len(SMALL[0])}: a line is longer than {4 * MIB} bytes"

    def test_by_default_too(self, path: Path) -> None:
        with pytest.raises(BrokenTraceError):
            list(iter_events(path))

    def test_as_a_header(self, path: Path) -> None:
        path.write_bytes(b"")
        os.truncate(path, 1_000_000_000)
        for read in (read_header, lambda huge: scan(huge, never_dead)):
            with pytest.raises(BrokenTraceError):
                read(path)

    def test_do_not_keep_a_summary_from_being_made(self, path: Path) -> None:
        assert scan(path, never_dead).status == "running"


class TestScan:
    def test_a_closed_trace(self, tmp_path: Path) -> None:
        writer = TraceWriter.create(tmp_path, "r1")
        writer.append(b"".join(SMALL))
        writer.close(END)
        summary = scan(tmp_path / "r1.ndjson", never_dead)
        assert (summary.status, summary.events, summary.ended_at) == ("completed", 3, LATER)
        header = summary.header
        assert (header.run_id, header.session_id, header.epoch, header.created_at) == ("r1", "s1", "e1", NOW)
        assert header.trace_version == 1

    @pytest.mark.parametrize(
        ("lines", "torn", "events"),
        [
            (SMALL, b"", 3),
            (SMALL[:1], b"", 0),
            (SMALL[:2], b"", 0),
            (SMALL[:7], b"", 2),
            (SMALL[:8], event(3)[:-1], 2),
            (SMALL, b'{"type":"trace.end","status":"completed"', 3),
        ],
    )
    def test_an_open_trace(self, tmp_path: Path, lines: list[bytes], torn: bytes, events: int) -> None:
        path = write(tmp_path, lines, torn)
        running = scan(path, never_dead)
        assert (running.status, running.events, running.ended_at) == ("running", events, None)
        assert scan(path, lambda epoch: epoch == "e1").status == "interrupted"

    def test_every_cut_of_a_closed_trace(self, tmp_path: Path) -> None:
        writer = TraceWriter.create(tmp_path, "r1")
        writer.append(b"".join(SMALL))
        writer.close(END)
        path = tmp_path / "r1.ndjson"
        data = path.read_bytes()
        for cut in range(len(SMALL[0]), len(data)):
            path.write_bytes(data[:cut])
            summary = scan(path, never_dead)
            assert summary.status == "running"
            assert summary.events == sum(data[:cut].count(line) for line in (SMALL[2], SMALL[4], SMALL[8]))

    @pytest.mark.parametrize("gap", [0, 60_000, 65_536, 70_000, 200_000])
    def test_the_last_event_is_found_behind_much_else(self, tmp_path: Path, gap: int) -> None:
        for nudge in range(0, 700, 50):
            filler = input_line(1, 7, data='"' + "z" * (gap + nudge) + '"')
            path = write(tmp_path, [header_line("r1"), event(6), event(7), filler], b'{"torn' * 20_000)
            assert scan(path, never_dead).events == 7

    @pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", event(1), header_line("r1")[:-1], b"\xff\n", b'"x"\n'])
    def test_what_is_no_trace(self, tmp_path: Path, content: bytes) -> None:
        path = write(tmp_path, [content])
        for read in (read_header, lambda broken: scan(broken, never_dead)):
            with pytest.raises(BrokenTraceError) as caught:
                read(path)
            assert caught.value.offset == 0

    def test_a_missing_trace(self, tmp_path: Path) -> None:
        with pytest.raises(NousError) as caught:
            scan(tmp_path / "no.ndjson", never_dead)
        assert caught.value.code == "run_not_found"

    @pytest.mark.parametrize(
        "last",
        [
            b'{"type":"trace.end"}\n',
            b'{"type":"trace.end","status":"completed","sha256":"00"}\n',
            b'{"type":"trace.end","status":1,"ended_at":"x","counts":{},"sha256":"00"}\n',
            b'{"type":"trace.end","status":"completed","ended_at":"x","counts":{},"sha256":"00"} \n',
        ],
    )
    def test_what_is_no_end(self, tmp_path: Path, last: bytes) -> None:
        path = write(tmp_path, [*SMALL, last])
        assert scan(path, never_dead).status == "running"


def test_last_time_is_that_of_the_last_stamped_line() -> None:
    assert last_time([]) is None
    assert last_time([header_line("r1"), effect_line(1)]) is None
    assert last_time([input_line(1, 0, LATER), event(1), effect_line(2)]) == NOW
    assert last_time([event(1), input_line(1, 0, LATER)]) == LATER


def test_open_trace_closes(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    with open_trace(path) as fd:
        assert read_end(fd, path.stat().st_size) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
