"""What carries the bytes between a test and a daemon: the client's ends of each transport."""

from __future__ import annotations

from typing import Protocol

import anyio
from anyio.abc import Process, SocketStream

from nous.transport.memory import MemoryEndpoint


class Wire(Protocol):
    """The client's end of a byte stream: ``receive`` gives ``b""`` at the end, ``end`` says that no more is sent."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes: ...

    async def end(self) -> None: ...


class MemoryWire:
    def __init__(self, endpoint: MemoryEndpoint) -> None:
        self._endpoint = endpoint

    async def send(self, data: bytes) -> None:
        await self._endpoint.send(data)

    async def receive(self) -> bytes:
        return await self._endpoint.receive()

    async def end(self) -> None:
        self._endpoint.end()


class ProcessWire:
    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin
        self._stdout = process.stdout

    async def send(self, data: bytes) -> None:
        await self._stdin.send(data)

    async def receive(self) -> bytes:
        try:
            return await self._stdout.receive()
        except anyio.EndOfStream:
            return b""

    async def end(self) -> None:
        await self._stdin.aclose()


class SocketWire:
    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def receive(self) -> bytes:
        try:
            return await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return b""

    async def end(self) -> None:
        await self.stream.send_eof()
