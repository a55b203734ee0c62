"""Retention: whole sessions, traces and tool outputs that are old enough to be removed, and never one that is in use.

In use are: a trace that is not closed and whose epoch's daemon lives, the outputs and the session of such a run, a
session with a lease (:mod:`nous.store.leases`) or a held lock, and a session that a trace needs which is kept, because
that trace refers to it for the run's context.  Planning reads and changes nothing; removing looks again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from nous.errors import NousError
from nous.store.disk import Disk
from nous.store.leases import Leases
from nous.store.locks import try_lock, unlock
from nous.store.spent import USAGE_SUFFIX
from nous.store.trace_reader import open_trace, read_end, read_header, refers_to_session

Kind = Literal["session", "trace", "output"]

DAY_SECONDS: Final = 24 * 3600

NEW_SECONDS: Final = 3600
"""Nothing that was changed within the last hour goes, whatever the counts say: somebody may be about to use it."""


class Keep(Struct, frozen=True, kw_only=True):
    """How much of one kind is kept; None: all of it."""

    days: int | None = None
    count: int | None = None


class Unit(Struct, frozen=True, kw_only=True):
    """One thing that goes or stays as a whole.  ``changed_at`` is Unix time in seconds."""

    kind: Kind
    name: str
    size_bytes: int
    changed_at: float


class Plan(Struct, frozen=True, kw_only=True):
    """What goes, oldest first, and how many of each kind stay.

    ``recent`` counts what the rules call too old or too many, but was changed within the last hour and stays for that.
    """

    remove: list[Unit]
    kept: dict[Kind, int]
    recent: int = 0


class _Trace(NamedTuple):
    """What a trace says about its session.  ``needs_session``: its context stands only there."""

    session_id: str
    is_running: bool
    needs_session: bool


class Collector:
    """Plans and removes below one state directory.  ``is_dead`` says of an epoch that no daemon of it can be alive."""

    def __init__(
        self, *, sessions: Path, traces: Path, outputs: Path, is_dead: Callable[[str], bool], now: float | None = None
    ) -> None:
        self._places: dict[Kind, Path] = {"session": sessions, "trace": traces, "output": outputs}
        self._is_dead = is_dead
        self._now = time.time() if now is None else now
        self._disk = Disk()
        self._leases = Leases(sessions)

    def plan(self, keep: dict[Kind, Keep]) -> Plan:
        """Return what goes under these rules.  Raises ``io_failure`` if a place cannot be read."""
        traces = self._traces()
        running = {run_id for run_id, trace in traces.items() if trace.is_running}
        remove: list[Unit] = []
        kept: dict[Kind, int] = dict.fromkeys(self._places, 0)
        recent = 0
        removed_traces: set[str] = set()
        for kind in ("trace", "output", "session"):
            units = sorted(_units(kind, self._places[kind]), key=_age_order, reverse=True)
            old, new = self._too_old(units, keep[kind])
            recent += new
            if kind == "session":
                needed = self._sessions_needed(traces, removed_traces)
                going = [unit for unit in old if unit.name not in needed and not self._leases.is_in_use(unit.name)]
            else:
                going = [unit for unit in old if unit.name not in running]
            if kind == "trace":
                removed_traces = {unit.name for unit in going}
            remove += going
            kept[kind] = len(units) - len(going)
        remove.sort(key=_age_order)
        return Plan(remove=remove, kept=kept, recent=recent)

    def remove(self, unit: Unit) -> bool:
        """Remove a unit.  False: it lives again, or has changed since it was planned, and stays."""
        if unit.kind == "session":
            return self._remove_session(unit)
        trace = self._trace(unit.name)
        if (trace is not None and trace.is_running) or not self._is_unchanged(unit):
            return False
        place = self._places[unit.kind]
        if unit.kind == "output":
            remove_tree(place / unit.name)
        else:
            _remove_files(place, unit.name)
        return True

    def _too_old(self, units: list[Unit], keep: Keep) -> tuple[list[Unit], int]:
        """Return what goes by age or count, and how many more would if they had not been changed just now."""
        old: list[Unit] = []
        recent = 0
        for position, unit in enumerate(units):
            age_seconds = self._now - unit.changed_at
            is_old = keep.days is not None and age_seconds > keep.days * DAY_SECONDS
            if is_old or (keep.count is not None and position >= keep.count):
                if age_seconds < NEW_SECONDS:
                    recent += 1
                else:
                    old.append(unit)
        return old, recent

    def _traces(self) -> dict[str, _Trace]:
        paths = [path for path in _entries(self._places["trace"]) if path.suffix == ".ndjson"]
        return {path.stem: trace for path in paths if (trace := self._trace(path.stem)) is not None}

    def _trace(self, run_id: str) -> _Trace | None:
        """Return what a trace says, or ``None`` if there is none or it has no header."""
        path = self._places["trace"] / f"{run_id}.ndjson"
        try:
            header = read_header(path)
            with open_trace(path) as fd:
                is_closed = read_end(fd, os.fstat(fd).st_size) is not None
            is_running = not is_closed and not self._is_dead(header.epoch)
        except NousError:
            return None
        return _Trace(header.session_id, is_running, refers_to_session(path))

    def _sessions_needed(self, traces: dict[str, _Trace], removed: set[str]) -> set[str]:
        """Return the sessions of runs that go on, and those that the traces which stay need for their context."""
        return {
            trace.session_id
            for run_id, trace in traces.items()
            if trace.is_running or (trace.needs_session and run_id not in removed)
        }

    def _remove_session(self, unit: Unit) -> bool:
        """Remove a session's log while nobody uses it, under its lock.  The lock's file stays: it is never removed, so
        that nobody holds another.
        """
        place = self._places["session"]
        excluded = self._leases.try_exclude(unit.name)
        if excluded is None:
            return False
        try:
            lock = try_lock(self._disk, str(place / f"{unit.name}.lock"))
            if lock is None:
                return False
            try:
                if not self._is_unchanged(unit):
                    return False
                _remove_files(place, unit.name)
            finally:
                unlock(self._disk, lock)
        finally:
            for lease in excluded:
                lease.release()
        return True

    def _is_unchanged(self, unit: Unit) -> bool:
        found = next(_units(unit.kind, self._places[unit.kind], only=unit.name), None)
        return found is not None and found.changed_at == unit.changed_at


def _age_order(unit: Unit) -> tuple[float, str]:
    return unit.changed_at, unit.name


def _units(kind: Kind, place: Path, only: str | None = None) -> Iterator[Unit]:
    """Yield what lies in a place; a place that does not exist is an empty one."""
    if kind == "output":
        paths = [place / only] if only else (path for path in _entries(place) if path.is_dir())
        for path in paths:
            with suppress(FileNotFoundError):
                stats = [path.stat(), *_stats_below(path)]
                size, changed = sum(stat.st_size for stat in stats), max(stat.st_mtime for stat in stats)
                yield Unit(kind=kind, name=path.name, size_bytes=size, changed_at=changed)
        return
    logs = [place / f"{only}.ndjson"] if only else (path for path in _entries(place) if path.suffix == ".ndjson")
    for path in logs:
        with suppress(FileNotFoundError):
            stat = path.stat()
            torn = sum(found.stat().st_size for found in place.glob(f"{path.name}.torn-*"))
            yield Unit(kind=kind, name=path.stem, size_bytes=stat.st_size + torn, changed_at=stat.st_mtime)


def _stats_below(directory: Path) -> Iterator[os.stat_result]:
    """Yield what the system says of everything below a directory, however deep; links are not followed."""
    waiting = [os.fspath(directory)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def remove_tree(root: Path) -> None:
    """Remove a directory with all that is below it, however deep: subdirectories are moved up to ``root`` first.

    Raises:
        OSError: as the system gives it; a part may be gone then.
    """
    moved = 0
    while directories := [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]:
        for directory in directories:
            for path in directory.iterdir():
                if path.is_dir() and not path.is_symlink():
                    moved += 1
                    path.rename(root / f".removing-{os.getpid()}-{moved}")
                else:
                    path.unlink()
            directory.rmdir()
    for path in root.iterdir():
        path.unlink()
    root.rmdir()


def _entries(place: Path) -> Iterable[Path]:
    try:
        return [path for path in place.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return ()


def _remove_files(place: Path, name: str) -> None:
    """Remove a log and what was cut from it: the log last, so that a crash leaves nothing that belongs to nobody."""
    for path in place.glob(f"{name}.ndjson.torn-*"):
        path.unlink(missing_ok=True)
    (place / f"{name}{USAGE_SUFFIX}").unlink(missing_ok=True)
    (place / f"{name}.ndjson").unlink(missing_ok=True)
