"""Ends what tools and extensions of a killed daemon left running.

A daemon that dies by SIGKILL takes its direct children along (parent-death signal), not what they started.  Every child
carries in its environment which daemon started it (:data:`nous.system.proctree.MARK_VARIABLE`), and children inherit
environments; the next daemon on the state directory, ``nous gc`` and ``nous doctor --repair`` look for the marks of
dead daemons.

Limits: Linux only.  A process that left both its parents and its environment behind (``env -i``) is not found, nor one
whose environment this user cannot read.
"""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from nous.system import procfs
from nous.system.procfs import ProcessStat
from nous.system.proctree import MARK_VARIABLE, epochs_in, signal_exactly

TERM_GRACE_S: Final = 2.0
KILL_LIMIT_S: Final = 5.0
_LOOK_S: Final = 0.05


def end_orphans(dead_epochs: Collection[str], should_stop: Callable[[], bool] = lambda: False) -> int:
    """End every process that daemons of ``dead_epochs`` left behind: TERM, after two seconds KILL.

    Returns how many there were at first.  Blocks for up to seven seconds; ``should_stop`` is asked in between.  This
    process and its ancestors are spared, and so is what this process started itself.
    """
    if not dead_epochs:
        return 0
    found = find_orphans(dead_epochs)
    count = len(found)
    for signum, limit_s in ((signal.SIGTERM, TERM_GRACE_S), (signal.SIGKILL, KILL_LIMIT_S)):
        deadline = time.monotonic() + limit_s
        told: set[ProcessStat] = set()
        while found and time.monotonic() < deadline and not should_stop():
            for stat in found:
                if stat not in told:
                    signal_exactly(stat, signum)
            told.update(found)
            time.sleep(_LOOK_S)
            found = find_orphans(dead_epochs)
    return count


def find_orphans(dead_epochs: Collection[str]) -> list[ProcessStat]:
    """Return the living processes that carry a mark of one of ``dead_epochs``, and all their descendants."""
    processes = procfs.all_processes()
    children: defaultdict[int, list[int]] = defaultdict(list)
    for stat in processes.values():
        children[stat.parent].append(stat.pid)
    spared = {*_ancestors(os.getpid(), processes), *_descendants([os.getpid()], children, frozenset())}
    wanted = frozenset(dead_epochs)
    marked = [
        pid
        for pid, stat in processes.items()
        if pid not in spared and not stat.is_dead and wanted & epochs_in(procfs.read_variable(pid, MARK_VARIABLE) or "")
    ]
    found = [processes[pid] for pid in _descendants(marked, children, spared)]
    return [stat for stat in found if not stat.is_dead]


def _ancestors(pid: int, processes: Mapping[int, ProcessStat]) -> Iterator[int]:
    while pid in processes:
        yield pid
        pid = processes[pid].parent


def _descendants(roots: Collection[int], children: Mapping[int, list[int]], spared: Collection[int]) -> set[int]:
    """Return ``roots`` and everything below them, without ``spared`` and what is only below those."""
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found and pid not in spared:
            found.add(pid)
            waiting += children.get(pid, [])
    return found
