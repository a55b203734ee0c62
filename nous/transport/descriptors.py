"""An endpoint over two descriptors of any kind: pipes, sockets, terminals, regular files, /dev/null.

The descriptors are shared with whoever started this process, so they are never made non-blocking.  Others may read and
write the same pipe (stderr, a wrapper script), so readiness is only a hint.  Pipes are opened once more with a
non-blocking description of their own (Linux), sockets are used with ``MSG_DONTWAIT``; where neither is possible,
a thread does what may block.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import anyio
import anyio.from_thread
import anyio.lowlevel

from nous.ports.endpoint import BrokenEndpointError
from nous.system.threads import WorkThreads

READ_BYTES: Final = 64 * 1024
OWN_PIECE_BYTES: Final = 64 * 1024
"""What is handed to one write that cannot block: a pipe's usual capacity, so that little is copied in vain."""

# What a pipe that poll calls writable takes without blocking: POSIX promises it for up to PIPE_BUF bytes.
_SURE_BYTES: Final = select.PIPE_BUF

_GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EIO, errno.ENXIO, errno.EBADF, errno.ESHUTDOWN})


class DescriptorEndpoint:
    """See :class:`nous.ports.endpoint.Endpoint`.  Owns both descriptors."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._read_waits = _can_wait(read_fd)
        self._own_read = _OwnDescription(read_fd, os.O_RDONLY)
        self._own_write = _OwnDescription(write_fd, os.O_WRONLY)
        mode = os.fstat(write_fd).st_mode
        self._write_waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        # A terminal may block a write although poll said that it would take some: only a thread may wait for it.
        self._may_block = os.isatty(write_fd) or (not self._own_write and _is_stderr(write_fd))
        self._piece_bytes = sys.maxsize if stat.S_ISREG(mode) else _SURE_BYTES
        # A read that blocks must not keep a shared thread from others.
        self._read_thread = WorkThreads()
        self._poll = select.poll()
        self._poll.register(write_fd, select.POLLOUT)

    async def receive(self) -> bytes:
        """Return some bytes, or ``b""`` at the end of the stream."""
        try:
            if self._read_waits:
                return await self._receive_ready()
            return await self._read_thread.run(partial(os.read, self._read_fd, READ_BYTES))
        except OSError as error:
            if error.errno in _GONE:
                return b""
            raise

    async def _receive_ready(self) -> bytes:
        while True:
            await anyio.wait_readable(self._read_fd)
            with suppress(BlockingIOError):  # somebody else has read it
                return self._own_read.read() if self._own_read else os.read(self._read_fd, READ_BYTES)

    def send_nowait(self, data: bytes) -> int:
        """Write what fits without blocking; return how many bytes that was."""
        if self._may_block:
            return 0
        sent = 0
        try:
            if self._own_write:
                while sent < len(data):
                    sent += self._own_write.write(data[sent : sent + OWN_PIECE_BYTES])
                return sent
            while sent < len(data) and self._poll.poll(0):
                sent += os.write(self._write_fd, data[sent : sent + self._piece_bytes])
        except BlockingIOError:
            # It is full (or somebody else made the descriptor non-blocking).
            return sent
        except OSError as error:
            raise BrokenEndpointError from error
        return sent

    async def send(self, data: bytes) -> None:
        """Write everything.  Raises :class:`BrokenEndpointError` if the peer is gone."""
        sent = self.send_nowait(data)
        while sent < len(data):
            if self._write_waits:
                await anyio.wait_writable(self._write_fd)
                sent += self.send_nowait(data[sent:])
            else:
                await run_in_daemon_thread(partial(self._write_all, data[sent:]))
                return

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._write_fd, view) :]
            except BlockingIOError:
                select.select([], [self._write_fd], [])

    async def wait_closed(self) -> None:
        """Return once the reader of our output is gone.  A regular file never is."""
        await run_in_daemon_thread(self._watch)

    def _watch(self) -> None:
        poll = select.poll()
        # Errors and hang-ups are reported without being asked for.
        poll.register(self._write_fd, 0)
        poll.poll()

    async def aclose(self) -> None:
        """Close the connection."""
        self._read_thread.close()
        self._own_read.close()
        self._own_write.close()
        for fd in {self._read_fd, self._write_fd}:
            os.close(fd)


class _OwnDescription:
    """A way to read or write a pipe or socket that never blocks, whatever others do with it; false if there is none."""

    def __init__(self, fd: int, mode: int) -> None:
        self._fd = -1
        self._socket: socket.socket | None = None
        kind = os.fstat(fd).st_mode
        with suppress(OSError):
            if stat.S_ISSOCK(kind):
                self._socket = socket.socket(fileno=os.dup(fd))
            elif stat.S_ISFIFO(kind):
                self._fd = os.open(f"/proc/self/fd/{fd}", mode | os.O_NONBLOCK | os.O_CLOEXEC)

    def __bool__(self) -> bool:
        return self._socket is not None or self._fd >= 0

    def read(self) -> bytes:
        """Return what is there, ``b""`` at the end; BlockingIOError if nothing is there."""
        if self._socket is not None:
            return self._socket.recv(READ_BYTES, socket.MSG_DONTWAIT)
        return os.read(self._fd, READ_BYTES)

    def write(self, data: bytes) -> int:
        """Write what fits now and return how much that was; BlockingIOError if nothing fits."""
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        return os.write(self._fd, data)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _is_stderr(fd: int) -> bool:
    """Whether writing to ``fd`` and to stderr ends in the same pipe."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(fd), os.fstat(2))
    return False


def _can_wait(fd: int) -> bool:
    """Whether readiness of a descriptor can be waited for (not of a regular file, nor of some devices)."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)


async def run_in_daemon_thread(work: Callable[[], None]) -> None:
    """Run ``work``, which may block for ever, without keeping the process alive for it.

    Cancelling this leaves the thread behind.  An :class:`OSError` of it becomes :class:`BrokenEndpointError`.
    """
    done = anyio.Event()
    token = anyio.lowlevel.current_token()
    errors: list[OSError] = []

    def run() -> None:
        try:
            work()
        except OSError as error:
            errors.append(error)
        # The loop may have ended meanwhile: then nobody wants to know any more.
        with suppress(RuntimeError):
            anyio.from_thread.run_sync(done.set, token=token)

    threading.Thread(target=run, daemon=True).start()
    await done.wait()
    if errors:
        raise BrokenEndpointError from errors[0]
