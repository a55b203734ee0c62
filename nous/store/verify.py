"""Walks the chain of one session's file and says where it breaks.  Repairs nothing and takes no lock."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from nous.errors import NousError
from nous.store.disk import Disk, io_failure
from nous.store.lines import read_first_line
from nous.store.session_format import MAX_LINE_BYTES
from nous.store.session_log import DamagedError, SessionLog, read_whole
from nous.system.steps import complete


class EntryPlace(Struct, frozen=True, kw_only=True):
    """A place in a file: its line (from 1) and where that begins; ``reason`` says what is wrong there."""

    line: int
    offset: int
    reason: str


class VerifyReport(Struct, frozen=True, kw_only=True):
    """What the chain says.  ``ok``: every whole line is what was written, behind what it was written behind.

    ``first_n`` and ``last_n`` number the lines within the session; a ``first_n`` above 0 means that the file was
    pruned, and ``continues`` is then the digest of the last line before.  ``digest`` is that of the last line: it
    vouches for all of them.  ``torn`` is a last line without its end: cut by a crash, or an LF that was changed.
    ``newer``: the line in question is intact, but of a kind that this version of nous does not know.
    """

    session_id: str
    file: str
    ok: bool
    lines: int = 0
    messages: int = 0
    compactions: int = 0
    pruned: int = 0
    first_n: int = 0
    last_n: int = 0
    continues: str = ""
    digest: str = ""
    size: int
    damage: EntryPlace | None = None
    torn: EntryPlace | None = None
    newer: bool = False


def verify_session(path: Path, disk: Disk | None = None) -> VerifyReport:
    """Check every line of a session's file, whose name is the session's id.

    Raises:
        NousError: ``session_not_found``; ``io_failure``.
    """
    disk = disk or Disk()
    try:
        fd = disk.open(str(path), os.O_RDONLY)
    except FileNotFoundError:
        raise NousError("session_not_found", path.stem) from None
    except OSError as error:
        raise io_failure(error, str(path)) from error
    try:
        return _verify(disk, fd, path)
    except OSError as error:
        raise io_failure(error, str(path)) from error
    finally:
        disk.close(fd)


def _verify(disk: Disk, fd: int, path: Path) -> VerifyReport:
    size = os.fstat(fd).st_size
    try:
        log = complete(read_whole(disk, fd, path.stem))
    except DamagedError as error:
        damage = EntryPlace(line=error.line, offset=error.offset, reason=error.reason)
        return VerifyReport(session_id=path.stem, file=path.name, ok=False, size=size, damage=damage, newer=error.newer)
    if log is None:
        reason = "it is cut within what was written when the session was made"
        return VerifyReport(
            session_id=path.stem,
            file=path.name,
            ok=False,
            size=size,
            damage=EntryPlace(line=1, offset=0, reason=reason),
        )
    return _report(log, path, size, _continued(disk, fd, size))


def _continued(disk: Disk, fd: int, size: int) -> str:
    """Return the digest that an intact header names as the one before it."""
    return str(msgspec.json.decode(read_first_line(disk, fd, size, MAX_LINE_BYTES) or b"")["prev"])


def _report(log: SessionLog, path: Path, size: int, continues: str) -> VerifyReport:
    torn = None
    if size > log.end:
        reason = f"{size - log.end} bytes without an end of line"
        torn = EntryPlace(line=log.line_count + 1, offset=log.end, reason=reason)
    return VerifyReport(
        session_id=path.stem,
        file=path.name,
        ok=True,
        lines=log.line_count,
        messages=len(log.tree.messages),
        compactions=len(log.tree.compactions),
        pruned=len(log.header.pruned),
        first_n=log.link.n - log.line_count + 1,
        last_n=log.link.n,
        continues=continues,
        digest=log.link.digest.decode(),
        size=max(size, log.end),
        torn=torn,
    )
