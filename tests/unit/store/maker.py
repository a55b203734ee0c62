"""A process that makes a session and is gone at the n-th call to the disk.  Run by the tests of the store.

usage: maker.py DIRECTORY SESSION N (exit code 9 if the call came, else 0)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nous.store.disk import Disk
from nous.store.sessions import SessionStore


class LastDisk(Disk):
    """A disk whose caller does not live to see its n-th call begin."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return self._counted(found) if name in vars(Disk) and callable(found) else found

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        self._left -= 1
        if not self._left:
            os._exit(9)
        return call


if __name__ == "__main__":
    SessionStore(Path(sys.argv[1]), disk=LastDisk(int(sys.argv[3]))).create(sys.argv[2], "2026-01-01T00:00:00.000Z")
