"""Setting aside what is damaged, on request: moved whole to where nobody reads it, never removed.

A session is moved under its own lock, so no writer is in the middle of it; the next one that asks for it is told that
there is none.  Source of the rules: docs/sessions.md, "The file".
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from nous.store.disk import Disk, io_failure
from nous.store.locks import STANDARD, contention, try_lock, unlock
from nous.store.session_log import SessionLog, read_whole
from nous.store.torn import keep_torn_tail
from nous.system.steps import complete

QUARANTINE_DIR: Final = "quarantine"


def quarantine_session(sessions: Path, session_id: str) -> Path:
    """Move a session's file to ``<state>/quarantine``; return where it is now.

    Raises:
        NousError: ``state_contention`` if somebody is writing it; ``io_failure``.
    """
    path = sessions / f"{session_id}.ndjson"
    disk = Disk()
    lock = _lock(disk, sessions, session_id)
    try:
        return set_aside(path, sessions.parent / QUARANTINE_DIR)
    finally:
        unlock(disk, lock)


def cut_torn_tail(sessions: Path, session_id: str) -> Path | None:
    """Keep the torn tail of an intact session aside and cut it; return where it was kept, or None if there is none.

    Raises:
        NousError: as :func:`quarantine_session`, or ``session_corrupt``.
    """
    path = str(sessions / f"{session_id}.ndjson")
    disk = Disk()
    lock = _lock(disk, sessions, session_id)
    try:
        fd = disk.open(path, os.O_RDWR)
        try:
            log: SessionLog | None = complete(read_whole(disk, fd, session_id))
            size = os.fstat(fd).st_size
            if log is None or log.end >= size:
                return None
            torn = keep_torn_tail(disk, fd, path, log.end, size)
            disk.sync(fd)
            return Path(torn.path)
        finally:
            disk.close(fd)
    except OSError as error:
        raise io_failure(error, path) from error
    finally:
        unlock(disk, lock)


def set_aside(path: Path, quarantine: Path) -> Path:
    """Move a file into the quarantine, under the first name that is free there.

    Raises:
        NousError: ``io_failure``.
    """
    try:
        quarantine.mkdir(0o700, exist_ok=True)
        number = 1
        while (target := quarantine / f"{path.name}.{number}").exists():
            number += 1
        path.rename(target)
        Disk().sync_directory(str(quarantine))
    except OSError as error:
        raise io_failure(error, str(path)) from error
    return target


def _lock(disk: Disk, sessions: Path, session_id: str) -> int:
    path = str(sessions / f"{session_id}.lock")
    try:
        lock = try_lock(disk, path)
    except OSError as error:
        raise io_failure(error, path) from error
    if lock is None:
        raise contention(path, 0, 1, STANDARD)
    return lock
