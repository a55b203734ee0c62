"""An endpoint over two descriptors of any kind: pipes, sockets, terminals, regular files, /dev/null.

The descriptors are shared with whoever started us, so they are never made non-blocking: readiness is asked for first,
and what does not fit at once goes through a worker thread that may block.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
from collections.abc import Callable
from typing import Final

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
from anyio import CapacityLimiter

from nous.ports.endpoint import BrokenEndpointError

READ_BYTES: Final = 64 * 1024

# What a pipe that poll calls writable takes without blocking: POSIX promises it for up to PIPE_BUF bytes.
_SURE_BYTES: Final = select.PIPE_BUF

_GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EIO, errno.ENXIO, errno.EBADF, errno.ESHUTDOWN})


class DescriptorEndpoint:
    """See :class:`nous.ports.endpoint.Endpoint`.  Owns both descriptors."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._read_waits = _can_wait(read_fd)
        self._poll = select.poll()
        self._poll.register(write_fd, select.POLLOUT)
        self._writes_at_once = stat.S_ISREG(os.fstat(write_fd).st_mode)
        # One thread of its own each: a stalled reader must not keep a worker from others.
        self._write_limiter = CapacityLimiter(1)
        self._read_limiter = CapacityLimiter(1)

    async def receive(self) -> bytes:
        try:
            if self._read_waits:
                await anyio.wait_readable(self._read_fd)
                return os.read(self._read_fd, READ_BYTES)
            return await anyio.to_thread.run_sync(
                os.read, self._read_fd, READ_BYTES, abandon_on_cancel=True, limiter=self._read_limiter
            )
        except OSError as error:
            if error.errno in _GONE:
                return b""
            raise

    def send_nowait(self, data: bytes) -> int:
        sent = 0
        try:
            while sent < len(data) and self._poll.poll(0):
                end = len(data) if self._writes_at_once else sent + _SURE_BYTES
                sent += os.write(self._write_fd, data[sent:end])
        except BlockingIOError:
            return sent
        except OSError as error:
            raise BrokenEndpointError from error
        return sent

    async def send(self, data: bytes) -> None:
        try:
            await anyio.to_thread.run_sync(self._write_all, data, abandon_on_cancel=True, limiter=self._write_limiter)
        except OSError as error:
            raise BrokenEndpointError from error

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._write_fd, view) :]
            except BlockingIOError:
                # Somebody else made the descriptor non-blocking.
                self._wait_writable()

    def _wait_writable(self) -> None:
        poll = select.poll()
        poll.register(self._write_fd, select.POLLOUT)
        poll.poll()

    async def wait_closed(self) -> None:
        """Return once the reader of our output is gone.  A regular file never is."""
        gone = anyio.Event()
        token = anyio.lowlevel.current_token()
        watch = threading.Thread(
            target=self._watch, args=(lambda: anyio.from_thread.run_sync(gone.set, token=token),), daemon=True
        )
        watch.start()
        await gone.wait()

    def _watch(self, tell: Callable[[], None]) -> None:
        poll = select.poll()
        # Errors and hang-ups are reported without being asked for.
        poll.register(self._write_fd, 0)
        poll.poll()
        try:
            tell()
        except RuntimeError:
            # The loop has ended: nobody wants to know any more.
            return

    async def aclose(self) -> None:
        for fd in {self._read_fd, self._write_fd}:
            os.close(fd)


def _can_wait(fd: int) -> bool:
    """Whether readiness of a descriptor can be waited for (not of a regular file, nor of some devices)."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)
