"""The system calls through which the store touches a disk: one seam, so that a test can make the n-th one fail."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import PurePath
from typing import Final

from nous.errors import NousError
from nous.system.regular_file import require_regular
from nous.system.steps import Steps, complete

PRIVATE: int = 0o600
"""The mode of every file of the state directory: what people, models and tools said is nobody else's business."""

TEMP_SUFFIX: Final = ".tmp"


class Disk:
    """The real disk.  Every method is one operation and raises :class:`OSError` as the system gives it."""

    def open(self, path: str, flags: int) -> int:
        """Open a regular file (close-on-exec; a new one gets 0600).

        Anything else (a FIFO, a device, a directory) is refused with :class:`OSError` and never waited for.
        """
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, PRIVATE)
        try:
            require_regular(os.fstat(fd), path)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def close(self, fd: int) -> None:
        """Close the descriptor."""
        os.close(fd)

    def read_at(self, fd: int, count: int, offset: int) -> bytes:
        """Return up to ``count`` bytes from ``offset``."""
        return os.pread(fd, count, offset)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write some of ``data``; return how many bytes that was."""
        return os.write(fd, data)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file to ``size`` bytes."""
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Return once the file's bytes and size would survive a power cut."""
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync stops at the drive's cache there
        else:
            os.fdatasync(fd)

    def rename(self, source: str, target: str) -> None:
        """Let ``target`` name what ``source`` names, in one step."""
        os.rename(source, target)  # noqa: PTH104 (one system call, as everything here)

    def sync_directory(self, path: str) -> None:
        """Return once the names in the directory would survive a power cut."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_all(disk: Disk, fd: int, data: bytes) -> None:
    """Write all of ``data``: with one call, and with more only where the system took less than it was given.

    A short write is followed by another try, because only that one says why (a full disk, a size limit).
    """
    written = disk.write(fd, data)
    if written == len(data):
        return
    view = memoryview(data)
    while written < len(data):
        written += disk.write(fd, view[written:])


def replace_file(disk: Disk, path: str, data: bytes | Iterable[bytes]) -> None:
    """Make ``data`` (or its pieces, in order) the content of ``path``, atomically and durably.

    A reader, or a crash, sees the old or the new.

    Raises:
        OSError: nothing was replaced and no temp file is left, unless only the last sync failed.
    """
    complete(place_file(disk, path, (data,) if isinstance(data, bytes) else data, durable=True))
    disk.sync_directory(os.path.dirname(path))  # noqa: PTH120 (paths are text here)


def place_file(disk: Disk, path: str, pieces: Iterable[bytes], *, durable: bool) -> Steps[None]:
    """Let ``path`` name a file that holds ``pieces``, all at once: killed at any moment, it names all of it or what it
    named before.  ``durable``: the data survives a power cut before the name does.  Each piece is written in a step.

    The temp file is always the same one beside it: the caller holds a lock under which nobody else replaces this
    file, so what a crash left behind is written over, or swept under the same lock (see :func:`temp_path`).

    Raises:
        OSError: nothing was changed and no temp file is left.
    """
    temp = temp_path(path)
    try:
        fd = disk.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW)
        try:
            for piece in pieces:
                write_all(disk, fd, piece)
                yield
            if durable:
                disk.sync(fd)
        finally:
            disk.close(fd)
        disk.rename(temp, path)
    except BaseException:
        remove_quietly(temp)
        raise


def temp_path(path: str) -> str:
    """Return the temp file of a file that is replaced: beside it."""
    directory, name = os.path.split(path)
    return f"{directory}/{temp_name(name)}"


def temp_name(name: str) -> str:
    """Return the name of a temp file: hidden, because no id of anything begins with a dot."""
    return f".{name.removeprefix('.')}{TEMP_SUFFIX}"


def remove_quietly(path: str) -> None:
    """Remove a file if it is there; a leftover does no harm."""
    with suppress(OSError):
        os.unlink(path)  # noqa: PTH108


def io_failure(error: OSError, path: str) -> NousError:
    """The wire's name for a failed system call: which file, and what the system said."""
    return NousError("io_failure", f"{PurePath(path).name}: {error.strerror or type(error).__name__}")
