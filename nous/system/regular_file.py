"""Opens and reads files that others may have made: regular files only, never waiting, never more than a bound.

A path that a person, a project or a model names may lead to a FIFO, a device, a directory or a file without end.
Opening those can hang, act on a device or exhaust memory.  Every reader of such a path uses the functions below.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

_CHUNK_BYTES: Final = 1024 * 1024


class UnsuitableFileError(OSError):
    """The path leads to something that is not a regular file, or to one that is too large.

    ``strerror`` says which, as for every other :class:`OSError`, so that one handler reports both.
    """


def open_regular_file(path: Path | str, *, follow_links: bool = True, dir_fd: int | None = None) -> int:
    """Open a regular file for reading and return its descriptor (close-on-exec), which the caller closes.

    Returns at once whatever the path leads to.  With ``follow_links=False`` a symbolic link as the last component is
    refused; links before it are followed.  A relative ``path`` starts at the directory ``dir_fd`` if one is given.

    Raises:
        FileNotFoundError: there is no such file.
        UnsuitableFileError: it is a directory, FIFO, socket or device, or a link that must not be followed.
        OSError: it cannot be opened for another reason.
    """
    # Opening a device may act on it, so the type is checked before opening, and again on what was opened.
    require_regular(os.stat(path, dir_fd=dir_fd, follow_symlinks=follow_links), path)
    # Swapped for a FIFO in between, O_NONBLOCK still makes the call return at once.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow_links else os.O_NOFOLLOW)
    fd = os.open(path, flags, dir_fd=dir_fd)
    try:
        require_regular(os.fstat(fd), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_regular_file(
    path: Path | str, max_bytes: int, *, follow_links: bool = True, dir_fd: int | None = None
) -> bytes:
    """Return the content of a regular file of at most ``max_bytes`` bytes.  At most one byte more is held.

    Raises:
        UnsuitableFileError: as :func:`open_regular_file`, or the file is longer than ``max_bytes``.
        OSError: as :func:`open_regular_file`, or reading failed.
    """
    fd = open_regular_file(path, follow_links=follow_links, dir_fd=dir_fd)
    try:
        chunks: list[bytes] = []
        left = max_bytes + 1
        # The size that the system states is not asked: files of /proc state 0, and a file may grow meanwhile.
        while left > 0 and (chunk := os.read(fd, min(left, _CHUNK_BYTES))):
            chunks.append(chunk)
            left -= len(chunk)
    finally:
        os.close(fd)
    if left == 0:
        raise UnsuitableFileError(errno.EFBIG, f"longer than {max_bytes} bytes", os.fspath(path))
    return b"".join(chunks)


def require_regular(info: os.stat_result, path: Path | str) -> None:
    """Raise :class:`UnsuitableFileError` unless what was found at ``path`` is a regular file."""
    if stat.S_ISREG(info.st_mode):
        return
    if stat.S_ISDIR(info.st_mode):
        raise UnsuitableFileError(errno.EISDIR, "a directory, not a regular file", os.fspath(path))
    if stat.S_ISLNK(info.st_mode):
        raise UnsuitableFileError(errno.ELOOP, "a symbolic link, not a regular file", os.fspath(path))
    raise UnsuitableFileError(errno.EINVAL, "not a regular file", os.fspath(path))
