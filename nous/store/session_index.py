"""The list of all sessions, newest first, from an index that is only a cache.

``.sessions.index`` lies beside the sessions.  It holds what a list shows of each, and the size, time and inode of the
file that it was read from: a row whose file has changed is read again from where it ended.  The index may be deleted at
any time, is thrown away if it cannot be read, and is written (atomically, under ``.sessions.lock``) only when much has
changed since; nothing but speed depends on it.

    {"format":2,"rows":<how many>}
    ["<session id>",[<size>,<time in ns>,<inode>],[<end>,"<seal>",[<what a list shows>]]]
    ...

It has a line per session because it is read and written in a thread beside the event loop: one call that decodes or
encodes all of it would hold the interpreter's lock, and so the loop, for as long as it takes.
"""

import heapq
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import Struct

from nous.errors import NousError
from nous.protocol.entries import SessionInfo
from nous.store.disk import Disk, io_failure, replace_file
from nous.store.lines import LineTooLongError, read_lines
from nous.store.locks import try_lock, unlock
from nous.store.session_scan import NOTHING, Scan, scan_session
from nous.system.collector import set_aside

INDEX_NAME: Final = ".sessions.index"
LOCK_NAME: Final = ".sessions.lock"

SAFE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")

MAX_PAGE: Final = 500
"""More rows than this, at their longest, might not fit a line of 1 MiB."""

_SUFFIX: Final = ".ndjson"
_FORMAT: Final = 2
_UNSAVED_ROWS: Final = 64
"""Up to so many changed rows are read again by each new process rather than written."""

_FORMAT_FIELD: Final = re.compile(rb'\{"format":(\d{1,9}),')

_MAX_ROW_BYTES: Final = 64 * 1024
_ROWS_AT_ONCE: Final = 1000

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
    session_id: str
    stamp: _Stamp
    scan: Scan


class _Head(Struct, frozen=True):
    format: int
    rows: int


class _UnreadableIndexError(Exception):
    """The index is not one, or not all of one.  ``is_other``: it has another format."""

    def __init__(self, *, is_other: bool = False) -> None:
        super().__init__()
        self.is_other = is_other


_decode_head: Final = msgspec.json.Decoder(_Head).decode
_decode_row: Final = msgspec.json.Decoder(_Row).decode
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
            rows = self._rows or {}
        infos = (info for row in rows.values() if (info := row.scan.info) is not None)
        found = ((info.updated_at, info.session_id, info) for info in infos)
        limit = max(1, min(limit, MAX_PAGE))
        page = [
            info
            for _, _, info in heapq.nlargest(limit + 1, (one for one in found if before is None or one[:2] < before))
        ]
        return SessionPage(page[:limit], cursor_after(page[limit - 1]) if len(page) > limit else None)

    def _refresh(self) -> None:
        """Bring every row up to date with its file."""
        known = self._load() if self._rows is None else self._rows
        self._rows = None  # if this fails, the index is read again
        rows: dict[str, _Row] = {}
        changed = 0
        for session_id, path, stamp in self.files():
            row = known.pop(session_id, None)
            if row is None or row.stamp != stamp:
                row = self._look(session_id, path, None if row is None else row.scan)
                if row is None:
                    continue
                changed += 1
            rows[session_id] = row
            if len(rows) == _ROWS_AT_ONCE:
                set_aside()
        self._unsaved += changed + len(known)
        while known:
            known.popitem()  # one by one: freeing all at once would hold the interpreter's lock
        self._rows = rows
        if self._unsaved > _UNSAVED_ROWS:
            self._save()

    def files(self) -> Iterator[tuple[str, str, _Stamp]]:
        """Yield the id, path and stamp of every session's file as it is now."""
        try:
            entries = os.scandir(self._directory)
        except FileNotFoundError:
            return
        with entries:
            for entry in entries:
                session_id = entry.name.removesuffix(_SUFFIX)
                if session_id == entry.name or SAFE_ID.fullmatch(session_id) is None:
                    continue
                try:
                    stamp = _stamp(entry.stat())
                except FileNotFoundError:
                    continue
                yield session_id, entry.path, stamp

    def _look(self, session_id: str, path: str, known: Scan | None) -> _Row | None:
        looked_ns = time.time_ns()
        try:
            fd = self._disk.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError:
            return _Row(session_id, _UNSETTLED, NOTHING)
        try:
            size, mtime_ns, inode = _stamp(os.fstat(fd))
            scan = scan_session(self._disk, fd, session_id, size, known)
        except OSError:
            return _Row(session_id, _UNSETTLED, NOTHING)
        finally:
            self._disk.close(fd)
        is_settled = mtime_ns + _SETTLED_NS < looked_ns
        return _Row(session_id, (size, mtime_ns, inode) if is_settled else _UNSETTLED, scan)

    def _load(self) -> dict[str, _Row]:
        try:
            return _read_index(self._disk, self._directory)
        except (OSError, _UnreadableIndexError):
            return {}

    def _save(self) -> None:
        """Write the index, unless somebody else does so right now, or it cannot be written: it is only a cache."""
        try:
            lock = try_lock(self._disk, f"{self._directory}/{LOCK_NAME}")
            if lock is None:
                return
            try:
                replace_file(self._disk, f"{self._directory}/{INDEX_NAME}", _encoded(self._rows or {}))
            finally:
                unlock(self._disk, lock)
        except OSError:
            return
        self._unsaved = 0


def _encoded(rows: dict[str, _Row]) -> Iterator[bytes]:
    yield _encode(_Head(_FORMAT, len(rows))) + b"\n"
    lines: list[bytes] = []
    for row in rows.values():
        lines.append(_encode(row) + b"\n")
        if len(lines) == _ROWS_AT_ONCE:
            yield b"".join(lines)
            lines.clear()
    yield b"".join(lines)


def _read_index(disk: Disk, directory: str) -> dict[str, _Row]:
    """Return the rows of the index.

    Raises:
        OSError: it cannot be read.
        _UnreadableIndexError: as it says.
    """
    fd = disk.open(f"{directory}/{INDEX_NAME}", os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        lines = (line for some in read_lines(disk, fd, 0, size, _MAX_ROW_BYTES) for line in some)
        found = _FORMAT_FIELD.match(disk.read_at(fd, 32, 0))
        if found is not None and int(found[1]) != _FORMAT:
            raise _UnreadableIndexError(is_other=True)
        head = _decode_head(next(lines, b""))
        rows: dict[str, _Row] = {}
        for line in lines:
            row = _decode_row(line)
            rows[row.session_id] = row
            if len(rows) == _ROWS_AT_ONCE:
                set_aside()
    except (msgspec.DecodeError, UnicodeError, RecursionError, LineTooLongError):
        raise _UnreadableIndexError from None
    finally:
        disk.close(fd)
    if len(rows) != head.rows:
        raise _UnreadableIndexError
    return rows


IndexState = Literal["absent", "fresh", "behind", "damaged"]


def look_at_index(directory: Path) -> tuple[IndexState, int]:
    """Say how well the index describes the sessions, and of how many it does not; reads no session, writes nothing.

    ``fresh``: so few have changed that nobody would write it anew.
    """
    index = SessionIndex(directory, Disk())
    files = {session_id: stamp for session_id, _, stamp in index.files()}
    try:
        known = _read_index(Disk(), str(directory))
    except FileNotFoundError:
        return "absent", 0
    except _UnreadableIndexError as error:
        return ("behind", len(files)) if error.is_other else ("damaged", 0)
    except OSError:
        return "damaged", 0
    changed = sum(session_id not in known or known[session_id].stamp != files[session_id] for session_id in files)
    changed += len(known.keys() - files.keys())
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
