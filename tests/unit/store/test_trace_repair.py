from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import threading
from pathlib import Path

import pytest

from nous.store.faults import FaultyDisk, until_none_fires
from nous.store.trace_file import TraceWriter
from nous.store.trace_lines import TraceCounts, TraceEnd
from nous.store.trace_reader import iter_events, scan
from nous.store.trace_repair import Interruptions, interrupt_dead
from tests.unit.store.helpers import LATER, NOW, SMALL, event, header_line, unsealed

END = TraceEnd(status="completed", ended_at=LATER, counts=TraceCounts(inputs=2, events=3, effects=1))


def dead(epoch: str) -> bool:
    return epoch.startswith("dead")


def cut_trace(directory: Path, run_id: str, epoch: str = "dead", more: bytes = b"") -> Path:
    path = directory / f"{run_id}.ndjson"
    path.write_bytes(header_line(run_id, epoch) + b"".join(SMALL[1:]) + more)
    return path


def summary_of(result: Interruptions) -> list[tuple[str, int | None]]:
    assert result.failed == []
    return [(trace.run_id, trace.torn.size if trace.torn else None) for trace in result.closed]


def test_closes_the_cut_traces_of_dead_epochs(tmp_path: Path) -> None:
    path = cut_trace(tmp_path, "r1")
    torn = cut_trace(tmp_path, "r2", "dead-too", b'{"type":"trace.inp')
    alive = cut_trace(tmp_path, "r3", "alive", b'{"type":"trace.inp')
    finished = TraceWriter.create(tmp_path, "r4")
    finished.append(header_line("r4", "dead"))
    finished.close(END)
    untouched = {p: p.read_bytes() for p in (alive, tmp_path / "r4.ndjson")}
    recorded = path.read_bytes()

    assert summary_of(interrupt_dead(tmp_path, dead)) == [("r1", None), ("r2", 18)]
    for closed in (path, torn):
        end, _ = unsealed(closed.read_bytes())
        del end["sha256"]
        assert end == {
            "type": "trace.end",
            "status": "interrupted",
            "ended_at": NOW,
            "counts": {"inputs": 2, "events": 3, "effects": 1},
        }
        assert list(iter_events(closed)) == [SMALL[2], SMALL[4], SMALL[8]]
        summary = scan(closed, lambda epoch: False)
        assert (summary.status, summary.events, summary.ended_at) == ("interrupted", 3, NOW)
    assert unsealed(path.read_bytes())[1] == recorded
    assert (tmp_path / "r2.ndjson.torn-1").read_bytes() == b'{"type":"trace.inp'
    assert {p: p.read_bytes() for p in untouched} == untouched

    after = {p: p.read_bytes() for p in tmp_path.iterdir()}
    assert summary_of(interrupt_dead(tmp_path, dead)) == []
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == after


def test_the_end_has_the_last_time_that_was_stamped(tmp_path: Path) -> None:
    path = tmp_path / "r1.ndjson"
    path.write_bytes(header_line("r1", "dead") + SMALL[7])
    interrupt_dead(tmp_path, dead)
    assert unsealed(path.read_bytes())[0]["ended_at"] == LATER
    path.write_bytes(header_line("r1", "dead"))
    interrupt_dead(tmp_path, dead)
    assert unsealed(path.read_bytes())[0]["ended_at"] == NOW


def test_every_cut_of_a_closed_trace(tmp_path: Path) -> None:
    """Wherever the writer was killed: what was whole stays, what was torn is kept aside, and the seal fits."""
    writer = TraceWriter.create(tmp_path, "r1")
    writer.append(header_line("r1", "dead") + b"".join(SMALL[1:]))
    writer.close(END)
    path = tmp_path / "r1.ndjson"
    data = path.read_bytes()
    for cut in range(len(header_line("r1", "dead")), len(data)):
        path.write_bytes(data[:cut])
        whole = data[: data.rindex(b"\n", 0, cut) + 1]
        [closed] = interrupt_dead(tmp_path, dead).closed
        end, before = unsealed(path.read_bytes())
        assert before == whole
        assert end["counts"]["events"] == sum(whole.count(line) for line in (SMALL[2], SMALL[4], SMALL[8]))
        assert (closed.torn.size if closed.torn else 0) == cut - len(whole)
        if closed.torn:
            assert Path(closed.torn.path).read_bytes() == data[len(whole) : cut]
            Path(closed.torn.path).unlink()


HEADERLESS = {"empty": b"", "cut": header_line("cut", "dead")[:-1], "zeros": b"\0" * 5000}


def old(path: Path) -> Path:
    """Make a file look as if nobody had written to it for an hour."""
    os.utime(path, (path.stat().st_mtime - 3600,) * 2)
    return path


def test_a_trace_cut_within_its_header_is_set_aside(tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    traces.mkdir()
    for name, content in HEADERLESS.items():
        (traces / f"{name}.ndjson").write_bytes(content)
        old(traces / f"{name}.ndjson")
    result = interrupt_dead(traces, dead)
    assert (result.closed, result.failed) == ([], [])
    assert list(traces.iterdir()) == []
    assert {path.name.split(".")[0]: path.read_bytes() for path in result.set_aside} == HEADERLESS
    assert {path.parent for path in result.set_aside} == {tmp_path / "quarantine"}


def test_a_headerless_trace_that_is_being_written_or_was_just_made_stays(tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    traces.mkdir()
    writer = TraceWriter.create(traces, "r1")
    path = old(traces / "r1.ndjson")
    assert interrupt_dead(traces, dead).set_aside == []
    assert path.exists()
    writer.release()
    path.touch()
    assert interrupt_dead(traces, dead).set_aside == []
    assert path.exists()
    old(path)
    assert len(interrupt_dead(traces, dead).set_aside) == 1


def test_a_file_whose_first_line_is_whole_and_no_header_is_left_alone(tmp_path: Path) -> None:
    deep = b'{"type":"trace.header","x":' + b"[" * 100_000 + b"\n"
    for name, content in {"c": b"{}\n", "d": event(1), "e": deep}.items():
        (tmp_path / f"{name}.ndjson").write_bytes(content)
        old(tmp_path / f"{name}.ndjson")
    (tmp_path / "r9.ndjson.torn-1").write_bytes(b"x")
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    assert summary_of(interrupt_dead(tmp_path, dead)) == []
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r0.ndjson")
    (tmp_path / "r1.ndjson").symlink_to("/dev/zero")
    cut_trace(tmp_path, "r2")
    result = interrupt_dead(tmp_path, dead)
    assert [trace.run_id for trace in result.closed] == ["r2"]
    assert [error.cause for error in result.failed] == [f"r{n}.ndjson: not a regular file" for n in (0, 1)]


def test_repair_stops_when_it_is_told_to_and_leaves_the_trace_as_it_was(tmp_path: Path) -> None:
    first, second = cut_trace(tmp_path, "r1"), cut_trace(tmp_path, "r2", more=event(4, "x" * 100) * 30_000 + b"torn")
    before = second.read_bytes()
    asked = 0

    def stop_in_the_second() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    result = interrupt_dead(tmp_path, dead, should_stop=stop_in_the_second)
    assert ([trace.run_id for trace in result.closed], result.is_complete) == (["r1"], False)
    assert second.read_bytes() == before
    assert summary_of(interrupt_dead(tmp_path, dead)) == [("r2", 4)]
    assert first.read_bytes() != before


def test_no_directory_is_no_work(tmp_path: Path) -> None:
    assert summary_of(interrupt_dead(tmp_path / "no", dead)) == []


def test_one_that_cannot_be_closed_does_not_keep_the_others_from_it(tmp_path: Path) -> None:
    (tmp_path / "r0.ndjson").mkdir()
    huge = cut_trace(tmp_path, "r1")
    os.truncate(huge, 200_000_000)
    with huge.open("ab") as file:
        file.write(b"\n")
    cut_trace(tmp_path, "r2")
    result = interrupt_dead(tmp_path, dead)
    assert [trace.run_id for trace in result.closed] == ["r2"]
    assert [error.code for error in result.failed] == ["io_failure", "verification_failed"]


def test_a_trace_that_another_daemon_closes_is_left_to_it(tmp_path: Path) -> None:
    path = cut_trace(tmp_path, "r1")
    before = path.read_bytes()
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert summary_of(interrupt_dead(tmp_path, dead)) == []
    assert path.read_bytes() == before
    assert summary_of(interrupt_dead(tmp_path, dead)) == [("r1", None)]


def test_a_trace_that_was_closed_between_look_and_lock_stays_as_it_is(tmp_path: Path) -> None:
    path = cut_trace(tmp_path, "r1", more=b"torn")

    def another_daemon_is_faster(epoch: str) -> bool:
        assert summary_of(interrupt_dead(tmp_path, dead)) == [("r1", 4)]
        return dead(epoch)

    assert summary_of(interrupt_dead(tmp_path, another_daemon_is_faster)) == []
    assert unsealed(path.read_bytes())[1].endswith(SMALL[-1])


def test_two_daemons_at_once_close_each_trace_once(tmp_path: Path) -> None:
    paths = [cut_trace(tmp_path, f"r{n}", more=b"torn") for n in range(40)]
    results: list[Interruptions] = []
    barrier = threading.Barrier(3)

    def daemon() -> None:
        barrier.wait()
        results.append(interrupt_dead(tmp_path, dead))

    daemons = [threading.Thread(target=daemon) for _ in range(3)]
    for thread in daemons:
        thread.start()
    for thread in daemons:
        thread.join()
    closed = sorted(run_id for result in results for run_id, _ in summary_of(result))
    assert closed == sorted(path.stem for path in paths)
    for path in paths:
        assert unsealed(path.read_bytes())[1].endswith(SMALL[-1])
        assert not Path(f"{path}.torn-2").exists()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_faults(tmp_path: Path, code: int) -> None:
    """Whatever fails on the way, the next attempt closes the trace with all that was whole."""

    def attempt(disk: FaultyDisk) -> None:
        directory = Path(tempfile.mkdtemp(dir=tmp_path))
        path = cut_trace(directory, "r1", more=b"torn")
        recorded = path.read_bytes()[:-4]
        first = interrupt_dead(directory, dead, disk=disk)
        assert [error.code for error in first.failed] == ["io_failure"] * disk.fired
        assert len(first.closed) == (not disk.fired)
        interrupt_dead(directory, dead)
        end, before = unsealed(path.read_bytes())
        assert (end["status"], before) == ("interrupted", recorded)
        assert {kept.read_bytes() for kept in directory.glob("*.torn-*")} == {b"torn"}

    assert until_none_fires(attempt, code) == 8
