"""The one writer of a connection: whole lines, in order, straight to the peer while it keeps up."""

from __future__ import annotations

from collections import deque
from typing import Final

import anyio

from nous.ports.endpoint import BrokenEndpointError, Endpoint
from nous.telemetry.log import get_log

log = get_log("runtime")

WRITE_CHUNK_BYTES: Final = 256 * 1024
"""Queued lines are joined up to about this size per write."""


class Outbox:
    """Lines on their way to one peer.

    ``put`` never blocks: while nothing is queued it writes what the peer takes at once, the rest waits for the
    writer task (``run``).  ``queued_bytes`` is what a slow reader has not taken; ``room`` waits until it is below a
    bound.  Once the peer is gone everything is dropped and ``broken`` is set.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._queue: deque[bytes] = deque()
        self._writing = False
        self._wake = anyio.Event()
        self._progress = anyio.Event()
        self._closing = False
        self.queued_bytes = 0
        self.broken = False

    def put(self, data: bytes) -> None:
        """Queue lines behind those that wait; write at once what the peer takes without waiting."""
        if self.broken or not data:
            return
        if not self.queued_bytes:
            try:
                sent = self._endpoint.send_nowait(data)
            except Exception as error:
                self._fail(error)
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._queue.append(data)
        self.queued_bytes += len(data)
        self._wake.set()

    async def room(self, bound_bytes: int) -> None:
        """Wait until no more than ``bound_bytes`` are queued, or the peer is gone."""
        while self.queued_bytes > bound_bytes and not self.broken:
            await self._progress.wait()

    async def run(self) -> None:
        """Write what ``put`` queued, until ``close`` was called and all is written, or the peer is gone."""
        while not self.broken:
            if not self._queue:
                if self._closing:
                    return
                self._wake = anyio.Event()
                await self._wake.wait()
                continue
            await self._write(self._take())

    def close(self) -> None:
        """Let ``run`` return once everything queued is written."""
        self._closing = True
        self._wake.set()

    def drop(self) -> None:
        """Give up on the peer: what is queued is dropped."""
        self._break()

    def _take(self) -> bytes:
        parts = [self._queue.popleft()]
        size = len(parts[0])
        while self._queue and size + len(self._queue[0]) <= WRITE_CHUNK_BYTES:
            size += len(self._queue[0])
            parts.append(self._queue.popleft())
        return b"".join(parts) if len(parts) > 1 else parts[0]

    async def _write(self, data: bytes) -> None:
        try:
            await self._endpoint.send(data)
        except Exception as error:
            self._fail(error)
            return
        self.queued_bytes -= len(data)
        self._notify()

    def _fail(self, error: Exception) -> None:
        """Give up on a peer that cannot be written to: whatever that raises is no affair of whoever wrote."""
        if not isinstance(error, BrokenEndpointError):
            log.warning("peer_not_written", error=repr(error))
        self._break()

    def _break(self) -> None:
        self.broken = True
        self._queue.clear()
        self.queued_bytes = 0
        self._wake.set()
        self._notify()

    def _notify(self) -> None:
        progress, self._progress = self._progress, anyio.Event()
        progress.set()
