"""What a client needs of a connection, and the one over a Unix socket (the other is a process's pipes)."""

from __future__ import annotations

import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import anyio
from anyio.lowlevel import checkpoint

from nous.errors import NousError
from nous.system.threads import run_in_thread

READ_BYTES: Final = 64 * 1024

CONNECT_SECONDS: Final = 5.0
"""How long a daemon may take to accept: it only takes time at all while its backlog is full."""


class Link(Protocol):
    """``receive`` returns ``b""`` at the end; ``send`` raises OSError if nobody will read it.

    One task receives and one sends.  ``end_input`` says that no more will be sent; it is called once, by the sender.
    """

    async def receive(self) -> bytes:
        """Return some bytes, or ``b""`` at the end."""

    async def send(self, data: bytes) -> None:
        """Write everything."""

    async def end_input(self) -> None:
        """Tell the daemon that no more commands come."""


class SocketLink:
    """A connected Unix socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    @classmethod
    async def connect(cls, path: Path) -> SocketLink:
        """Connect to the daemon that serves ``path``.

        Raises:
            NousError: ``io_failure`` if there is no socket or nobody answers, ``invalid_usage`` if it is none.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(CONNECT_SECONDS)
        try:
            await run_in_thread(sock.connect, str(path))
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise _explain(path, error) from error
            raise
        return cls(sock)

    async def receive(self) -> bytes:
        """Return some bytes, or ``b""`` at the end."""
        # A peer that always has more must not keep every other task from running.
        await checkpoint()
        while True:
            try:
                return self._sock.recv(READ_BYTES)
            except BlockingIOError:
                await anyio.wait_readable(self._sock)
            except OSError:
                return b""

    async def send(self, data: bytes) -> None:
        """Write everything."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._sock)

    async def end_input(self) -> None:
        """Shut the sending side down."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket.  No task may be waiting on it any more."""
        self._sock.close()


def _explain(path: Path, error: OSError) -> NousError:
    hint = f"Start one: nous serve --socket {path}"
    if isinstance(error, FileNotFoundError):
        return NousError("io_failure", f"there is no socket at {path}", hint=hint)
    try:
        is_socket = stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        is_socket = True
    if not is_socket:
        return NousError("invalid_usage", f"{path} is not a socket")
    if isinstance(error, ConnectionRefusedError):
        return NousError("io_failure", f"nobody answers at {path}", hint=hint)
    return NousError("io_failure", f"cannot connect to {path}: {error.strerror or error}")
