"""A pair of endpoints in memory: for tests, and for a client in the same process."""

from __future__ import annotations

from collections import deque
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

from nous.ports.endpoint import BrokenEndpointError

DEFAULT_CAPACITY_BYTES: Final = 64 * 1024


class _Pipe:
    """One direction: bounded like a pipe of the system."""

    def __init__(self, capacity: int) -> None:
        self.chunks: deque[bytes] = deque()
        self.size = 0
        self.capacity = capacity
        self.writer_closed = False
        self.reader_closed = anyio.Event()
        self._changed = anyio.Event()

    def put(self, data: bytes) -> int:
        if self.reader_closed.is_set() or self.writer_closed:
            raise BrokenEndpointError
        taken = data[: max(0, self.capacity - self.size)]
        if taken:
            self.chunks.append(taken)
            self.size += len(taken)
            self.notify()
        return len(taken)

    def take(self) -> bytes:
        data = b"".join(self.chunks)
        self.chunks.clear()
        self.size = 0
        self.notify()
        return data

    def notify(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def wait(self) -> None:
        await self._changed.wait()


class MemoryEndpoint:
    """See :class:`nous.ports.endpoint.Endpoint`."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._in = incoming
        self._out = outgoing

    async def receive(self) -> bytes:
        """Return some bytes, or ``b""`` at the end of the stream."""
        # A peer that always has more must not keep every other task from running.
        await checkpoint()
        while not self._in.size:
            if self._in.writer_closed:
                return b""
            await self._in.wait()
        return self._in.take()

    def send_nowait(self, data: bytes) -> int:
        """Write what fits without blocking; return how many bytes that was."""
        return self._out.put(data)

    async def send(self, data: bytes) -> None:
        """Write everything.  Raises :class:`BrokenEndpointError` if the peer is gone."""
        while True:
            data = data[self._out.put(data) :]
            if not data:
                return
            await self._out.wait()

    def end(self) -> None:
        """Send no more: the peer reads to the end of what was sent."""
        self._out.writer_closed = True
        self._out.notify()

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`aclose` was called."""
        return self._in.reader_closed.is_set()

    async def wait_closed(self) -> None:
        """Return once the peer will read no more."""
        await self._out.reader_closed.wait()

    async def aclose(self) -> None:
        """Close the connection."""
        self.end()
        self._in.reader_closed.set()
        self._in.notify()


def memory_pair(capacity_bytes: int = DEFAULT_CAPACITY_BYTES) -> tuple[MemoryEndpoint, MemoryEndpoint]:
    """Return two connected endpoints."""
    there, back = _Pipe(capacity_bytes), _Pipe(capacity_bytes)
    return MemoryEndpoint(back, there), MemoryEndpoint(there, back)
