"""What is old enough to go: whole sessions, whole traces, whole outputs of a run, and never one that lives.

A unit lives while the daemon that works on it does: a trace that is not closed and whose epoch holds its lock, the
outputs of such a run, its session, and a session whose lock is held.  Planning reads and changes nothing; removing
looks again, because what was dead when it was planned may live by now.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from nous.errors import NousError
from nous.store.disk import Disk
from nous.store.locks import try_lock, unlock
from nous.store.trace_lines import BrokenTraceError
from nous.store.trace_reader import open_trace, read_end, read_header

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
    """What goes, oldest first, and how many of each kind stay."""

    remove: list[Unit]
    kept: dict[Kind, int]


class Collector:
    """Plans and removes below one state directory.  ``is_dead`` says of an epoch that no daemon of it can be alive."""

    def __init__(
        self, *, sessions: Path, traces: Path, outputs: Path, is_dead: Callable[[str], bool], now: float | None = None
    ) -> None:
        self._places: dict[Kind, Path] = {"session": sessions, "trace": traces, "output": outputs}
        self._is_dead = is_dead
        self._now = time.time() if now is None else now
        self._disk = Disk()

    def plan(self, keep: dict[Kind, Keep]) -> Plan:
        """Return what goes under these rules.  Raises ``io_failure`` if a place cannot be read."""
        living_runs, living_sessions = self._living()
        remove: list[Unit] = []
        kept: dict[Kind, int] = {}
        for kind, place in self._places.items():
            living = living_sessions if kind == "session" else living_runs
            units = sorted(_units(kind, place), key=_age_order, reverse=True)
            going = [unit for unit in self._too_old(units, keep[kind]) if unit.name not in living]
            remove += going
            kept[kind] = len(units) - len(going)
        remove.sort(key=_age_order)
        return Plan(remove=remove, kept=kept)

    def remove(self, unit: Unit) -> bool:
        """Remove a unit.  False: it lives again, or has changed since it was planned, and stays."""
        if unit.kind == "session":
            return self._remove_session(unit)
        living_runs, _ = self._living()
        if unit.name in living_runs or not self._is_unchanged(unit):
            return False
        place = self._places[unit.kind]
        if unit.kind == "output":
            shutil.rmtree(place / unit.name)
        else:
            _remove_files(place, unit.name)
        return True

    def _too_old(self, units: list[Unit], keep: Keep) -> Iterator[Unit]:
        for position, unit in enumerate(units):
            age_seconds = self._now - unit.changed_at
            if age_seconds < NEW_SECONDS:
                continue
            is_old = keep.days is not None and age_seconds > keep.days * DAY_SECONDS
            if is_old or (keep.count is not None and position >= keep.count):
                yield unit

    def _living(self) -> tuple[set[str], set[str]]:
        """Return the runs that go on, and their sessions."""
        runs: set[str] = set()
        sessions: set[str] = set()
        for path in self._places["trace"].glob("*.ndjson"):
            with suppress(NousError, BrokenTraceError, FileNotFoundError):
                with open_trace(path) as fd:
                    if read_end(fd, os.fstat(fd).st_size) is not None:
                        continue
                header = read_header(path)
                if not self._is_dead(header.epoch):
                    runs.add(path.stem)
                    sessions.add(header.session_id)
        return runs, sessions

    def _remove_session(self, unit: Unit) -> bool:
        """Remove a session's log under its lock.  The lock stays: it is never removed, so that nobody holds another."""
        place = self._places["session"]
        lock = try_lock(self._disk, str(place / f"{unit.name}.lock"))
        if lock is None:
            return False
        try:
            if unit.name in self._living()[1] or not self._is_unchanged(unit):
                return False
            _remove_files(place, unit.name)
        finally:
            unlock(self._disk, lock)
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
                stats = [found.stat() for found in (path, *path.rglob("*"))]
                size, changed = sum(stat.st_size for stat in stats), max(stat.st_mtime for stat in stats)
                yield Unit(kind=kind, name=path.name, size_bytes=size, changed_at=changed)
        return
    logs = [place / f"{only}.ndjson"] if only else (path for path in _entries(place) if path.suffix == ".ndjson")
    for path in logs:
        with suppress(FileNotFoundError):
            stat = path.stat()
            torn = sum(found.stat().st_size for found in place.glob(f"{path.name}.torn-*"))
            yield Unit(kind=kind, name=path.stem, size_bytes=stat.st_size + torn, changed_at=stat.st_mtime)


def _entries(place: Path) -> Iterable[Path]:
    try:
        return [path for path in place.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return ()


def _remove_files(place: Path, name: str) -> None:
    """Remove a log and what was cut from it: the log last, so that a crash leaves nothing that belongs to nobody."""
    for path in place.glob(f"{name}.ndjson.torn-*"):
        path.unlink(missing_ok=True)
    (place / f"{name}.ndjson").unlink(missing_ok=True)
