"""Unix sockets: accepts peers of our own user, and reads and writes them."""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

from nous.errors import NousError
from nous.ports.endpoint import BrokenEndpointError
from nous.telemetry.log import get_log
from nous.transport.socket_path import listen_at

log = get_log("transport")

READ_BYTES: Final = 64 * 1024
ACCEPT_AGAIN_SECONDS: Final = 0.1

_PEER_CREDENTIALS: Final = struct.Struct("iII")


class SocketEndpoint:
    """See :class:`nous.ports.endpoint.Endpoint`.  ``peer_pid`` is None where the system does not tell."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.peer_pid, self.peer_uid = peer_credentials(sock)

    async def receive(self) -> bytes:
        """Return some bytes, or ``b""`` at the end of the stream."""
        # A peer that always has more must not keep every other task from running.
        await checkpoint()
        while True:
            try:
                return self._sock.recv(READ_BYTES)
            except BlockingIOError:
                await anyio.wait_readable(self._sock)
            except OSError:
                return b""

    def send_nowait(self, data: bytes) -> int:
        """Write what fits without blocking; return how many bytes that was."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise BrokenEndpointError from error

    async def send(self, data: bytes) -> None:
        """Write everything.  Raises :class:`BrokenEndpointError` if the peer is gone."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                try:
                    await anyio.wait_writable(self._sock)
                except (OSError, anyio.ClosedResourceError) as error:
                    raise BrokenEndpointError from error
            except OSError as error:
                raise BrokenEndpointError from error

    async def wait_closed(self) -> None:
        """Return once the peer has closed its end."""
        while await self.receive():
            pass

    async def aclose(self) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the socket.  May be repeated.  Never raises."""
        if self._sock.fileno() < 0:
            return
        anyio.notify_closing(self._sock)
        with suppress(OSError):
            self._sock.close()


def peer_credentials(sock: socket.socket) -> tuple[int | None, int | None]:
    """Return the process and the user at the other end, as far as the system tells."""
    if hasattr(socket, "SO_PEERCRED"):
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        pid, uid, _ = _PEER_CREDENTIALS.unpack(data)
        return pid, uid
    return None, _peer_uid_by_xucred(sock)


def _peer_uid_by_xucred(sock: socket.socket) -> int | None:
    """macOS: struct xucred by getsockopt(SOL_LOCAL=0, LOCAL_PEERCRED=1); version, uid come first."""
    try:
        data = sock.getsockopt(0, 1, 76)
    except OSError:
        return None
    return int(struct.unpack_from("II", data)[1])


class UnixListener:
    """A listening socket at a path, 0600 from its first moment.  ``close`` removes the path if it is still ours."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sock = listen_at(path)
        self._inode = path.stat().st_ino

    async def connections(self) -> AsyncIterator[SocketEndpoint]:
        """Yield each peer of our own user; others are turned away.

        Never raises but when cancelled: while the system has no descriptor or no memory for another connection, peers
        wait in the backlog, and one more try is made every :data:`ACCEPT_AGAIN_SECONDS`.
        """
        failing = False
        while True:
            try:
                endpoint = await self._accept()
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if not failing:
                    log.error("accept_failed", path=str(self.path), reason=error.strerror)
                failing = True
                await anyio.sleep(ACCEPT_AGAIN_SECONDS)
                continue
            if failing:
                log.info("accept_resumed", path=str(self.path))
                failing = False
            if endpoint.peer_uid is not None and endpoint.peer_uid != os.getuid():
                log.warning("peer_refused", uid=endpoint.peer_uid)
                endpoint.close()
                continue
            yield endpoint

    async def _accept(self) -> SocketEndpoint:
        while True:
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                await anyio.wait_readable(self._sock)
                continue
            try:
                return SocketEndpoint(sock)
            except OSError:
                sock.close()
                raise

    def close(self) -> None:
        """Stop listening and remove the path."""
        # The path goes first: as long as the socket listens, nobody else takes the path over.
        try:
            with suppress(FileNotFoundError):
                if self.path.stat().st_ino == self._inode:
                    self.path.unlink()
        finally:
            self._sock.close()


def prepare_directory(directory: Path) -> None:
    """Make the directory of sockets, for its owner alone, if its parent exists.

    Warn if others may replace the sockets of a directory.  That they may enter it gives them nothing:
    the sockets are for their owner alone.

    Raises ``io_failure`` for a directory that cannot be used.
    """
    try:
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
            log.info("socket_directory_made", directory=str(directory))
        mode = directory.stat().st_mode
    except OSError as error:
        raise NousError("io_failure", f"cannot use {directory}: {error.strerror}") from error
    if mode & 0o022 and not mode & stat.S_ISVTX:
        log.warning("socket_directory_open", directory=str(directory), mode=oct(stat.S_IMODE(mode)))
