"""One session's file as far as it has been read, and how reading goes on where it stopped.

Reading takes no lock and repairs nothing: it stops at the last LF.  Writing (nous.store.sessions) holds the lock.
"""

from __future__ import annotations

import os
from contextlib import suppress

from nous.errors import NousError
from nous.store.disk import Disk
from nous.store.lines import SLICE_BYTES, LineTooLongError, read_first_line, read_slice
from nous.store.session_format import (
    MAX_LINE_BYTES,
    SEAL_BYTES,
    Entry,
    EntryLink,
    SessionHeader,
    UnreadableLineError,
    check_line,
    decode_entry,
    decode_header,
)
from nous.store.session_tree import SessionTree, TreeError
from nous.system.collector import set_aside
from nous.system.steps import Steps


class SessionLog:
    """What is known of a file: its header, its tree, the place of its last line in the chain, and where that ends.

    ``own_start`` and ``own_end`` bound the last entries that this process appended with nobody else's between, and
    ``synced_end`` is how far they are known to be durable: what may be taken back if a sync fails.
    """

    __slots__ = ("end", "header", "line_count", "link", "own_end", "own_start", "synced_end", "tree")

    def __init__(self, header: SessionHeader, link: EntryLink, end: int) -> None:
        self.header = header
        self.tree = SessionTree(header.pruned, header.models)
        self.link = link
        self.end = end
        self.line_count = 1
        self.own_start = self.own_end = self.synced_end = end

    def take(self, entry: Entry, link: EntryLink, line_bytes: int) -> None:
        """Take in the entry of the next line, LF included in its length."""
        self.tree.add(entry)
        self.link = link
        self.end += line_bytes
        self.line_count += 1

    def take_own(self, entry: Entry, link: EntryLink, line_bytes: int) -> None:
        """Take in an entry that this process appended."""
        if self.own_end != self.end:
            self.own_start = self.end
        self.take(entry, link, line_bytes)
        self.own_end = self.end

    def forget_own(self) -> None:
        """Take nothing of what is known as appended here and not durable yet."""
        self.own_start = self.own_end = self.synced_end = self.end

    def is_part_of(self, disk: Disk, fd: int) -> bool:
        """Tell whether the file still begins with what is known.

        The digest of the last known line tells: it vouches for all before it, also in a file that was cut or replaced.
        """
        return disk.read_at(fd, SEAL_BYTES + 1, self.end - SEAL_BYTES - 1) == self.link.digest + b'"}\n'


def read_log(disk: Disk, fd: int, session_id: str, known: SessionLog | None) -> Steps[SessionLog | None]:
    """Return, in steps, what the file holds: ``known`` with what was appended since, or else all of it read anew.

    ``None`` means that there is no such session: the file ends within what is written when a session is made.  Between
    the steps ``known`` is a correct view of a part of the file, and others may append to both.

    Raises:
        NousError: ``session_corrupt``, or ``session_error`` for what a newer version wrote; the file and the line
            are in the cause.
    """
    size = os.fstat(fd).st_size
    if known is not None and known.is_part_of(disk, fd):
        if size == known.end:
            return known
        # A tail that others cut and wrote over while it was read looks damaged once: then the whole file decides.
        with suppress(DamagedError):
            yield from _read_on(disk, fd, known, size)
            return known
    try:
        return (yield from read_whole(disk, fd, session_id))
    except DamagedError as damage:
        code = "session_error" if damage.newer else "session_corrupt"
        raise NousError(code, f"{session_id}.ndjson, line {damage.line}: {damage.reason}") from None


def unread_bytes(disk: Disk, fd: int, known: SessionLog) -> int:
    """Return how much of the file :func:`read_log` would read."""
    size = os.fstat(fd).st_size
    return max(0, size - known.end) if known.is_part_of(disk, fd) else size


def read_whole(disk: Disk, fd: int, session_id: str) -> Steps[SessionLog | None]:
    """Read all of the file, in steps, checking every line.  ``None`` as for :func:`read_log`.

    Raises:
        DamagedError: also a second look found a line that cannot be.  The first one may have met a writer who cuts
            a tail and writes over it.
    """
    with suppress(DamagedError):
        return (yield from _read_all(disk, fd, session_id))
    return (yield from _read_all(disk, fd, session_id))


class DamagedError(Exception):
    """A line (from 1) that cannot stand where it stands, ``offset`` bytes into the file.

    ``newer``: it is intact, but this version of nous does not know what it is.
    """

    def __init__(self, line: int, offset: int, reason: str, *, newer: bool = False) -> None:
        super().__init__(line, offset, reason)
        self.line = line
        self.offset = offset
        self.reason = reason
        self.newer = newer


def _read_all(disk: Disk, fd: int, session_id: str) -> Steps[SessionLog | None]:
    size = os.fstat(fd).st_size
    head = _read_header(disk, fd, size)
    if head is None:
        return None
    header, link, end = head
    if header.id != session_id:
        raise DamagedError(1, 0, f"it names the session {header.id!r}")
    log = SessionLog(header, link, end)
    yield from _read_on(disk, fd, log, size)
    return log if log.line_count > header.copied else None


def _read_header(disk: Disk, fd: int, size: int) -> tuple[SessionHeader, EntryLink, int] | None:
    try:
        line = read_first_line(disk, fd, size, MAX_LINE_BYTES)
        if line is None:
            return None
        header, link = decode_header(line)
    except LineTooLongError:
        raise DamagedError(1, 0, "it is too long") from None
    except UnreadableLineError as error:
        raise DamagedError(1, 0, error.reason, newer=error.newer) from None
    return header, link, len(line) + 1


def _read_on(disk: Disk, fd: int, log: SessionLog, size: int) -> Steps[None]:
    """Take in what stands between the end of ``log`` and ``size``.

    Each step begins where ``log`` ends by then: whoever appends between two steps has taken in what came before.
    """
    is_first = True
    try:
        while log.end < size and (lines := read_slice(disk, fd, log.end, size, MAX_LINE_BYTES)):
            if len(lines[0]) > SLICE_BYTES:
                yield from _take_long(log, lines[0])
            else:
                for line in lines:
                    link = check_line(line, log.link)
                    log.take(decode_entry(line), link, len(line) + 1)
            if log.end < size:
                if is_first:
                    # It will hold many messages.
                    set_aside()
                    is_first = False
                yield
    except LineTooLongError:
        raise DamagedError(log.line_count + 1, log.end, "it is too long") from None
    except UnreadableLineError as error:
        raise DamagedError(log.line_count + 1, log.end, error.reason, newer=error.newer) from None
    except TreeError as error:
        raise DamagedError(log.line_count + 1, log.end, str(error)) from None


def _take_long(log: SessionLog, line: bytes) -> Steps[None]:
    """Take in a long line: reading, checking and decoding it are a step each."""
    before, end = log.link, log.end
    yield
    link = check_line(line, before)
    yield
    entry = decode_entry(line)
    if log.end == end:
        log.take(entry, link, len(line) + 1)
