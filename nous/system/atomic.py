"""Replacing a file so that a reader, or a crash, sees the old one or the new one, never a mixture."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

TEMP_PREFIX: Final = ".nous-"
TEMP_SUFFIX: Final = ".tmp"
"""A replacement under way is ``.nous-<tag>-<random>.tmp``: what a sweep may remove once the tag's owner is dead."""


def replace_file(path: Path, data: bytes, *, mode: int | None = 0o600, tag: str = "file") -> None:
    """Make ``data`` the content of ``path``, atomically and durably: when this returns, it survives a power cut.

    Temp file in the same directory, fsync, rename, fsync of the directory.  ``mode`` is exact; ``None`` means what
    the umask leaves of 0666.  ``tag`` stands in the temp file's name (the state directory's users give their epoch).
    A symlink at ``path`` is replaced, not followed; a hard link loses its other names.

    Raises:
        OSError: nothing was replaced and no temp file is left, unless only the last fsync failed.
    """
    directory_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        replace_file_at(directory_fd, path.name, data, mode=mode, tag=tag)
    finally:
        os.close(directory_fd)


def replace_file_at(
    directory_fd: int,
    name: str,
    data: bytes,
    *,
    mode: int | None = 0o600,
    tag: str = "file",
    prepare: Callable[[int], None] | None = None,
    before_rename: Callable[[], None] | None = None,
) -> None:
    """:func:`replace_file` within an open directory, so that nobody can swap the directory in between.

    ``prepare`` is called with the descriptor of the new file, still empty.  ``before_rename`` is called when everything
    but the rename is done.  What either raises leaves the old file as it was.

    The temp file is locked (``flock``) as long as it exists: one without a lock was left by a process that was killed.
    """
    temp_name = f"{TEMP_PREFIX}{tag}-{os.urandom(6).hex()}{TEMP_SUFFIX}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temp_name, flags, 0o666 if mode is None else 0o600, dir_fd=directory_fd)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if prepare is not None:
            prepare(fd)
        _fill(fd, data, mode)
        if before_rename is not None:
            before_rename()
        os.rename(temp_name, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temp_name, dir_fd=directory_fd)
        raise
    finally:
        os.close(fd)
    os.fsync(directory_fd)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _fill(fd: int, data: bytes, mode: int | None) -> None:
    write_all(fd, data)
    if mode is not None:
        os.fchmod(fd, mode)
    os.fsync(fd)
