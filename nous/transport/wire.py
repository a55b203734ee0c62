"""Moves the wire to private descriptors, so that nothing but the daemon's writer can reach it.

After :func:`claim_stdio` a stray ``print``, a C library or a child process that writes to descriptor 1 writes to
stderr, and reading descriptor 0 gives end of file.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final, NamedTuple

_FIRST_PRIVATE_FD: Final = 10


class WireDescriptors(NamedTuple):
    """The descriptors that carry the wire over stdin and stdout."""

    read_fd: int
    write_fd: int


def claim_stdio() -> WireDescriptors:
    """Take descriptors 0 and 1 for the wire and put /dev/null and stderr in their places."""
    read_fd = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _FIRST_PRIVATE_FD)
    write_fd = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, _FIRST_PRIVATE_FD)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.dup2(null, 0)
        try:
            os.fstat(2)
        except OSError:
            os.dup2(null, 2)
        os.dup2(2, 1)
    finally:
        os.close(null)
    return WireDescriptors(read_fd, write_fd)
