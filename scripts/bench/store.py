"""What the session store costs: ``python -m scripts.bench.store``.  Figures by name, in the unit the name ends with."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nous.protocol.messages import Message
from nous.store.session import Session
from nous.store.session_index import INDEX_NAME
from nous.store.sessions import SessionStore

Figures = dict[str, float]

ENTRIES: Final = 10_000
SESSIONS: Final = 10_000
ENTRIES_EACH: Final = 5
APPENDS: Final = 2_000
SYNCED_APPENDS: Final = 300
TEXT: Final = "What was said in one message of a conversation, more or less. " * 8
NOW: Final = "2026-01-01T00:00:00.000Z"


def message(number: int, parent_id: str) -> Message:
    role = "assistant" if number % 2 else "user"
    return Message(id=f"m{number}", parent_id=parent_id, role=role, text=TEXT, created_at=NOW)  # type: ignore[arg-type]


def grow(session: Session, count: int) -> None:
    for number in range(len(session.messages), len(session.messages) + count):
        assert session.try_append(message(number, session.leaf_id))


def timed(work: Callable[[], object]) -> float:
    """Return how long something took, in milliseconds."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1e3


def opening(directory: Path) -> Figures:
    """Open a session of 10,000 entries, checking every line, and ask for its path."""
    grow(SessionStore(directory).create("long", NOW), ENTRIES)
    size = (directory / "long.ndjson").stat().st_size
    opened = timed(lambda: SessionStore(directory).get("long"))
    session = SessionStore(directory).get("long")
    return {
        "open 10,000 entries ms": opened,
        "their path, first time ms": timed(session.path),
        "their path, again ms": timed(session.path),
        "their size MB": size / 1e6,
    }


def appending(directory: Path) -> Figures:
    """Append to that session, with and without making each entry durable."""
    session = SessionStore(directory).get("long")
    out: Figures = {}
    for name, count, syncs in (("append", APPENDS, False), ("append and fsync", SYNCED_APPENDS, True)):
        times = []
        for _ in range(count):
            entry = message(len(session.messages), session.leaf_id)
            begun = time.perf_counter()
            session.try_append(entry)
            if syncs:
                session.sync()
            times.append((time.perf_counter() - begun) * 1e3)
        out[f"{name} p50 ms"] = statistics.median(times)
        out[f"{name} p99 ms"] = sorted(times)[int(count * 0.99)]
    return out


def listing(directory: Path) -> Figures:
    """List 10,000 sessions: without an index, with one, by the same process again, and after one has grown."""
    store = SessionStore(directory)
    for number in range(SESSIONS):
        grow(store.create(f"s{number:05}", NOW), ENTRIES_EACH)
    old = time.time() - 10
    for path in directory.glob("*.ndjson"):
        os.utime(path, (old, old))
    (directory / INDEX_NAME).unlink(missing_ok=True)
    out = {"list 10,000 sessions, no index ms": timed(SessionStore(directory).list_sessions)}
    warm = SessionStore(directory)
    out["list them, new process with index ms"] = timed(warm.list_sessions)
    out["list them again, same process ms"] = timed(warm.list_sessions)
    grow(store.get("s00007"), 1)
    out["list them after one has grown ms"] = timed(warm.list_sessions)
    return out


def main() -> int:
    rows: dict[str, list[float]] = {}
    for _ in range(3):
        with tempfile.TemporaryDirectory(prefix="nous-bench-") as place:
            for measure in (opening, appending, listing):
                for figure, value in measure(Path(place)).items():
                    rows.setdefault(figure, []).append(value)
    print(f"{'figure':<38}{'median':>12}{'min':>12}{'max':>12}")
    for figure, values in rows.items():
        print(f"{figure:<38}{statistics.median(values):>12.3f}{min(values):>12.3f}{max(values):>12.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
