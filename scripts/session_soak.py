"""Many real processes on one session store: nothing is lost, nothing is twice, contention is the only complaint.

    python -m scripts.session_soak [--one 64] [--many 128] [--entries 50]

Three parts: many processes append to one session; each of many appends to a session of its own; and while some append
to one session, another process compacts and prunes it all the time.  Prints one PASS or FAIL line per requirement.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import anyio

from nous.errors import NousError
from nous.protocol.entries import Compaction
from nous.protocol.messages import Message
from nous.store.locks import SWARM
from nous.store.session import Session
from nous.store.sessions import SessionStore
from nous.store.verify import verify_session
from nous.system.clock import SystemClock

WORKERS_BESIDE_PRUNING: Final = 8
NOW: Final = "2026-01-01T00:00:00.000Z"


# -- what each process does


async def append_entries(session: Session, prefix: str, count: int) -> int:
    """Append behind one's own entries; say each once it is durable.  Returns how often there was contention."""
    contended = 0
    parent_id = ""
    for number in range(count):
        entry = message(f"{prefix}-{number}", parent_id)
        contended += await patiently(session.append, entry)
        session.sync()
        parent_id = entry.id
        os.write(1, entry.id.encode() + b"\n")
    return contended


async def prune_all_the_time(session: Session, prefix: str, count: int) -> int:
    """Grow a branch, compact it to nothing and prune it, again and again."""
    contended = 0
    parent_id = ""
    for number in range(count):
        entry = message(f"{prefix}-{number}", parent_id)
        summary = Compaction(
            id=f"{prefix}-k{number}",
            parent_id=entry.id,
            summary=f"{number}",
            tokens_before=1,
            trigger="manual",
            by="deterministic",
            created_at=NOW,
        )
        parent_id = entry.id
        contended += await patiently(session.append, entry)
        contended += await patiently(session.append, summary)
        contended += await patiently(session.checkpoint, f"{prefix}-p{number}", NOW)
        contended += await patiently(session.prune)
    return contended


async def patiently(work: Callable[..., Awaitable[object]], *arguments: object) -> int:
    """Do something again as long as it is only contention; return how often it was."""
    for attempt in range(1000):
        try:
            await work(*arguments)
        except NousError as error:
            if error.code != "state_contention":
                raise
        else:
            return attempt
    raise AssertionError("contention without end")


def message(message_id: str, parent_id: str) -> Message:
    return Message(id=message_id, parent_id=parent_id, role="user", text="x" * 300, created_at=SystemClock().now())


def work(options: argparse.Namespace) -> int:
    session = SessionStore(options.directory, profile=SWARM).get(options.session)
    os.write(1, b"ready\n")
    os.read(0, 1)
    job = prune_all_the_time if options.prune else append_entries
    contended = anyio.run(job, session, options.prefix, options.entries)
    os.write(2, b"%d\n" % contended)
    return 0


# -- the parts


class Crowd:
    """Processes that begin together; ``acknowledged`` holds what each said, by its prefix."""

    def __init__(self, directory: Path, entries: int) -> None:
        self._directory = directory
        self._entries = entries
        self._started: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.acknowledged: dict[str, list[str]] = {}
        self.contended = 0
        self.failures: list[str] = []

    def start(self, session_id: str, prefix: str, *flags: str) -> None:
        command = [sys.executable, "-m", "scripts.session_soak", "worker", str(self._directory), session_id, prefix]
        process = subprocess.Popen(
            [*command, "--entries", str(self._entries), *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._started.append((prefix, process))

    def run(self) -> None:
        for _, process in self._started:
            assert process.stdout is not None
            process.stdout.readline()
        for _, process in self._started:
            assert process.stdin is not None
            process.stdin.write(b"!")
            process.stdin.flush()
        for prefix, process in self._started:
            output, errors = process.communicate()
            self.acknowledged[prefix] = output.decode().split("\n")[:-1]
            if process.returncode:
                self.failures.append(errors.decode(errors="replace").strip().split("\n")[-1])
            else:
                self.contended += int(errors)


class Report:
    """Prints a line per requirement; ``failed`` tells whether one was not met."""

    def __init__(self) -> None:
        self.failed = False

    def check(self, what: str, problems: Sequence[object], note: str = "") -> None:
        self.failed = self.failed or bool(problems)
        verdict = f"FAIL {what}: {problems[:3]}" if problems else f"PASS {what}{f' ({note})' if note else ''}"
        print(verdict, flush=True)


def one_session(directory: Path, processes: int, entries: int, report: Report) -> None:
    SessionStore(directory).create("one", NOW)
    crowd = Crowd(directory, entries)
    for number in range(processes):
        crowd.start("one", f"w{number}")
    crowd.run()
    lines = read_lines(directory / "one.ndjson")
    about = f"{processes} processes on one session"
    report.check(f"{about}: contention is the only complaint", crowd.failures, f"{crowd.contended} times")
    report.check(f"{about}: every entry is there, in order and once", lost(crowd, lines), f"{len(lines) - 1} entries")
    report.check(f"{about}: the sequence has no holes and the chain holds", broken(directory, "one", lines))


def many_sessions(directory: Path, processes: int, entries: int, report: Report) -> None:
    store = SessionStore(directory)
    crowd = Crowd(directory, entries)
    for number in range(processes):
        store.create(f"s{number}", NOW)
        crowd.start(f"s{number}", f"w{number}")
    crowd.run()
    problems: list[object] = []
    for number in range(processes):
        lines = read_lines(directory / f"s{number}.ndjson")
        ids = [line["id"] for line in lines[1:]]
        if ids != crowd.acknowledged[f"w{number}"] or len(ids) != entries:
            problems.append(f"s{number}")
        problems += broken(directory, f"s{number}", lines)
    about = f"{processes} processes on sessions of their own"
    contended = [*crowd.failures, *([f"contention {crowd.contended} times"] if crowd.contended else [])]
    report.check(f"{about}: no contention", contended)
    report.check(f"{about}: every entry is there", problems)
    listed = [info for info in store.list_sessions(500).sessions if info.session_id.startswith("s")]
    report.check(f"{about}: all of them are listed", [] if len(listed) == processes else [len(listed)])


def beside_pruning(directory: Path, entries: int, report: Report) -> None:
    SessionStore(directory).create("pruned", NOW)
    crowd = Crowd(directory, entries)
    crowd.start("pruned", "p", "--prune")
    for number in range(WORKERS_BESIDE_PRUNING):
        crowd.start("pruned", f"w{number}")
    crowd.run()
    lines = read_lines(directory / "pruned.ndjson")
    about = f"{WORKERS_BESIDE_PRUNING} processes beside one that prunes"
    report.check(f"{about}: contention is the only complaint", crowd.failures, f"{crowd.contended} times")
    report.check(f"{about}: every entry is there", lost(crowd, lines))
    report.check(f"{about}: the chain holds", broken(directory, "pruned", lines), f"it begins at {lines[0]['n']}")
    temps = [path.name for path in directory.glob(".*.tmp")]
    report.check(f"{about}: no temp file is left", temps)


# -- looking at what they wrote, with nothing of the store


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return a session's lines, each checked against its digest."""
    decoded = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        entry = json.loads(line)
        body = line[: -len(entry["digest"]) - 2]
        assert hashlib.sha256(body).hexdigest().startswith(entry["digest"]), line
        decoded.append(entry)
    return decoded


def lost(crowd: Crowd, lines: Sequence[dict[str, Any]]) -> list[object]:
    """Return what was acknowledged and is not there in its order, and what is there twice."""
    ids = [line["id"] for line in lines[1:]]
    problems: list[object] = [entry_id for entry_id, times in Counter(ids).items() if times > 1]
    by_prefix: dict[str, list[str]] = {prefix: [] for prefix in crowd.acknowledged}
    for entry_id in ids:
        by_prefix[entry_id.partition("-")[0]].append(entry_id)
    for prefix, acknowledged in crowd.acknowledged.items():
        if prefix.startswith("w") and by_prefix[prefix] != acknowledged:
            problems.append(f"{prefix}: {len(by_prefix[prefix])} of {len(acknowledged)}")
    return problems


def broken(directory: Path, session_id: str, lines: Sequence[dict[str, Any]]) -> list[object]:
    problems: list[object] = []
    for before, after in pairwise(lines):
        if (after["n"], after["prev"]) != (before["n"] + 1, before["digest"]):
            problems.append(f"{session_id}: behind {before['n']}")
    report = verify_session(directory / f"{session_id}.ndjson")
    if not report.ok or report.torn is not None:
        problems.append(report)
    return problems


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="session_soak")
    parser.add_argument("--one", type=int, default=64, metavar="N", help="processes on one session")
    parser.add_argument("--many", type=int, default=128, metavar="N", help="processes on sessions of their own")
    parser.add_argument("--entries", type=int, default=50, metavar="N", help="entries that each appends")
    options = parser.parse_args(arguments)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="nous-soak-") as place:
        directory = Path(place)
        one_session(directory, options.one, options.entries, report)
        many_sessions(directory, options.many, options.entries, report)
        beside_pruning(directory, options.entries, report)
    return int(report.failed)


def worker(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="session_soak worker")
    parser.add_argument("directory", type=Path)
    parser.add_argument("session")
    parser.add_argument("prefix")
    parser.add_argument("--entries", type=int, required=True)
    parser.add_argument("--prune", action="store_true")
    return work(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(worker(sys.argv[2:]) if sys.argv[1:2] == ["worker"] else main(sys.argv[1:]))
