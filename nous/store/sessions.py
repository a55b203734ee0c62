"""Sessions on disk: ``<sessions>/<session_id>.ndjson``, append only, shared by any number of processes.

:class:`SessionStore` finds, makes and branches sessions; :class:`nous.store.session.Session` is one of them.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import anyio

from nous.errors import NousError
from nous.store.disk import Disk, io_failure, place_file
from nous.store.leases import Leases
from nous.store.lines import SLICE_BYTES
from nous.store.locks import STANDARD, LockProfile, try_lock, unlock
from nous.store.session import Session
from nous.store.session_format import FORMAT, ORIGIN, Entry, LeafMove, SessionHeader, encode_line
from nous.store.session_index import SAFE_ID, SessionIndex, SessionPage
from nous.store.session_log import SessionLog, read_log
from nous.store.sweep import sweep_temps
from nous.system.collector import set_aside
from nous.system.steps import Steps, complete, complete_async

__all__ = ["LeafMove", "Session", "SessionStore"]

_KEPT_SESSIONS: Final = 32
"""How many sessions stay in memory after their last use."""

_KEPT_BYTES: Final = 256 * 1024 * 1024
"""How long their files may be in all; a session takes about as much memory as its file, and the last one used stays."""


class SessionStore:
    """The sessions of one directory, which must exist.  Belongs to one thread."""

    def __init__(self, directory: Path, *, profile: LockProfile = STANDARD, disk: Disk | None = None) -> None:
        self._directory = directory
        self._profile = profile
        self._disk = disk or Disk()
        self.leases = Leases(directory)
        self._index = SessionIndex(directory, self._disk)
        # Who uses a session keeps it here; the last ones used stay a little longer.
        self._live: WeakValueDictionary[str, Session] = WeakValueDictionary()
        self._recent: OrderedDict[str, Session] = OrderedDict()
        self._loading: dict[str, anyio.Event] = {}

    def create(self, session_id: str, created_at: str) -> Session:
        """Make an empty session.  It survives a power cut once its :meth:`Session.sync` has returned.

        Raises:
            NousError: ``session_error`` if the id is taken or not safe; ``io_failure``.
        """
        return complete(self._write_new(SessionHeader(format=FORMAT, id=session_id, created_at=created_at), []))

    def branch(self, source_id: str, new_id: str, created_at: str, leaf_id: str | None = None) -> Session:
        """Make a session that starts with a copy of the path to ``leaf_id`` (left out: the active leaf).

        The messages keep their ids.  The compactions in force on that path come along, so that the model is asked
        with the same there.

        Raises:
            NousError: what :meth:`get` and :meth:`create` raise; ``command_rejected`` for an unknown leaf.  Nothing
                was written then.
        """
        return complete(self._branch(self.get(source_id), new_id, created_at, leaf_id))

    async def branch_in_steps(
        self, source_id: str, new_id: str, created_at: str, leaf_id: str | None = None
    ) -> Session:
        """Do as :meth:`branch`, in steps of a few milliseconds between which other tasks run."""
        source = await self.load(source_id)
        return await complete_async(self._branch(source, new_id, created_at, leaf_id))

    def _branch(self, source: Session, new_id: str, created_at: str, leaf_id: str | None) -> Steps[Session]:
        entries, pruned = yield from source.branch_content(leaf_id, new_id, created_at)
        header = SessionHeader(
            format=FORMAT, id=new_id, created_at=created_at, parent_id=source.id, copied=len(entries), pruned=pruned
        )
        return (yield from self._write_new(header, entries))

    def get(self, session_id: str) -> Session:
        """Return a session as it is on disk now, with what other processes appended.  Blocks while it reads.

        Raises:
            NousError: ``session_not_found``, also for an id that is no safe file name; ``session_corrupt``,
                ``session_error``, ``io_failure``.
        """
        session = self._live.get(session_id)
        if session is None:
            return self._keep(complete(self._read(session_id)))
        complete(session.refresh())
        return self._keep(session)

    async def load(self, session_id: str) -> Session:
        """Do as :meth:`get`, in steps of a few milliseconds between which other tasks run.

        Tasks that ask for the same session at once read it once.
        """
        while (session := self._live.get(session_id)) is None:
            loading = self._loading.get(session_id)
            if loading is None:
                return self._keep(await self._load(session_id))
            await loading.wait()
        await complete_async(session.refresh())
        return self._keep(session)

    async def _load(self, session_id: str) -> Session:
        loaded = self._loading[session_id] = anyio.Event()
        try:
            session = await complete_async(self._read(session_id))
        finally:
            del self._loading[session_id]
            loaded.set()
        return self._live.get(session_id) or session

    def list_sessions(self, limit: int = 100, cursor: str | None = None) -> SessionPage:
        """Return a page of all sessions, the last changed first.  Blocks; any thread may call it.

        Raises:
            NousError: ``invalid_payload`` for a cursor that was not given here; ``io_failure``.
        """
        return self._index.page(limit, cursor)

    def sweep(self) -> None:
        """Remove what killed processes left of replacements they did not finish.  Blocks; any thread may call it.

        What a living process is replacing is not touched.

        Raises:
            OSError: as the system gives it.
        """
        sweep_temps(self._disk, str(self._directory))

    def exists(self, session_id: str) -> bool:
        """Tell whether there is a file of that name; whether it can be read is for :meth:`get`."""
        return SAFE_ID.fullmatch(session_id) is not None and self._path(session_id).is_file()

    def kept_ids(self) -> list[str]:
        """Return the sessions that stay in memory although nobody uses them, the next to go first."""
        return list(self._recent)

    def evict(self, session_id: str) -> None:
        """Forget a session that is in memory."""
        self._live.pop(session_id, None)
        self._recent.pop(session_id, None)

    def _path(self, session_id: str) -> Path:
        return self._directory / f"{session_id}.ndjson"

    def _keep(self, session: Session) -> Session:
        self._live[session.id] = session
        self._recent[session.id] = session
        self._recent.move_to_end(session.id)
        self._let_go_of_oldest()
        return session

    def _let_go_of_oldest(self) -> None:
        """Keep the bounds on what stays in memory after its last use; the last one used always stays."""
        kept_bytes = sum(session.size_bytes for session in self._recent.values())
        while len(self._recent) > 1 and (len(self._recent) > _KEPT_SESSIONS or kept_bytes > _KEPT_BYTES):
            _, oldest = self._recent.popitem(last=False)
            kept_bytes -= oldest.size_bytes

    def _read(self, session_id: str) -> Steps[Session]:
        if SAFE_ID.fullmatch(session_id) is None:
            raise NousError("session_not_found", session_id)
        path = self._path(session_id)
        try:
            fd = self._disk.open(str(path), os.O_RDONLY)
        except FileNotFoundError:
            raise NousError("session_not_found", session_id) from None
        except OSError as error:
            raise io_failure(error, str(path)) from error
        try:
            log = yield from read_log(self._disk, fd, session_id, None)
        except OSError as error:
            raise io_failure(error, str(path)) from error
        finally:
            self._disk.close(fd)
        if log is None:
            raise NousError("session_not_found", session_id)
        return Session(path, log, self._disk, self._profile, self.leases, is_new=False)

    def _write_new(self, header: SessionHeader, entries: Sequence[Entry]) -> Steps[Session]:
        if SAFE_ID.fullmatch(header.id) is None:
            raise NousError("session_error", f"{header.id!r} is no safe name for a file")
        path = self._path(header.id)
        line, link = encode_line(header, ORIGIN)
        log = SessionLog(header, link, len(line))
        pieces: list[bytes] = []
        lines, size = [line], len(line)
        for entry in entries:
            line, link = encode_line(entry, link)
            log.take(entry, link, len(line))
            lines.append(line)
            size += len(line)
            if size > SLICE_BYTES:
                if not pieces:
                    set_aside()
                pieces.append(b"".join(lines))
                lines, size = [], 0
                yield
        pieces.append(b"".join(lines))
        try:
            yield from self._write_file(path, pieces)
        except FileExistsError:
            raise NousError("session_error", f"there is a session {header.id!r} already") from None
        except OSError as error:
            raise io_failure(error, str(path)) from error
        return self._keep(Session(path, log, self._disk, self._profile, self.leases, is_new=True))

    def _write_file(self, path: Path, pieces: Sequence[bytes]) -> Steps[None]:
        """Make a file that was not there, at once with all it begins with: nobody ever sees a part of it."""
        lock = try_lock(self._disk, str(path.with_suffix(".lock")))
        if lock is None:
            raise FileExistsError
        try:
            if path.exists():
                raise FileExistsError
            yield from place_file(self._disk, str(path), pieces, durable=False)
        finally:
            unlock(self._disk, lock)
