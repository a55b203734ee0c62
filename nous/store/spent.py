"""What the runs of a session used and cost: ``<sessions>/<session_id>.usage``, one line per run that has ended.

The file is append only; any number of processes may append to it without a lock, because a row is one write and begins
on a line of its own.  A row that cannot be read (its writer was killed) makes the session's cost unknown.  The file
goes with its session (:mod:`nous.store.retention`); pruning keeps it.
"""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from nous.protocol.messages import Usage
from nous.store.disk import Disk, write_all

USAGE_SUFFIX: Final = ".usage"

_DECIMALS: Final = 9
_KEPT_TOTALS: Final = 256


class Spent(NamedTuple):
    """``cost_usd`` is None where some part of it is not known, or nothing is known to have cost anything yet."""

    usage: Usage
    cost_usd: float | None

    def plus(self, other: "Spent") -> "Spent":
        """Return the sum; a part whose cost is not known makes that of the sum unknown."""
        if self is NOTHING_SPENT or other is NOTHING_SPENT:
            return other if self is NOTHING_SPENT else self
        is_known = self.cost_usd is not None and other.cost_usd is not None
        cost = round((self.cost_usd or 0.0) + (other.cost_usd or 0.0), _DECIMALS) if is_known else None
        return Spent(self.usage.plus(other.usage), cost)

    @property
    def shown_cost(self) -> float | UnsetType:
        """The cost as answers show it: left out where it is not known."""
        return UNSET if self.cost_usd is None else self.cost_usd


NOTHING_SPENT: Final = Spent(Usage(), None)
"""The total of a session without runs."""

_UNKNOWN: Final = Spent(Usage(), None)
"""What a row that cannot be read adds."""


class _Row(Struct, frozen=True, omit_defaults=True):
    run_id: str
    usage: Usage
    cost_usd: float | None = None


class _Total(NamedTuple):
    inode: int
    end: int
    spent: Spent


_rows: Final = msgspec.json.Decoder(_Row)


class UsageLog:
    """The totals of the sessions of a directory.  Asking again costs what was added since.  Belongs to one thread."""

    def __init__(self, sessions: Path, disk: Disk | None = None) -> None:
        self._sessions = sessions
        self._disk = disk or Disk()
        self._totals: OrderedDict[str, _Total] = OrderedDict()

    def add(self, session_id: str, run_id: str, spent: Spent) -> None:
        """Append what a run used; it survives the death of the process.

        Raises:
            OSError: as the system gives it.
        """
        row = msgspec.json.encode(_Row(run_id, spent.usage, spent.cost_usd))
        fd = self._disk.open(self._path(session_id), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            write_all(self._disk, fd, b"\n" + row + b"\n")
        finally:
            self._disk.close(fd)

    def total(self, session_id: str) -> Spent:
        """Return what all runs of a session used that have ended, in this process or others, before or now.

        Raises:
            OSError: as the system gives it.
        """
        try:
            fd = self._disk.open(self._path(session_id), os.O_RDONLY)
        except FileNotFoundError:
            return NOTHING_SPENT
        try:
            found = os.fstat(fd)
            known = self._totals.pop(session_id, _Total(found.st_ino, 0, NOTHING_SPENT))
            if known.inode != found.st_ino or known.end > found.st_size:
                known = _Total(found.st_ino, 0, NOTHING_SPENT)
            data = self._disk.read_at(fd, found.st_size - known.end, known.end)
        finally:
            self._disk.close(fd)
        end = data.rfind(b"\n") + 1
        spent = known.spent
        for line in data[:end].split(b"\n"):
            if line:
                spent = spent.plus(_read_row(line))
        self._totals[session_id] = _Total(found.st_ino, known.end + end, spent)
        if len(self._totals) > _KEPT_TOTALS:
            self._totals.popitem(last=False)
        return spent

    def _path(self, session_id: str) -> str:
        return f"{self._sessions}/{session_id}{USAGE_SUFFIX}"


def _read_row(line: bytes) -> Spent:
    try:
        row = _rows.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _UNKNOWN
    return Spent(row.usage, row.cost_usd)
