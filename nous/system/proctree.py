"""Who belongs to a child: everything it started, also what left its group, its session or its environment behind.

A process belongs to a tree if

* its session or group is the root's (the root is reaped last, so that its pid cannot mean somebody else),
* its parent belongs to the tree,
* it was seen as such before its parent died,
* it is an orphan whose environment carries the tree's mark, or
* it is an orphan of ours without any mark, and every other tree running now began after it did.

Orphans come to the daemon itself once it is a child subreaper.  In such a process every child must be started by
:mod:`nous.system.process`: one that was not looks like an orphan.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from nous.system import procfs
from nous.system.procfs import ProcessStat

MARK_VARIABLE: Final = "_NOUS_TREE"
"""Holds the marks of all trees a process is in, outermost first: nous may run within a tool of nous.

Each mark is preceded by a colon and is ``<epoch>.<random>``, or ``<random>`` where the process has no epoch.
"""


_MAX_FREEZE_PASSES: Final = 20
_MAX_LAST_LOOKS: Final = 100
_CHASE_S: Final = 0.05
_MAX_STRIKES: Final = 200


class _Family:
    """What the trees of this process share.

    ``lock`` is held while a child is being started and while /proc is read: a child that exists but is not in
    ``roots`` yet would look like an orphan.  ``epoch``: of the daemon this process is, if it is one.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.roots: dict[int, ProcessTree] = {}
        self.adopts_orphans = False
        self.epoch = ""

    def new_mark(self) -> str:
        """Return a mark for a child that is to be started."""
        random = os.urandom(8).hex()
        return f"{self.epoch}.{random}" if self.epoch else random


FAMILY: Final = _Family()


class ProcessTree:
    """The processes of one child.  Calls are short and synchronous; :meth:`members` reads all of /proc.

    Made under ``FAMILY.lock``, together with the child.
    """

    def __init__(self, root_pid: int, mark: str) -> None:
        stat = procfs.read_stat(root_pid)
        self._root_pid = root_pid
        self._started = 0 if stat is None else stat.started
        self._mark = mark
        self._seen: dict[int, int] = {}
        FAMILY.roots[root_pid] = self

    def members(self) -> list[ProcessStat]:
        """Return the tree's processes that still run, the root included, and reap orphans that ended."""
        with FAMILY.lock:
            processes = procfs.all_processes()
            roots = dict(FAMILY.roots)
        found = self._founders(processes, roots)
        children = _children_by_parent(processes)
        waiting = list(found)
        while waiting:
            new = [pid for pid in children[waiting.pop()] if pid not in found]
            found.update(new)
            waiting += new
        self._seen = {pid: processes[pid].started for pid in found}
        with FAMILY.lock:
            _reap(stat for stat in processes.values() if stat.pid not in roots)
        return [processes[pid] for pid in found if not processes[pid].is_dead]

    def is_any_left(self) -> bool:
        """Return whether a process of the tree still runs.

        :meth:`members` alone misses processes that each start a successor and end: each is gone before its entry in
        /proc is read.  Such a chain always shows as children of this process, though, living or dead, and the kernel
        lists these in one step: only if none is left has the chain ended.
        """
        if self.members():
            return True
        if not (FAMILY.adopts_orphans and procfs.lists_children()):
            return False
        for _ in range(_MAX_LAST_LOOKS):
            look = _look_at_orphans(waits=True)
            if any(self._claims(stat, look.roots) for stat in look.living):
                return True
            if not look.reaped:
                return False
        return True

    def observe(self) -> int:
        """Remember who belongs to the tree now; return their resident memory in bytes (shared memory counted twice).

        Costs a few small reads per process of the tree and per orphan, whatever else runs on the machine.  Reaps dead
        orphans: a long command may leave thousands.
        """
        if not procfs.lists_children():
            return sum(procfs.resident_bytes(member.pid) for member in self.members())
        found: dict[int, int] = {}
        waiting = [self._root_pid, *self._seen, *self._adopted()]
        while waiting:
            pid = waiting.pop()
            stat = None if pid in found else procfs.read_stat(pid)
            if stat is None or stat.is_dead or self._seen.get(pid, stat.started) != stat.started:
                continue
            found[pid] = stat.started
            waiting += procfs.children_of(pid)
        self._seen = found
        return sum(map(procfs.resident_bytes, found))

    def proportional_bytes(self) -> int:
        """Return the memory of everyone seen, shared memory counted once.  Slow; may wait for a busy process."""
        return sum(map(procfs.proportional_bytes, self._seen))

    def cpu_seconds(self) -> float:
        """Return the CPU time of everyone seen, and of what they started and waited for."""
        return sum(map(procfs.cpu_seconds, self._seen))

    def size(self) -> int:
        """Return how many processes were seen when somebody last looked."""
        return len(self._seen)

    def may_have_outlived_root(self) -> bool:
        """Return whether somebody may still run now that the root has exited.  Cheap if there is nobody."""
        if FAMILY.adopts_orphans and procfs.lists_children():
            return any(pid not in FAMILY.roots for pid in procfs.children_of(os.getpid()))
        return True

    def signal(self, signum: int) -> None:
        """Send ``signum`` to every process of the tree, and to no other."""
        members = self.members()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._root_pid, signum)
        for member in members:
            if member.group != self._root_pid:
                signal_exactly(member, signum)

    def kill(self) -> None:
        """Send SIGKILL to every process of the tree.

        The root's group gets it in one system call, which no fork escapes.  What left the group is stopped first, until
        nothing new appears, because a process that is stopped cannot fork.
        """
        self.kill_group()
        stopped: set[tuple[int, int]] = set()
        for _ in range(_MAX_FREEZE_PASSES):
            members = self.members()
            new = [member for member in members if (member.pid, member.started) not in stopped]
            if not new:
                break
            for member in new:
                signal_exactly(member, signal.SIGSTOP)
                stopped.add((member.pid, member.started))
        for member in members:
            signal_exactly(member, signal.SIGKILL)
        self._chase()

    def _chase(self) -> None:
        """Send SIGKILL to orphans of the tree, look after look, until there is none or ``_CHASE_S`` has passed.

        A process that starts a successor and ends lives for less than a millisecond: a look at all of /proc, or at all
        that is known of one process, is too slow.
        """
        until_s = time.monotonic() + _CHASE_S
        while FAMILY.adopts_orphans and procfs.lists_children() and time.monotonic() < until_s:
            look = _look_at_orphans(waits=True)
            spared = {stat.pid for stat in look.living if not self._claims(stat, look.roots)}
            if len(spared) == len(look.living) and not look.reaped:
                return
            self._strike(spared)

    def _strike(self, spared: set[int]) -> None:
        """Send SIGKILL to each new orphan of the tree in the moment in which the kernel lists it.

        The pid of a child that is listed cannot mean another process: nobody reaps orphans while the lock is held.
        """
        with FAMILY.lock:
            spared |= FAMILY.roots.keys()
            is_only_tree = len(FAMILY.roots) == 1
            for _ in range(_MAX_STRIKES):
                new = [pid for pid in procfs.adopted_by(os.getpid()) if pid not in spared]
                for pid in new:
                    if is_only_tree or self._mark in (procfs.read_variable(pid, MARK_VARIABLE) or ""):
                        os.kill(pid, signal.SIGKILL)
                spared.update(new)
                if not new:
                    return

    def kill_group(self) -> None:
        """Send SIGKILL to the root's process group.  One system call: also while the machine hardly answers."""
        stat = procfs.read_stat(self._root_pid)
        if stat is None or stat.started == self._started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._root_pid, signal.SIGKILL)

    def forget(self) -> None:
        """The root has been reaped: from now on its pid may mean somebody else."""
        FAMILY.roots.pop(self._root_pid, None)

    def _founders(self, processes: Mapping[int, ProcessStat], roots: Mapping[int, ProcessTree]) -> set[int]:
        return {
            stat.pid
            for stat in processes.values()
            if self._root_pid in (stat.session, stat.group)
            or self._seen.get(stat.pid) == stat.started
            or self._claims(stat, roots)
        }

    def _adopted(self) -> list[int]:
        """Return the orphans of ours that were not seen before their parents died."""
        look = _look_at_orphans(waits=False)
        return [stat.pid for stat in look.living if stat.pid not in self._seen and self._claims(stat, look.roots)]

    def _claims(self, stat: ProcessStat, roots: Mapping[int, ProcessTree]) -> bool:
        """Return whether this is an orphan of ours.  Where no one adopts them, only the mark can tell."""
        if stat.started < self._started or stat.pid in roots or stat.is_dead:
            return False
        if FAMILY.adopts_orphans and stat.parent != os.getpid():
            return False
        marks = procfs.read_variable(stat.pid, MARK_VARIABLE) or ""
        if any(tree._mark in marks for tree in roots.values()):
            return self._mark in marks
        others = (tree for tree in roots.values() if tree is not self)
        return FAMILY.adopts_orphans and all(tree._started > stat.started for tree in others)


def epochs_in(marks: str) -> frozenset[str]:
    """Return the epochs of the daemons whose marks stand in a value of ``MARK_VARIABLE``."""
    return frozenset(epoch for epoch, dot, _ in (mark.partition(".") for mark in marks.split(":")) if dot)


def kill_every_tree(limit_s: float) -> None:
    """Send SIGKILL to every child and all it started, without waiting for their end; return within ``limit_s``.

    For the moment before this process ends itself, from any thread.
    """
    trees = tuple(FAMILY.roots.values())
    for tree in trees:
        tree.kill_group()
    # Reading /proc takes a lock that another thread may hold for ever.
    rest = threading.Thread(target=_kill_each, args=(trees,), daemon=True)
    if trees:
        with contextlib.suppress(RuntimeError):
            rest.start()
            rest.join(limit_s)


def _kill_each(trees: Iterable[ProcessTree]) -> None:
    for tree in trees:
        tree.kill()


def _children_by_parent(processes: Mapping[int, ProcessStat]) -> defaultdict[int, list[int]]:
    children: defaultdict[int, list[int]] = defaultdict(list)
    for stat in processes.values():
        children[stat.parent].append(stat.pid)
    return children


class _Orphans(NamedTuple):
    """The orphans that this process has adopted: those that run, and how many dead ones were reaped."""

    living: list[ProcessStat]
    reaped: int
    roots: dict[int, ProcessTree]


def _look_at_orphans(*, waits: bool) -> _Orphans:
    """Reap the dead orphans and return the others.

    A child that is being started is not in ``roots`` yet and would look like an orphan: while one is, this waits, or
    (``waits=False``) returns none.
    """
    if not FAMILY.adopts_orphans or not FAMILY.lock.acquire(blocking=waits):
        return _Orphans([], 0, {})
    try:
        roots = dict(FAMILY.roots)
        stats = [procfs.read_stat(pid) for pid in procfs.children_of(os.getpid()) if pid not in roots]
        orphans = [stat for stat in stats if stat is not None]
        _reap(orphans)
        living = [stat for stat in orphans if not stat.is_dead]
        return _Orphans(living, len(stats) - len(living), roots)
    finally:
        FAMILY.lock.release()


def _reap(stats: Iterable[ProcessStat]) -> None:
    """Reap the dead among adopted processes; a root is reaped by who started it."""
    for stat in stats:
        if stat.is_dead and FAMILY.adopts_orphans and stat.parent == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(stat.pid, os.WNOHANG)


def signal_exactly(stat: ProcessStat, signum: int) -> None:
    """Send ``signum`` to this process, never to one that got its pid meanwhile; a process that is gone gets nothing."""
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(stat.pid)
        try:
            now = procfs.read_stat(stat.pid)
            if now is not None and now.started == stat.started:
                signal.pidfd_send_signal(fd, signum)
        finally:
            os.close(fd)
