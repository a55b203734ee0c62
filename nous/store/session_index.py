"""The list of all sessions, newest first, from an index that is only a cache.

``.sessions.index`` lies beside the sessions.  It holds what a list shows of each, and the size, time and inode of the
file that it was read from: a row whose file has changed is read again from where it ended.  The index may be deleted at
any time, is thrown away if it cannot be read, and is written (atomically, under ``.sessions.lock``) only when much has
changed since; nothing but speed depends on it.
"""

import heapq
import os
import re
import threading
import time
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import Struct

from nous.errors import NousError
from nous.protocol.entries import SessionInfo
from nous.store.disk import Disk, io_failure, replace_file
from nous.store.locks import try_lock, unlock
from nous.store.session_scan import NOTHING, Scan, scan_session

INDEX_NAME: Final = ".sessions.index"
LOCK_NAME: Final = ".sessions.lock"

SAFE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")

MAX_PAGE: Final = 500
"""More rows than this, at their longest, might not fit a line of 1 MiB."""

_SUFFIX: Final = ".ndjson"
_FORMAT: Final = 1
_UNSAVED_ROWS: Final = 64
"""Up to so many changed rows are read again by each new process rather than written."""

_SETTLED_NS: Final = 100_000_000
"""A file that changed less than 100 ms before it was read may change again without another time on it."""


class SessionPage(NamedTuple):
    """Some sessions, newest first; ``next_cursor`` is None on the last page."""

    sessions: list[SessionInfo]
    next_cursor: str | None


_Stamp = tuple[int, int, int]
"""Size, time in nanoseconds and inode of a file as it was looked at."""

_UNSETTLED: Final[_Stamp] = (-1, -1, -1)


class _Row(Struct, frozen=True, gc=False, array_like=True):
    stamp: _Stamp
    scan: Scan


class _Index(Struct, frozen=True):
    format: int
    rows: dict[str, _Row]


_decode: Final = msgspec.json.Decoder(_Index).decode
_encode: Final = msgspec.json.Encoder().encode


class SessionIndex:
    """Lists the sessions of a directory.  May be used by any thread; one at a time gets in."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory = str(directory)
        self._disk = disk
        self._entry = threading.Lock()
        self._rows: dict[str, _Row] | None = None
        self._unsaved = 0

    def page(self, limit: int, cursor: str | None) -> SessionPage:
        """Return the ``limit`` (1 to ``MAX_PAGE``) sessions that follow ``cursor``.  Blocks while it reads.

        Ordered by when they were last changed.  A session that changes while somebody pages through moves to the
        front and is not seen again.  Sessions that cannot be read are left out.  Without the directory there are none.

        Raises:
            NousError: ``invalid_payload`` for a cursor that was not given here; ``io_failure``.
        """
        before = None if cursor is None else _parse_cursor(cursor)
        with self._entry:
            try:
                self._refresh()
            except OSError as error:
                raise io_failure(error, self._directory) from error
            rows = (self._rows or {}).values()
            found = [(info.updated_at, info.session_id, info) for row in rows if (info := row.scan.info) is not None]
        if before is not None:
            found = [item for item in found if item[:2] < before]
        limit = max(1, min(limit, MAX_PAGE))
        page = [info for _, _, info in heapq.nlargest(limit, found)]
        return SessionPage(page, cursor_after(page[-1]) if len(found) > limit else None)

    def _refresh(self) -> None:
        """Bring every row up to date with its file."""
        known = self._load() if self._rows is None else self._rows
        rows: dict[str, _Row] = {}
        changed = 0
        for session_id, path, stamp in self.files():
            row = known.get(session_id)
            if row is None or row.stamp != stamp:
                row = self._look(session_id, path, None if row is None else row.scan)
                if row is None:
                    continue
                changed += 1
            rows[session_id] = row
        self._unsaved += changed + len(known.keys() - rows.keys())
        self._rows = rows
        if self._unsaved > _UNSAVED_ROWS:
            self._save()

    def files(self) -> list[tuple[str, str, _Stamp]]:
        """Return the id, path and stamp of every session's file as it is now."""
        found = []
        try:
            entries = os.scandir(self._directory)
        except FileNotFoundError:
            return []
        with entries:
            for entry in entries:
                session_id = entry.name.removesuffix(_SUFFIX)
                if session_id == entry.name or SAFE_ID.fullmatch(session_id) is None:
                    continue
                try:
                    found.append((session_id, entry.path, _stamp(entry.stat())))
                except FileNotFoundError:
                    continue
        return found

    def _look(self, session_id: str, path: str, known: Scan | None) -> _Row | None:
        looked_ns = time.time_ns()
        try:
            fd = self._disk.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError:
            return _Row(_UNSETTLED, NOTHING)
        try:
            size, mtime_ns, inode = _stamp(os.fstat(fd))
            scan = scan_session(self._disk, fd, session_id, size, known)
        except OSError:
            return _Row(_UNSETTLED, NOTHING)
        finally:
            self._disk.close(fd)
        is_settled = mtime_ns + _SETTLED_NS < looked_ns
        return _Row((size, mtime_ns, inode) if is_settled else _UNSETTLED, scan)

    def _load(self) -> dict[str, _Row]:
        try:
            index = _decode(Path(self._directory, INDEX_NAME).read_bytes())
        except (OSError, msgspec.DecodeError, UnicodeError, RecursionError):
            return {}
        return index.rows if index.format == _FORMAT else {}

    def _save(self) -> None:
        """Write the index, unless somebody else does so right now, or it cannot be written: it is only a cache."""
        try:
            lock = try_lock(self._disk, f"{self._directory}/{LOCK_NAME}")
            if lock is None:
                return
            try:
                data = _encode(_Index(_FORMAT, self._rows or {}))
                replace_file(self._disk, f"{self._directory}/{INDEX_NAME}", data)
            finally:
                unlock(self._disk, lock)
        except OSError:
            return
        self._unsaved = 0


IndexState = Literal["absent", "fresh", "behind", "damaged"]


def look_at_index(directory: Path) -> tuple[IndexState, int]:
    """Say how well the index describes the sessions, and of how many it does not; reads no session, writes nothing.

    ``fresh``: so few have changed that nobody would write it anew.
    """
    index = SessionIndex(directory, Disk())
    try:
        known = _decode((directory / INDEX_NAME).read_bytes())
    except FileNotFoundError:
        return "absent", 0
    except (OSError, msgspec.DecodeError, UnicodeError, RecursionError):
        return "damaged", 0
    if known.format != _FORMAT:
        return "behind", len(known.rows)
    files = {session_id: stamp for session_id, _, stamp in index.files()}
    changed = sum(
        session_id not in known.rows or known.rows[session_id].stamp != files[session_id] for session_id in files
    )
    changed += len(known.rows.keys() - files.keys())
    return ("behind" if changed > _UNSAVED_ROWS else "fresh"), changed


def cursor_after(info: SessionInfo) -> str:
    """Return the cursor of the page that begins behind a session."""
    return f"{info.updated_at}~{info.session_id}"


def _parse_cursor(cursor: str) -> tuple[str, str]:
    updated_at, separator, session_id = cursor.rpartition("~")
    if not separator or SAFE_ID.fullmatch(session_id) is None:
        raise NousError("invalid_payload", "cursor: not one that nous gave")
    return updated_at, session_id


def _stamp(info: os.stat_result) -> _Stamp:
    return info.st_size, info.st_mtime_ns, info.st_ino
