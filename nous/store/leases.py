"""Leases: which sessions are in use, so that nothing another process needs is removed.

A user of a session holds ``<sessions>/.leases/<session_id>.<use>`` open with a shared flock for as long as it needs the
session; whoever removes something takes the same lock exclusively, or leaves the session alone.  The system frees the
lock of a process that died, however it died.  The last holder removes the file.

    use      held by                                       keeps others from
    active   a daemon, while the session is its active one  removing the session
    run      every run, from before it reads its context    removing the session, and pruning it
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from nous.errors import NousError
from nous.store.disk import PRIVATE, io_failure
from nous.store.locks import LockProfile, retry

Use = Literal["active", "run"]

USES: Final[tuple[Use, ...]] = ("active", "run")
LEASES_NAME: Final = ".leases"

_OPEN_TRIES: Final = 100


class Lease:
    """A lock on one use of a session, held until :meth:`release`."""

    __slots__ = ("_fd", "_path")

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    def release(self) -> None:
        """Free the lock, and remove its file if nobody else holds it.  May be repeated."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            # What cannot be removed is removed by the next holder.
            with suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_still(self._path, fd):
                    self._path.unlink()
        finally:
            os.close(fd)


class Leases:
    """The leases of a directory of sessions."""

    def __init__(self, sessions: Path) -> None:
        self._directory = sessions / LEASES_NAME

    async def hold(self, session_id: str, use: Use, profile: LockProfile) -> Lease:
        """Register a use, waiting for a remover as long as the profile says.

        Raises:
            NousError: ``state_contention``; ``io_failure``.
        """
        found: list[Lease] = []

        def try_once() -> bool:
            lease = self._try(session_id, use, fcntl.LOCK_SH)
            found.extend([] if lease is None else [lease])
            return lease is not None

        await retry(try_once, str(self._path(session_id, use)), profile)
        return found[0]

    def try_exclude(self, session_id: str, uses: tuple[Use, ...] = USES) -> list[Lease] | None:
        """Keep everybody from the named uses, or return ``None`` if somebody has one of them.

        Raises:
            NousError: ``io_failure``.
        """
        held: list[Lease] = []
        for use in uses:
            lease = self._try(session_id, use, fcntl.LOCK_EX)
            if lease is None:
                for each in held:
                    each.release()
                return None
            held.append(lease)
        return held

    def is_in_use(self, session_id: str, uses: tuple[Use, ...] = USES) -> bool:
        """Tell whether anybody has one of the named uses now; changes nothing but leftovers of the dead.

        Raises:
            NousError: ``io_failure``.
        """
        if not any(self._path(session_id, use).exists() for use in uses):
            return False
        held = self.try_exclude(session_id, uses)
        for lease in held or ():
            lease.release()
        return held is None

    def _path(self, session_id: str, use: Use) -> Path:
        return self._directory / f"{session_id}.{use}"

    def _try(self, session_id: str, use: Use, kind: int) -> Lease | None:
        path = self._path(session_id, use)
        try:
            return self._open(path, kind)
        except OSError as error:
            raise io_failure(error, str(path)) from error

    def _open(self, path: Path, kind: int) -> Lease | None:
        for _ in range(_OPEN_TRIES):
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, PRIVATE)
            except FileNotFoundError:
                self._directory.mkdir(0o700, exist_ok=True)
                continue
            lease = Lease(path, fd)
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
                if _is_still(path, fd):
                    return lease
            except BlockingIOError:
                os.close(fd)
                return None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # its last holder removed the file in between
        raise NousError("state_contention", f"{path.name}: it was removed again and again")


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
