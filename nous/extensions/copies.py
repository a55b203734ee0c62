"""The copies that projects' extensions run from.

    <state>/extensions/<sha256 of the path>/<digest>/     a project's extension as it was trusted
    <state>/extensions/<sha256 of the path>/.new-*        a copy that is being made, or was not finished
    <state>/extensions/<sha256 of the path>/.gone-*       a copy that is being removed, or was replaced while in use

Whoever runs a copy holds a shared lock on its directory; a copy is removed under an exclusive one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from nous.errors import NousError
from nous.system.trust import TrustStore, digest_tree

COPIES_DIR: Final = "extensions"

KEPT_COPIES: Final = 3
"""So many copies of one extension are kept beside those in use."""

NEW_SECONDS: Final = 3600
"""Garbage collection leaves alone what was made within the last hour: it may be about to be trusted."""


class Copy(NamedTuple):
    """A copy of an extension's directory and the digest of what was read for it."""

    directory: Path
    digest: str


class CopyLease:
    """Keeps a copy from being removed until it is closed or the process ends."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        """Release the copy.  Closing again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class LeasedCopy(NamedTuple):
    """A copy that stays while its lease is open."""

    directory: Path
    lease: CopyLease


def copy_extension(directory: Path, state_root: Path) -> Copy:
    """Copy an extension's directory as it is now into the state directory, which exists.

    Raises:
        NousError: ``unsafe_operation`` or ``io_failure``; no copy is left.
    """
    home = _home(directory, state_root)
    try:
        home.mkdir(0o700, parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=".new-", dir=home))
    except OSError as error:
        raise NousError("io_failure", f"{error.filename or home}: {error.strerror}") from error
    try:
        digest = digest_tree(directory, making / "tree")
        place = home / _hex(digest)
        if place.is_dir() and not _is_whole(place, digest):
            set_aside(place)
        with suppress(OSError):  # it is there already: the same files, or the next line says what is wrong
            (making / "tree").rename(place)
        if not place.is_dir():
            raise NousError("io_failure", f"{place} cannot be made")
    finally:
        shutil.rmtree(making, ignore_errors=True)
    _drop_old(home, place)
    return Copy(place, digest)


def lease_copy(directory: Path, digest: str, state_root: Path) -> LeasedCopy | None:
    """Return the copy with this digest, or None if there is none that is whole.  Reads all of it."""
    place = _home(directory, state_root) / _hex(digest)
    lease = _lease(place)
    if lease is None:
        return None
    if _is_whole(place, digest):
        return LeasedCopy(place, lease)
    lease.close()
    return None


def set_aside(place: Path) -> None:
    """Remove a copy at once; what is in use only loses its name, so that another can be made there."""
    with suppress(OSError):
        gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=place.parent)) / "tree"
        place.rename(gone)
        remove_copy(gone.parent)


def find_stale(state_root: Path, now: float | None = None) -> Iterator[Path]:
    """Yield the copies that nobody trusts any more, and what was left of unfinished ones.  Some may be in use."""
    newest = (time.time() if now is None else now) - NEW_SECONDS
    store = TrustStore(state_root)
    for home in _entries(state_root / COPIES_DIR):
        record = store.find_by_name(home.name)
        trusted = None if record is None else _hex(record.digest)
        for place in _entries(home):
            with suppress(OSError):
                if place.name != trusted and place.stat().st_mtime < newest:
                    yield place


def remove_copy(place: Path) -> bool:
    """Remove a copy that nobody runs.  False: somebody does, or it is gone already.

    Raises:
        OSError: it cannot be removed; a part may be gone then.
    """
    held = [lease for lease in (_lease(path, fcntl.LOCK_EX) for path in _lockable(place)) if lease is not None]
    try:
        if len(held) < len(_lockable(place)):
            return False
        gone = place
        if not place.name.startswith("."):
            gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=place.parent)) / "tree"
            place.rename(gone)
            gone = gone.parent
        shutil.rmtree(gone)
    finally:
        for lease in held:
            lease.close()
    with suppress(OSError):  # the extension's last copy; not empty otherwise
        place.parent.rmdir()
    return True


def _lockable(place: Path) -> list[Path]:
    """Return the directories whose locks protect a place: a copy has its own, a temporary place that of its copy."""
    if not place.name.startswith("."):
        return [place]
    tree = place / "tree"
    return [tree] if tree.is_dir() else []


def _lease(place: Path, kind: int = fcntl.LOCK_SH) -> CopyLease | None:
    """Lock a copy; None if it is not there, or locked by somebody else."""
    try:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    lease = CopyLease(fd)
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), place.lstat()):  # else it was moved away meanwhile
            return lease
    except OSError:
        pass
    lease.close()
    return None


def _is_whole(place: Path, digest: str) -> bool:
    """Whether a copy is what was copied: a crash or whoever may write there can have changed it."""
    try:
        return digest_tree(place) == digest
    except NousError:
        return False


def _home(directory: Path, state_root: Path) -> Path:
    name = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()
    return state_root / COPIES_DIR / name


def _hex(digest: str) -> str:
    return digest.partition(":")[2]


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []


def _drop_old(home: Path, kept: Path) -> None:
    """Remove all but the newest copies, and never one in use."""
    with suppress(OSError):
        copies = [path for path in _entries(home) if path != kept and not path.name.startswith(".")]
        copies.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in copies[KEPT_COPIES - 1 :]:
            remove_copy(path)
