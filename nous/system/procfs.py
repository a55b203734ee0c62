"""What Linux's /proc says about processes: parents, memory, one variable of an environment.

Every function answers for a process that is gone as for one that has nothing, and never raises: between the
question and the answer anything may exit.  Without /proc (macOS) there are no processes to see.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_MAX_ENVIRON_BYTES: Final = 4 * 1024 * 1024


class ProcessStat(NamedTuple):
    """One process.  ``started`` (clock ticks since boot) tells apart two processes that had the same pid."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: int

    @property
    def is_dead(self) -> bool:
        """Whether the process has ended and was not reaped."""
        return self.state in "ZX"


@cache
def lists_children() -> bool:
    """Return whether this kernel lists a thread's children (most do)."""
    return Path(f"/proc/self/task/{os.getpid()}/children").exists()


def read_stat(pid: int) -> ProcessStat | None:
    """Return what is known of ``pid``, or ``None`` if there is no such process."""
    data = _read(f"/proc/{pid}/stat")
    # The command's name stands in parentheses and may hold anything, also parentheses and spaces.
    fields = data[data.rfind(b")") + 2 :].split()
    if len(fields) < 20:
        return None
    return ProcessStat(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def all_processes() -> dict[int, ProcessStat]:
    """Return every process there is, by pid."""
    stats = (read_stat(int(name)) for name in _list("/proc") if name.isdecimal())
    return {stat.pid: stat for stat in stats if stat is not None}


def children_of(pid: int) -> list[int]:
    """Return the children of ``pid``, of all its threads.  Complete if none of them is being reaped meanwhile."""
    children: list[int] = []
    for thread in _list(f"/proc/{pid}/task"):
        children += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    return children


def adopted_by(pid: int) -> list[int]:
    """Return the children of the first thread of ``pid``: the one that orphans are given to.  One short read."""
    return list(map(int, _read(f"/proc/{pid}/task/{pid}/children").split()))


def resident_bytes(pid: int) -> int:
    """Return the memory ``pid`` has in RAM, counting what it shares with others in full."""
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * _PAGE_BYTES if len(fields) > 1 else 0


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of ``pid`` and of its children that have exited and were waited for."""
    data = _read(f"/proc/{pid}/stat")
    fields = data[data.rfind(b")") + 2 :].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_S


def proportional_bytes(pid: int) -> int:
    """Return the memory ``pid`` has in RAM, its share only of what it shares.  Slow: walks the page tables."""
    for line in _read(f"/proc/{pid}/smaps_rollup").split(b"\n"):
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return resident_bytes(pid)


def read_variable(pid: int, name: str) -> str | None:
    """Return the variable ``name`` of the environment ``pid`` was started with, or ``None``."""
    prefix = name.encode() + b"="
    for entry in _read(f"/proc/{pid}/environ", _MAX_ENVIRON_BYTES).split(b"\0"):
        if entry.startswith(prefix):
            return os.fsdecode(entry[len(prefix) :])
    return None


def _list(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries]
    except OSError:
        return []


def _read(path: str, limit: int = 65536) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        chunks = []
        while limit > 0 and (chunk := os.read(fd, limit)):
            chunks.append(chunk)
            limit -= len(chunk)
        return b"".join(chunks)
    except OSError:
        return b""
    finally:
        os.close(fd)
