"""One session: its tree in memory, kept in step with its file, which other processes append to as well.

What :meth:`Session.append` has written survives the death of the process; what :meth:`Session.sync` has returned for
survives a power cut.  Source of the rules: docs/sessions.md, "The file".
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from nous.errors import NousError
from nous.ports.model import ContextMessage
from nous.protocol.entries import Compaction, ModelChange
from nous.store.branching import BranchContent, branch_content
from nous.store.disk import Disk, io_failure, replace_file, write_all
from nous.store.leases import Leases
from nous.store.locks import LockProfile, retry, try_lock, unlock
from nous.store.rewrite import PruneReport, rewrite
from nous.store.session_format import MAX_LINE_BYTES, Checkpoint, Entry, encode_line
from nous.store.session_log import SessionLog, read_log, unread_bytes
from nous.store.session_path import PathView
from nous.store.session_tree import SessionTree, TreeError
from nous.store.sync_job import SyncJob, finish
from nous.store.torn import TornTail, keep_torn_tail
from nous.system.steps import Steps, complete, complete_async, complete_later

_MAX_UNREAD_BYTES: Final = 1024 * 1024
"""How much of what others appended is read while the session's lock is held, and the event loop with it."""

_CATCH_UP_TRIES: Final = 8


class _FarBehindError(Exception):
    """Other processes appended more than may be read under the lock."""


class Session:
    """A session: messages, leaf moves, compactions, and the active leaf.

    Belongs to one thread (the event loop's), but for :meth:`sync`, which any thread may call.  No descriptor stays
    open between calls.  Made by :class:`SessionStore` only.
    """

    def __init__(
        self, path: Path, log: SessionLog, disk: Disk, profile: LockProfile, leases: Leases, *, is_new: bool
    ) -> None:
        self._path = str(path)
        self._lock_path = str(path.with_suffix(".lock"))
        self._log = log
        self._disk = disk
        self._profile = profile
        self._leases = leases
        self._recovered: list[TornTail] = []
        # What was written here and what was synced, counted, because only a count means the same to both threads.
        self._written = 1 if is_new else 0
        self._synced = 0
        # The file whose name is known to be durable: whoever made or replaced it may have died before it was.
        self._listed_inode = -1
        self._sync_failed = False
        self._took_back = False

    def __del__(self) -> None:
        # Freed at once, a long session would hold up the event loop.
        if not sys.is_finalizing():
            complete_later(self._log.tree.take_apart())

    @property
    def id(self) -> str:
        """The session's id."""
        return self._log.header.id

    @property
    def parent_id(self) -> str:
        """The session this one was branched from, or ``""``."""
        return self._log.header.parent_id

    @property
    def created_at(self) -> str:
        """When the session was made."""
        return self._log.header.created_at

    @property
    def updated_at(self) -> str:
        """When the last entry was made (or the session, if it has none)."""
        return self._log.tree.updated_at or self.created_at

    @property
    def size_bytes(self) -> int:
        """How long the file is, as far as it was read."""
        return self._log.end

    @property
    def leaf_id(self) -> str:
        """The active leaf, or ``""`` while there is no message."""
        return self._log.tree.leaf_id

    @property
    def messages(self) -> Mapping[str, ContextMessage]:
        """Every message by its id, on all branches, in the order of the file."""
        return self._log.tree.messages

    def model_at(self, leaf_id: str) -> ModelChange | None:
        """Return the change of the model that holds for runs on ``leaf_id`` (``""``: on the root), if there was one."""
        return self._log.tree.model_at(leaf_id)

    @property
    def compactions(self) -> Mapping[str, Compaction]:
        """Every compaction by its id, in the order of the file."""
        return self._log.tree.compactions

    def path(self, leaf_id: str | None = None, compaction_id: str | None = None) -> PathView:
        """Return what a model is asked with at ``leaf_id`` (left out: the active leaf).

        That is the messages from the root, or, where a compaction is in force, its summary and the messages it kept.
        ``compaction_id`` asks for another one than is in force now, or for none (``""``): what it was before.  What
        is returned never changes, also when the session grows.  Asking again for a leaf, or for what was appended
        to it, does not cost the path's length.

        Raises:
            NousError: ``command_rejected``, if there is no such message, or not any more, or if the compaction was
                not made on the path to it.
        """
        try:
            return self._log.tree.path(self.leaf_id if leaf_id is None else leaf_id, compaction_id)
        except TreeError as error:
            raise _no_such_leaf(error) from None

    def path_in_steps(self, leaf_id: str) -> Steps[PathView]:
        """Do as :meth:`path` in steps, and measure the path: asking for it again then costs nothing."""
        try:
            return (yield from self._log.tree.path_in_steps(leaf_id))
        except TreeError as error:
            raise _no_such_leaf(error) from None

    def full_path(self, leaf_id: str | None = None) -> list[ContextMessage]:
        """Return the messages from the root to ``leaf_id`` (left out: the active leaf), whatever was compacted.

        What was pruned is not there any more.  Costs the path's length.

        Raises:
            NousError: ``command_rejected``, if there is no such message.
        """
        return list(complete(self.full_path_in_steps(self.leaf_id if leaf_id is None else leaf_id)))

    def full_path_in_steps(self, leaf_id: str) -> Steps[PathView]:
        """Do as :meth:`full_path`, in steps; asked again for a leaf, it costs nothing."""
        try:
            return (yield from self._log.tree.full_path_in_steps(leaf_id))
        except TreeError as error:
            raise _no_such_leaf(error) from None

    def branch_content(self, leaf_id: str | None, new_id: str, created_at: str) -> Steps[BranchContent]:
        """Return, in steps, what a branch at ``leaf_id`` (left out: the active leaf) starts with.

        Raises as :meth:`full_path`.
        """
        leaf_id = self.leaf_id if leaf_id is None else leaf_id
        try:
            return (yield from branch_content(self._log.tree, leaf_id, new_id, created_at))
        except TreeError as error:
            raise _no_such_leaf(error) from None

    def compaction(self, compaction_id: str) -> Compaction | None:
        """Return a compaction by its id: the one of a path is :attr:`PathView.compaction_id`."""
        return self._log.tree.compactions.get(compaction_id)

    def refresh(self) -> Steps[None]:
        """Read, in steps, what other processes appended.  Takes no lock.

        Raises:
            NousError: ``session_not_found``, ``session_corrupt``, ``session_error`` or ``io_failure``.
        """
        try:
            fd = self._disk.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            raise NousError("session_not_found", self.id) from None
        except OSError as error:
            raise io_failure(error, self._path) from error
        try:
            yield from self._catch_up(fd)
        except OSError as error:
            raise io_failure(error, self._path) from error
        finally:
            self._disk.close(fd)

    def try_append(self, entry: Entry) -> bool:
        """Append an entry if the session's lock is free, else return false.  Never waits.

        Also returns false if other processes appended so much that reading it would hold up the event loop.

        First reads what other processes appended, and cuts a torn tail (see :meth:`take_recovered`).  One write of
        one line; if it fails the file is as it was.

        Raises:
            NousError: ``io_failure``; ``session_corrupt``; ``session_error`` if the id is taken or the parent is
                not in the session.
        """
        try:
            return self._try_locked(lambda fd: self._append(fd, entry))
        except _FarBehindError:
            return False

    async def append(self, entry: Entry) -> None:
        """Append an entry, waiting for the session's lock as long as the lock profile says.

        Raises:
            NousError: what :meth:`try_append` raises, and ``state_contention``.
        """
        await self._do_locked(lambda fd: self._append(fd, entry))

    async def checkpoint(self, entry_id: str, created_at: str) -> None:
        """Let everything so far be pruned, as far as it was compacted.  An entry like others: durable once synced.

        Raises:
            NousError: as :meth:`append`.
        """

        def append_at_leaf(fd: int) -> None:
            # Only now nobody else moves the leaf.
            self._append(fd, Checkpoint(id=entry_id, parent_id=self.leaf_id, created_at=created_at))

        await self._do_locked(append_at_leaf)

    async def prune(self, retain: int = 0) -> PruneReport:
        """Remove the messages before the last checkpoint that no leaf's context needs; ``retain`` the newest anyway.

        Contexts and message ids stay as they are; a message that is gone can still be followed and is a context
        that consists of its summary.  The file is replaced atomically and durably, under the lock, so that other
        processes go on with it; where nothing can go it is untouched.  Blocks while it reads and writes.

        Raises:
            NousError: ``command_rejected`` (run_in_progress) while a run of any process uses the session, which may
                need what would go; what :meth:`append` raises but for the entry's faults.
        """
        excluded = self._leases.try_exclude(self.id, ("run",))
        if excluded is None:
            raise NousError("command_rejected", "run_in_progress", hint="Prune once the session's runs have ended.")
        try:
            reports: list[PruneReport] = []
            await self._do_locked(lambda fd: reports.append(self._prune(fd, retain)))
            return reports[0]
        finally:
            for lease in excluded:
                lease.release()

    def sync(self) -> None:
        """Return once all that was appended by this process would survive a power cut.  Blocks; for any thread.

        If it fails, what was not synced is taken out of the file again unless others already appended to it: what
        was never acknowledged does not come back.

        Raises:
            NousError: ``io_failure``, also for every further sync until the session was used again.
        """
        finish(self.begin_sync())

    def begin_sync(self) -> SyncJob | None:
        """Return what makes durable all that was appended by this process so far, or ``None`` if all of it is.

        Fails, here or when it is settled, as :meth:`sync` does.
        """
        if self._written == self._synced:
            return None
        written, log = self._written, self._log
        end = log.own_end
        try:
            if self._sync_failed:
                # The system reports a lost write once: a second sync would call durable what is not there.
                raise OSError(errno.EIO, "an earlier sync failed")
            fd = self._disk.open(self._path, os.O_WRONLY)
        except OSError as error:
            raise self._fail_sync(log, error) from error
        inode = os.fstat(fd).st_ino
        parent = os.path.dirname(self._path) or "."  # noqa: PTH120 (paths are text here)
        directory = None if inode == self._listed_inode else parent

        def settle(error: OSError | None) -> None:
            if error is not None:
                raise self._fail_sync(log, error) from error
            self._listed_inode = inode
            self._synced = max(self._synced, written)
            log.synced_end = max(log.synced_end, end)

        return SyncJob(self._disk, fd, directory, settle)

    def take_recovered(self) -> list[TornTail]:
        """Return, once, the torn tails that appending here has cut and kept aside: each is worth a warning."""
        recovered, self._recovered = self._recovered, []
        return recovered

    async def _do_locked(self, work: Callable[[int], None]) -> None:
        """Do the work under the lock; what others appended is read before, in steps and without the lock."""
        for _ in range(_CATCH_UP_TRIES):
            with suppress(_FarBehindError):
                if not self._try_locked(work):
                    await retry(lambda: self._try_locked(work), self._lock_path, self._profile)
                return
            await complete_async(self.refresh())
        raise NousError("state_contention", f"{self.id}: other processes append faster than they can be read")

    def _try_locked(self, work: Callable[[int], None]) -> bool:
        """Open the file, catch up with it, cut its torn tail, and do the work; all that if the lock is free."""
        try:
            lock = try_lock(self._disk, self._lock_path)
            if lock is None:
                return False
            try:
                self._open_for(work)
            finally:
                unlock(self._disk, lock)
        except FileNotFoundError:
            raise NousError("session_not_found", self.id) from None
        except OSError as error:
            raise io_failure(error, self._path) from error
        return True

    def _open_for(self, work: Callable[[int], None]) -> None:
        fd = self._disk.open(self._path, os.O_RDWR | os.O_APPEND)
        try:
            if unread_bytes(self._disk, fd, self._log) > _MAX_UNREAD_BYTES:
                raise _FarBehindError
            complete(self._catch_up(fd))
            self._cut_torn_tail(fd)
            work(fd)
        finally:
            self._disk.close(fd)

    def _append(self, fd: int, entry: Entry) -> None:
        log = self._log
        self._check(log.tree, entry)
        line, link = encode_line(entry, log.link)
        if len(line) > MAX_LINE_BYTES:
            raise NousError("session_error", f"an entry of {len(line)} bytes is too long")
        try:
            write_all(self._disk, fd, line)
        except OSError:
            # If this fails too, what was written has no LF, and the next writer cuts it.
            with suppress(OSError):
                self._disk.truncate(fd, log.end)
            raise
        log.take_own(entry, link, len(line))
        self._written += 1
        self._took_back = False

    def _prune(self, fd: int, retain: int) -> PruneReport:
        log = self._log
        made = rewrite(self._disk, fd, log, retain)
        if made is None:
            lines, size = log.line_count, log.end
            return PruneReport(
                removed_messages=0, lines_before=lines, lines_after=lines, bytes_before=size, bytes_after=size
            )
        replace_file(self._disk, self._path, made.data)
        self._log, before = made.log, self._log
        complete_later(before.tree.take_apart())
        return made.report

    def _catch_up(self, fd: int) -> Steps[None]:
        known = self._log
        log = yield from read_log(self._disk, fd, self.id, known)
        if log is None:
            raise NousError("session_not_found", self.id)
        if self._log is known:
            # Otherwise another task has read the file anew meanwhile, and has the newer view of it.
            self._log = log
            self._sync_failed = False
            if log is not known:
                complete_later(known.tree.take_apart())

    def _cut_torn_tail(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        if size > self._log.end:
            self._recovered.append(keep_torn_tail(self._disk, fd, self._path, self._log.end, size))

    def _check(self, tree: SessionTree, entry: Entry) -> None:
        try:
            tree.check(entry)
        except TreeError as error:
            if self._took_back and entry.parent_id and not tree.knows(entry.parent_id):
                raise OSError(errno.EIO, "what it follows could not be made durable") from None
            raise NousError("session_error", str(error)) from None

    def _fail_sync(self, log: SessionLog, error: OSError) -> NousError:
        self._sync_failed = True
        self._take_back(log)
        return io_failure(error, self._path)

    def _take_back(self, log: SessionLog) -> None:
        """Take out of the file what was appended here and is not durable, if nothing follows it and nobody is writing.

        Also what was appended since the sync began: it stands behind what is lost.
        """
        with suppress(OSError):
            lock = try_lock(self._disk, self._lock_path)
            if lock is None:
                return
            try:
                fd = self._disk.open(self._path, os.O_RDWR)
                try:
                    # Under the lock: if it ends with our entry, and is still the file that was appended to.
                    start, end = max(log.own_start, log.synced_end), log.own_end
                    if start < end == log.end == os.fstat(fd).st_size and log.is_part_of(self._disk, fd):
                        self._disk.truncate(fd, start)
                        self._took_back = True
                finally:
                    self._disk.close(fd)
            finally:
                unlock(self._disk, lock)


def _no_such_leaf(error: TreeError) -> NousError:
    return NousError("command_rejected", f"leaf_id: {error}", hint="get_tree names the messages of a session.")
