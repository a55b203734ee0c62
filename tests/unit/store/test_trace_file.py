from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.errors import NousError
from nous.store.disk import Disk
from nous.store.faults import FaultyDisk, until_none_fires
from nous.store.trace_file import TraceWriter
from nous.store.trace_lines import MAX_TRACE_LINE_BYTES, TraceCounts, TraceEnd
from nous.store.trace_reader import iter_line_batches
from tests.unit.store.helpers import LATER, Tolerated, header_line, unsealed

END = TraceEnd(status="completed", ended_at=LATER, counts=TraceCounts(inputs=1, events=2, effects=3))


def test_a_trace_is_private_and_exclusive(tmp_path: Path) -> None:
    writer = TraceWriter.create(tmp_path, "r1")
    path = tmp_path / "r1.ndjson"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    writer.append(b"one\n")
    with pytest.raises(NousError) as caught:
        TraceWriter.create(tmp_path, "r1")
    assert (caught.value.code, caught.value.cause) == ("io_failure", "r1.ndjson: File exists")
    assert path.read_bytes() == b"one\n"
    writer.release()


def test_a_line_that_no_reader_takes_is_not_written(tmp_path: Path) -> None:
    writer = TraceWriter.create(tmp_path, "r1")
    writer.append(header_line("r1"))
    offset = writer.offset
    longest = b"x" * MAX_TRACE_LINE_BYTES + b"\n"
    with pytest.raises(NousError, match="longer than a trace may hold"):
        writer.append(b"first\nx" + longest)
    assert writer.offset == offset
    writer.append(b"first\n" + longest)
    assert [len(line) for lines in iter_line_batches(tmp_path / "r1.ndjson", offset) for line in lines] == [
        5,
        MAX_TRACE_LINE_BYTES,
    ]
    writer.release()


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_a_discarded_trace_leaves_no_file_and_no_descriptor(tmp_path: Path) -> None:
    before = open_descriptors()
    writer = TraceWriter.create(
        tmp_path, "r1", disk=FaultyDisk(1, errno.ENOSPC, stays=True, operations=frozenset({"write"}))
    )
    with pytest.raises(NousError):
        writer.append(header_line("r1"))
    writer.discard()
    writer.discard()
    assert list(tmp_path.iterdir()) == []
    assert open_descriptors() == before


def test_a_trace_is_locked_for_as_long_as_it_is_written(tmp_path: Path) -> None:
    writer = TraceWriter.create(tmp_path, "r1")
    with (tmp_path / "r1.ndjson").open("rb") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        writer.append(header_line("r1"))
        writer.close(END)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@given(st.lists(st.binary(max_size=50).map(lambda line: line.replace(b"\n", b"") + b"\n"), max_size=10))
def test_what_was_appended_is_there_and_sealed(batches: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        writer = TraceWriter.create(Path(directory), "r1")
        path = Path(directory) / "r1.ndjson"
        for batch in batches:
            writer.append(batch)
            assert path.stat().st_size == writer.offset
        writer.close(END)
        end, before = unsealed(path.read_bytes())
    assert before == b"".join(batches)
    del end["sha256"]
    assert end == {
        "type": "trace.end",
        "status": "completed",
        "ended_at": LATER,
        "counts": {"inputs": 1, "events": 2, "effects": 3},
    }


class LongerEnd(TraceEnd, frozen=True, kw_only=True, tag="trace.end"):
    """An end that says more."""

    reason: str


def test_an_end_may_say_more(tmp_path: Path) -> None:
    writer = TraceWriter.create(tmp_path, "r1")
    writer.close(LongerEnd(status="failed", ended_at=LATER, counts=TraceCounts(), reason='quotes " and \n'))
    end, _ = unsealed((tmp_path / "r1.ndjson").read_bytes())
    assert list(end) == ["type", "status", "ended_at", "counts", "reason", "sha256"]


def test_a_released_trace_is_closed_and_cut(tmp_path: Path) -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    writer = TraceWriter.create(tmp_path, "r1")
    writer.append(b"one\n")
    writer.sync()
    writer.release()
    writer.release()
    assert len(list(Path("/dev/fd").iterdir())) == before
    assert (tmp_path / "r1.ndjson").read_bytes() == b"one\n"


def test_closing_releases_also_when_it_fails(tmp_path: Path) -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    writer = TraceWriter.create(tmp_path, "r1", disk=FaultyDisk(1, operations=frozenset({"sync"})))
    with pytest.raises(NousError):
        writer.close(END)
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_the_first_sync_makes_the_name_durable_too(tmp_path: Path) -> None:
    disk = FaultyDisk(2, operations=frozenset({"sync_directory"}))
    writer = TraceWriter.create(tmp_path, "r1", disk=disk)
    writer.sync()
    writer.sync()
    writer.release()
    assert not disk.fired


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_faults(tmp_path: Path, code: int) -> None:
    """After a fault the trace stays cut where it was, and every later call says so too."""
    batches = [header_line("r1"), b"two\nthree\n", b"four\n"]

    def attempt(disk: FaultyDisk) -> None:
        directory = Path(tempfile.mkdtemp(dir=tmp_path))
        written = 0
        writer = None
        with Tolerated("io_failure") as failure:
            writer = TraceWriter.create(directory, "r1", disk=disk)
            for batch in batches:
                writer.append(batch)
                written += 1
                writer.sync()
            writer.close(END)
        if writer is None:
            assert list(directory.iterdir()) == []
            return
        data = (directory / "r1.ndjson").read_bytes()
        assert data.startswith(b"".join(batches[:written]))
        if not failure.happened:
            assert unsealed(data)[1] == b"".join(batches)
            return
        for later in (lambda open_: open_.append(b"x\n"), TraceWriter.sync, lambda open_: open_.close(END)):
            with pytest.raises(NousError) as caught:
                later(writer)
            assert caught.value.code == "io_failure"
        assert (directory / "r1.ndjson").read_bytes() == data

    assert until_none_fires(attempt, code) == 10


def test_another_thread_may_sync_while_this_one_appends(tmp_path: Path) -> None:
    writer = TraceWriter.create(tmp_path, "r1")
    done = threading.Event()
    syncs = []

    def sync_until_done() -> None:
        while not done.is_set():
            writer.sync()
            syncs.append(writer.offset)

    worker = threading.Thread(target=sync_until_done)
    worker.start()
    for _ in range(2000):
        writer.append(b"line\n" * 20)
    done.set()
    worker.join()
    writer.close(END)
    assert len(unsealed((tmp_path / "r1.ndjson").read_bytes())[1]) == 2000 * 100


def test_a_trace_that_was_closed_meanwhile_cannot_sync_another_file(tmp_path: Path) -> None:
    writer = TraceWriter.create(tmp_path, "r1")
    writer.release()
    fd = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(NousError) as caught:
            writer.sync()
    finally:
        os.close(fd)
    assert caught.value.code == "io_failure"


class FullDisk(Disk):
    """Says only at the end that there was no room, as some network file systems do."""

    def close(self, fd: int) -> None:
        super().close(fd)
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_descriptor_that_cannot_be_closed_is_a_sync_that_failed(tmp_path: Path) -> None:
    writer = TraceWriter.create(tmp_path, "r1", disk=FullDisk())
    writer.append(b"one\n")
    with pytest.raises(NousError) as caught:
        writer.sync()
    assert (caught.value.code, caught.value.cause) == ("io_failure", "r1.ndjson: No space left on device")
