"""Temp files that killed processes left beside the sessions: removed under the lock they were written under."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from nous.store.disk import TEMP_SUFFIX, Disk, remove_quietly, temp_name
from nous.store.locks import try_lock, unlock
from nous.store.session_index import INDEX_NAME, LOCK_NAME, SAFE_ID

_SESSION_TEMP_SUFFIX: Final = f".ndjson{TEMP_SUFFIX}"


def sweep_temps(disk: Disk, directory: str) -> list[str]:
    """Remove what was left; return the names.  Where somebody holds the lock, somebody is at work: that stays.

    Raises:
        OSError: as the system gives it; without the directory there is nothing to sweep.
    """
    found: list[tuple[str, str]] = []
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        found = [(entry.name, named) for entry in entries if (named := _lock_of(entry.name)) is not None]
    removed = []
    for name, lock_name in found:
        lock = try_lock(disk, f"{directory}/{lock_name}")
        if lock is not None:
            remove_quietly(f"{directory}/{name}")
            unlock(disk, lock)
            removed.append(name)
    return removed


def _lock_of(name: str) -> str | None:
    """Return the name of the lock under which a temp file is written, or None if it is not one."""
    if name == temp_name(INDEX_NAME):
        return LOCK_NAME
    session_id = name[1 : -len(_SESSION_TEMP_SUFFIX)]
    if name == f".{session_id}{_SESSION_TEMP_SUFFIX}" and SAFE_ID.fullmatch(session_id):
        return f"{session_id}.lock"
    return None
