"""Takes the path of a Unix socket: removes the socket of a dead process there, binds and listens, all under one lock.

Two processes that start at once would else both find the old socket dead, and the second one remove the socket that the
first one has just made.  The lock is an flock on the directory, so it leaves no file behind and ends with its holder.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from nous.errors import NousError

BACKLOG: Final = 128
LOCK_SECONDS: Final = 5.0
"""How long to wait for another process that takes a path in the same directory."""

_LOCK_RETRY_SECONDS: Final = 0.02
_SOCKET_TABLE: Final = Path("/proc/net/unix")


def listen_at(path: Path) -> socket.socket:
    """Return a listening socket at ``path``, mode 0600 from its first moment.

    Raises ``invalid_usage`` if something else is there: a file, a socket of another user, or one that a living process
    listens on or is about to; ``io_failure`` if the path cannot be used.
    """
    with _directory_locked(path.parent):
        _clear_way(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            _bind_private(sock, path)
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            raise NousError("io_failure", f"cannot listen at {path}: {error.strerror or error}") from error
    return sock


def _bind_private(sock: socket.socket, path: Path) -> None:
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)


@contextmanager
def _directory_locked(directory: Path) -> Iterator[None]:
    fd = -1
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _lock(fd, directory)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise NousError("io_failure", f"cannot lock {directory}: {error.strerror or error}") from error
    try:
        yield
    finally:
        os.close(fd)


def _lock(fd: int, directory: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > deadline:
            raise TimeoutError(0, f"another process has locked it for {LOCK_SECONDS:g} s")
        time.sleep(_LOCK_RETRY_SECONDS)


def _clear_way(path: Path) -> None:
    """Remove a dead socket of ours at ``path``.  Anything else there is an error."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise NousError("io_failure", f"cannot look at {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(status.st_mode):
        raise NousError("invalid_usage", f"{path} exists and is not a socket")
    if status.st_uid != os.getuid():
        raise NousError("invalid_usage", f"{path} is a socket of another user")
    if _is_answered(path):
        raise NousError("invalid_usage", f"somebody answers at {path} already")
    if _is_bound(path):
        raise NousError("invalid_usage", f"a living process has {path} and does not listen on it yet; try again")
    path.unlink(missing_ok=True)


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.setblocking(False)
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            # More peers wait there than its backlog takes.
            return True
        except OSError as error:
            raise NousError("io_failure", f"cannot probe {path}: {error.strerror or error}") from error
    return True


def _is_bound(path: Path) -> bool:
    """Whether a process has bound a socket to ``path`` that refuses connections because it does not listen yet.

    Known on Linux only.  A relative name stands for every path that ends in it, since its directory is not known.
    """
    try:
        table = _SOCKET_TABLE.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    return any(_may_name(name, path) for name in _bound_names(table))


def _bound_names(table: str) -> Iterator[str]:
    """Yield the paths of sockets that are bound and neither connected nor listening.

    Columns: number, references, protocol, flags (0x10000: listening), type, state (01: unconnected), inode, path.
    """
    for line in table.splitlines()[1:]:
        columns = line.split(None, 7)
        if len(columns) == 8 and columns[5] == "01" and not int(columns[3], 16) & 0x10000:
            yield columns[7]


def _may_name(name: str, path: Path) -> bool:
    if name.startswith("@"):
        return False
    if not name.startswith("/"):
        return Path(name).name == path.name
    return os.path.realpath(name) == os.path.realpath(path)
