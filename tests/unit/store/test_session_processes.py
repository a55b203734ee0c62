"""What only real processes show: kill -9, two writers at once, a writer that hangs, a file size limit."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from nous.errors import NousError
from nous.store.locks import LockProfile
from nous.store.sessions import SessionStore
from nous.store.trace_file import TraceWriter
from nous.store.verify import verify_session
from nous.system.steps import complete
from tests.unit.store.helpers import NOW, append_row, message, path_ids, spawn, verify_chain

pytestmark = pytest.mark.anyio

KILLS = 20
BRIEF = LockProfile(timeout_ms=10, retry_ms=5)


def start(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.stdin.write(b"!")
    process.stdin.flush()


def appended_by(directory: Path, prefix: str) -> list[str]:
    ids = [entry["id"] for entry in verify_chain(directory / "s1.ndjson")]
    return [entry_id for entry_id in ids if entry_id.startswith(prefix)]


def test_a_session_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    """Whenever its maker is gone: there is no session, or one that verifies; and the next one may take the name."""
    exits = []
    for at in range(1, 100):
        directory = tmp_path / str(at)
        directory.mkdir()
        with spawn("maker.py", str(directory), "s1", str(at)) as process:
            exits.append(process.wait())
        store = SessionStore(directory)
        store.sweep()
        if store.exists("s1"):
            assert verify_session(directory / "s1.ndjson").ok
        else:
            store.create("s1", NOW)
        assert {path.name for path in directory.iterdir()} == {"s1.ndjson", "s1.lock"}
        if exits[-1] == 0:
            break
    assert exits == [9] * (len(exits) - 1) + [0]
    assert len(exits) > 5


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """One session goes through every kill: each time it must be there, whole, and writable at once."""
    SessionStore(tmp_path).create("s1", NOW)
    dice = random.Random(4)
    total = 0
    for round_number in range(KILLS):
        prefix = f"r{round_number}-"
        with spawn("appender.py", str(tmp_path), "s1", prefix, "100000") as process:
            start(process)
            assert process.stdout is not None
            acknowledged = [process.stdout.readline() for _ in range(dice.randrange(1, 60))]
            process.kill()
            acknowledged += process.stdout.read().split(b"\n")[:-1]
        session = SessionStore(tmp_path).get("s1")
        append_row(session, [f"{prefix}after"])
        assert {Path(torn.path).parent for torn in session.take_recovered()} <= {tmp_path}
        *found, after = appended_by(tmp_path, prefix)
        assert after == f"{prefix}after"
        assert found == [f"{prefix}{n}" for n in range(len(found))]
        assert len(acknowledged) <= len(found) <= len(acknowledged) + 1
        total += len(found) + 1
    assert len(session.messages) == total
    leftovers = {path.name.partition(".torn-")[0] for path in tmp_path.iterdir()}
    assert leftovers == {"s1.ndjson", "s1.lock"}


def test_two_processes_append_to_one_session(tmp_path: Path) -> None:
    count = 2000
    mine = SessionStore(tmp_path).create("s1", NOW)
    writers = [spawn("appender.py", str(tmp_path), "s1", prefix, str(count)) for prefix in "ab"]
    for writer in writers:
        start(writer)
    for writer in writers:
        output, _ = writer.communicate()
        assert writer.returncode == 0
        assert len(output.split(b"\n")) == count + 1
    for prefix in "ab":
        assert appended_by(tmp_path, prefix) == [f"{prefix}{n}" for n in range(count)]
    complete(mine.refresh())
    append_row(mine, ["last"])
    assert len(mine.messages) == 2 * count + 1
    assert not list(tmp_path.glob("*.torn-*"))


async def test_a_writer_that_hangs_is_contention_until_it_dies(tmp_path: Path) -> None:
    session = SessionStore(tmp_path, profile=BRIEF).create("s1", NOW)
    with spawn("lock_holder.py", str(tmp_path / "s1.lock")) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(NousError) as caught:
            await session.append(message("a"))
        assert caught.value.code == "state_contention"
        assert caught.value.data["owner_pid"] == holder.pid
        holder.kill()
        holder.wait()
        await session.append(message("a"))
    assert path_ids(session) == ["a"]


def test_a_limit_of_the_system_is_an_io_failure(tmp_path: Path) -> None:
    with spawn("small_disk.py", str(tmp_path)) as process:
        output, _ = process.communicate()
    first, second, counts = output.decode().split("\n")[:-1]
    assert first == "io_failure: s1.ndjson: File too large"
    assert second == "io_failure: run1.ndjson: File too large"
    messages, trace_bytes = map(int, counts.split())
    assert len(verify_chain(tmp_path / "s1.ndjson")) == messages + 1
    assert not list(tmp_path.glob("*.torn-*"))
    assert (tmp_path / "run1.ndjson").stat().st_size == 4096
    assert (tmp_path / "run1.ndjson").read_bytes()[:trace_bytes].endswith(b": a line\n")
    append_row(SessionStore(tmp_path).get("s1"), ["after"])
    with pytest.raises(NousError):
        TraceWriter.create(tmp_path, "run1")
