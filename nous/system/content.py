"""Writing the content of people's files: replaced atomically, or in place where replacing would change more.

A file is written in place if it has several names, if its directory cannot be written, if it is mounted by itself, or
if its owner or extended attributes cannot be given to a new file.  A reader, or a crash, may then see a part of the new
content; space for all of it is reserved first where the file system can.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import Final

from nous.system.atomic import TEMP_PREFIX, TEMP_SUFFIX, replace_file_at, write_all

TAG: Final = "file"

_IN_PLACE: Final = frozenset({errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTSUP})
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MAX_SWEPT: Final = 10_000

_swept: set[tuple[int, int]] = set()
"""The directories that this process has cleaned of what killed processes left."""


def write_content(
    directory_fd: int, name: str, data: bytes, target: os.stat_result | None, before_change: Callable[[], None]
) -> None:
    """Make ``data`` the content of ``name`` in an open directory, durably.

    ``target`` is what is there (a regular file), ``None`` for a new file.  An existing file keeps its mode, owner,
    extended attributes and other names.  ``before_change`` is called right before the first change that can be seen;
    what it raises leaves everything as it was.

    Raises:
        OSError: it could not be written.  Only a write in place that failed half-way has changed the file.
    """
    _sweep(directory_fd)
    if target is None:
        replace_file_at(directory_fd, name, data, mode=None, tag=TAG, before_rename=before_change)
        return
    if target.st_nlink == 1:
        try:
            _replace(directory_fd, name, data, target, before_change)
        except OSError as error:
            if error.errno not in _IN_PLACE:
                raise
        else:
            return
    _write_in_place(directory_fd, name, data, target, before_change)


def _replace(
    directory_fd: int, name: str, data: bytes, target: os.stat_result, before_change: Callable[[], None]
) -> None:
    old_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        _require_same(old_fd, target)
        replace_file_at(
            directory_fd,
            name,
            data,
            mode=stat.S_IMODE(target.st_mode),
            tag=TAG,
            before_rename=before_change,
            prepare=lambda new_fd: _keep_metadata(old_fd, new_fd, target),
        )
    finally:
        os.close(old_fd)


def _keep_metadata(old_fd: int, new_fd: int, target: os.stat_result) -> None:
    """Give a new file the owner and the extended attributes of the old one; raises EPERM or the like if it may not."""
    new = os.fstat(new_fd)
    if (new.st_uid, new.st_gid) != (target.st_uid, target.st_gid):
        os.fchown(new_fd, target.st_uid, target.st_gid)
    if not hasattr(os, "listxattr"):
        return
    present = _attributes(new_fd)
    for name, value in _attributes(old_fd).items():
        if present.get(name) != value:
            os.setxattr(new_fd, name, value)


def _attributes(fd: int) -> dict[str, bytes]:
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    return {name: os.getxattr(fd, name) for name in names}


def _write_in_place(
    directory_fd: int, name: str, data: bytes, target: os.stat_result, before_change: Callable[[], None]
) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        _require_same(fd, target)
        before_change()
        _reserve(fd, len(data), target.st_size)
        write_all(fd, data)
        os.ftruncate(fd, len(data))
        if os.fstat(fd).st_mode != target.st_mode:  # writing clears set-user-id
            with contextlib.suppress(PermissionError):
                os.fchmod(fd, stat.S_IMODE(target.st_mode))
        os.fsync(fd)
    finally:
        os.close(fd)


def _reserve(fd: int, size_bytes: int, old_bytes: int) -> None:
    """Have the file system set space aside, so that a full disk is noticed while the old content still stands."""
    if size_bytes <= old_bytes or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(fd, old_bytes, size_bytes - old_bytes)
    except OSError as error:
        if error.errno in _NO_SPACE:
            os.ftruncate(fd, old_bytes)
            raise


def _require_same(fd: int, target: os.stat_result) -> None:
    now = os.fstat(fd)
    if (now.st_dev, now.st_ino) != (target.st_dev, target.st_ino):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def _sweep(directory_fd: int) -> None:
    """Remove the temporary files that killed processes left in a directory: those that nobody has locked."""
    status = os.fstat(directory_fd)
    identity = (status.st_dev, status.st_ino)
    if identity in _swept:
        return
    if len(_swept) >= _MAX_SWEPT:
        _swept.clear()
    _swept.add(identity)
    with contextlib.suppress(OSError), os.scandir(directory_fd) as entries:
        prefix = f"{TEMP_PREFIX}{TAG}-"
        left = [entry.name for entry in entries if entry.name.startswith(prefix) and entry.name.endswith(TEMP_SUFFIX)]
        for name in left:
            _remove_if_left(directory_fd, name)


def _remove_if_left(directory_fd: int, name: str) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=directory_fd)
        finally:
            os.close(fd)
