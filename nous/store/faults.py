"""A disk that fails on purpose: for tests, and for runs that ask for injected faults."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from nous.store.disk import Disk

FAULTABLE = frozenset({"open", "write", "truncate", "sync", "rename", "sync_directory"})


class FaultyDisk(Disk):
    """Makes the ``at``-th call (from 1) of the named operations fail with ``code``; if ``stays``, later ones too.

    A write that fails with ENOSPC first takes half of its bytes, as a disk that fills up does: the call itself
    comes back short, and it is the next one that says why.  ``fired`` tells whether the fault was reached.
    """

    def __init__(
        self,
        at: int,
        code: int = errno.EIO,
        operations: frozenset[str] = FAULTABLE,
        *,
        stays: bool = False,
    ) -> None:
        self.fired = False
        self._left = at
        self._code = code
        self._operations = operations
        self._stays = stays
        self._full = False

    def open(self, path: str, flags: int) -> int:
        """Open a file, unless this call is the one that fails."""
        self._count("open")
        return super().open(path, flags)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write, unless this call is the one that fails; a full disk takes a part first."""
        if self._full:
            self._full = self._stays
            self._fail()
        if self._code != errno.ENOSPC:
            self._count("write")
        elif self._due("write"):
            self._full = True
            return super().write(fd, memoryview(data)[: len(data) // 2])
        return super().write(fd, data)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file, unless this call is the one that fails."""
        self._count("truncate")
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        """Sync a file, unless this call is the one that fails."""
        self._count("sync")
        super().sync(fd)

    def rename(self, source: str, target: str) -> None:
        """Rename a file, unless this call is the one that fails."""
        self._count("rename")
        super().rename(source, target)

    def sync_directory(self, path: str) -> None:
        """Sync a directory, unless this call is the one that fails."""
        self._count("sync_directory")
        super().sync_directory(path)

    def _count(self, operation: str) -> None:
        if self._due(operation):
            self._fail()

    def _due(self, operation: str) -> bool:
        if operation not in self._operations:
            return False
        self._left -= 1
        due = self._left == 0 or (self._stays and self._left < 0)
        self.fired = self.fired or due
        return due

    def _fail(self) -> None:
        raise OSError(self._code, os.strerror(self._code))


def until_none_fires(attempt: Callable[[FaultyDisk], None], code: int, operations: frozenset[str] = FAULTABLE) -> int:
    """Call ``attempt`` with a disk that fails at call 1, 2, 3, ... until none does; return how many faults fired."""
    at = 1
    while True:
        disk = FaultyDisk(at, code, operations)
        attempt(disk)
        if not disk.fired:
            return at - 1
        at += 1
