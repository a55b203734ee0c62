"""The daemon's ends of its children's pipes: non-blocking, one chunk at a time, no buffering of their own."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

CHUNK_BYTES: Final = 65536
"""At most this much per read: what a pipe holds by default, and well under any line's limit once it is JSON."""


PIPE_BYTES: Final = 1024 * 1024
"""What a pipe from a child should hold, so that the child need not stop while its output is gathered."""


def open_output_pipe() -> tuple[int, int]:
    """Return the reading and the writing end of a pipe that holds ``PIPE_BYTES``, where the system grants that."""
    ends = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return ends


class ReadPipe:
    """The reading end of a pipe.  One task reads; nothing is read before it is asked for."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    def receive_nowait(self) -> bytes | None:
        """Return what is there (``b""`` at the end of the stream), or ``None`` if nothing is there yet."""
        try:
            return os.read(self._fd, CHUNK_BYTES)
        except BlockingIOError:
            return None

    async def wait(self) -> None:
        """Return once :meth:`receive_nowait` would give something."""
        await anyio.wait_readable(self._fd)

    async def receive(self) -> bytes:
        """Return the next bytes, or ``b""`` at the end of the stream."""
        # A peer that always has more must not keep every other task from running.
        await checkpoint()
        while (data := self.receive_nowait()) is None:
            await self.wait()
        return data

    def close(self) -> None:
        """Close the descriptor.  May be repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class WritePipe:
    """The writing end of a pipe.  One task writes."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    async def send(self, data: bytes) -> None:
        """Write everything, waiting for the reader whenever the pipe is full.

        Raises:
            BrokenPipeError: nobody will read it.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._fd)

    def close(self) -> None:
        """Close the descriptor.  May be repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
