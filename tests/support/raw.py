"""A daemon on descriptors that a test holds itself: nothing is read, written or closed unless the test says so."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import anyio

from tests.support.home import TEST_SECONDS, Home, Setup, Spawned, bounded, spawn

READ_BYTES: Final = 64 * 1024
_LOOK_SECONDS: Final = 0.05
_STILL_LOOKS: Final = 8


class RawWire:
    """Both ends that a client holds: ``receive`` gives ``b""`` at the end of the stream."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)
        self._open = {"read": read_fd, "write": write_fd}
        self._held = b""
        self.sent_bytes = 0

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                sent = os.write(self._open["write"], view)
            except BlockingIOError:
                await anyio.wait_writable(self._open["write"])
                continue
            self.sent_bytes += sent
            view = view[sent:]

    async def receive(self) -> bytes:
        while True:
            try:
                return os.read(self._open["read"], READ_BYTES)
            except BlockingIOError:
                await anyio.wait_readable(self._open["read"])

    async def line(self) -> bytes:
        """Return the next line without its LF; ``b""`` at the end of the stream."""
        while b"\n" not in self._held:
            data = await self.receive()
            if not data:
                assert not self._held, f"the stream ended within a line: {self._held[:200]!r}"
                return b""
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        return line

    async def line_with(self, part: bytes) -> bytes:
        """Return the next line that holds ``part``."""
        while line := await self.line():
            if part in line:
                return line
        raise AssertionError(f"the stream ended before a line with {part!r}")

    async def lines_to(self, part: bytes) -> list[bytes]:
        """Return all lines up to the first that holds ``part``: quicker than line by line where there are many."""
        parts = [self._held]
        while part not in parts[-1]:
            data = await self.receive()
            assert data, f"the stream ended before a line with {part!r}"
            # Overlap with what came before: the part may lie across two reads.
            parts[-1:] = [parts[-1][: -len(part)], parts[-1][-len(part) :] + data]
        data = b"".join(parts)
        end = data.find(b"\n", data.find(part))
        while end < 0:
            data += await self.receive()
            end = data.find(b"\n", data.find(part))
        self._held = data[end + 1 :]
        return data[:end].split(b"\n")

    async def rest(self) -> bytes:
        """Read to the end of the stream."""
        parts = [self._held]
        self._held = b""
        while data := await self.receive():
            parts.append(data)
        return b"".join(parts)

    def close_output(self) -> None:
        """Close the end that is read: the daemon's stdout has nobody any more."""
        self._close("read")

    def end(self) -> None:
        """Close the end that is written: the daemon's stdin ends."""
        self._close("write")

    def close(self) -> None:
        for name in list(self._open):
            self._close(name)

    def _close(self, name: str) -> None:
        fd = self._open.pop(name, None)
        if fd is not None:
            os.close(fd)


@asynccontextmanager
async def open_raw(
    home: Home, setup: Setup | None = None, seconds: float = TEST_SECONDS, *, program: str | None = None
) -> AsyncIterator[tuple[RawWire, Spawned]]:
    """Start a daemon between two pipes.  ``program`` as :func:`tests.support.home.spawn` has it."""
    stdin, write_fd = os.pipe()
    read_fd, stdout = os.pipe()
    wire = RawWire(read_fd, write_fd)
    async with AsyncExitStack() as stack:
        stack.callback(wire.close)
        stack.enter_context(bounded(seconds))
        try:
            spawned = await stack.enter_async_context(spawn(home, setup, program=program, stdin=stdin, stdout=stdout))
        finally:
            os.close(stdin)
            os.close(stdout)
        yield wire, spawned


async def until_still(figure: Callable[[], int]) -> int:
    """Wait until a figure that changes while something goes on has not changed for a while, and return it.

    That nothing happens any more is no event; this is the one place of the tests that looks again and again.
    """
    last, same = figure(), 0
    while same < _STILL_LOOKS:
        await anyio.sleep(_LOOK_SECONDS)
        now = figure()
        last, same = now, same + 1 if now == last else 0
    return last


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition outside of our reach holds (a process has died); bounded by the test's deadline."""
    while not condition():  # noqa: ASYNC110 - another process sets no event of ours
        await anyio.sleep(_LOOK_SECONDS / 5)
