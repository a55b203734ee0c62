"""Files without a name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from nous.system.atomic import write_all


@contextlib.contextmanager
def anonymous_file(data: bytes) -> Iterator[int]:
    """Yield a descriptor of a file that holds ``data`` and has no name, positioned at its beginning.

    In memory where the system has such files (Linux), else in the directory for temporary files.

    Raises:
        OSError: there is no room for it.
    """
    fd = open_anonymous_file(data)
    try:
        yield fd
    finally:
        os.close(fd)


def open_anonymous_file(data: bytes) -> int:
    """Return the descriptor of :func:`anonymous_file`; it is the caller's to close."""
    fd = os.memfd_create("nous") if hasattr(os, "memfd_create") else _unlinked_file()
    try:
        write_all(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _unlinked_file() -> int:
    import tempfile

    fd, path = tempfile.mkstemp(prefix="nous-")
    os.unlink(path)  # noqa: PTH108
    return fd
