"""An endpoint over two descriptors of any kind: pipes, sockets, terminals, regular files, /dev/null.

The descriptors are shared with whoever started us, so they are never made non-blocking: readiness is asked for before
every read and write, and where it cannot be asked for a thread of its own does what may block.
"""

from __future__ import annotations

import errno
import os
import select
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

# What a pipe that poll calls writable takes without blocking: POSIX promises it for up to PIPE_BUF bytes.
_SURE_BYTES: Final = select.PIPE_BUF

_GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EIO, errno.ENXIO, errno.EBADF, errno.ESHUTDOWN})


class DescriptorEndpoint:
    """See :class:`nous.ports.endpoint.Endpoint`.  Owns both descriptors."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._read_waits = _can_wait(read_fd)
        mode = os.fstat(write_fd).st_mode
        self._write_waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        # A terminal may block a write although poll said that it would take some: only a thread may wait for it.
        self._may_block = os.isatty(write_fd)
        self._piece_bytes = sys.maxsize if stat.S_ISREG(mode) else _SURE_BYTES
        # A read that blocks must not keep a shared thread from others.
        self._read_thread = WorkThreads()
        self._poll = select.poll()
        self._poll.register(write_fd, select.POLLOUT)

    async def receive(self) -> bytes:
        try:
            if self._read_waits:
                await anyio.wait_readable(self._read_fd)
                return os.read(self._read_fd, READ_BYTES)
            return await self._read_thread.run(partial(os.read, self._read_fd, READ_BYTES))
        except OSError as error:
            if error.errno in _GONE:
                return b""
            raise

    def send_nowait(self, data: bytes) -> int:
        if self._may_block:
            return 0
        sent = 0
        try:
            while sent < len(data) and self._poll.poll(0):
                sent += os.write(self._write_fd, data[sent : sent + self._piece_bytes])
        except BlockingIOError:
            # Somebody else made the descriptor non-blocking, and it is full.
            return sent
        except OSError as error:
            raise BrokenEndpointError from error
        return sent

    async def send(self, data: bytes) -> None:
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
        self._read_thread.close()
        for fd in {self._read_fd, self._write_fd}:
            os.close(fd)


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
