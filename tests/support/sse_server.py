"""A provider's server for tests: real sockets on loopback, scripted reply by reply, faults included.

    async with serve(streams(OK), answers(429, headers={"retry-after": "2"}), hangs()) as server:
        ... server.url, server.exchanges, server.connections

Each request takes the next reply, whatever connection it comes on.  A reply is a coroutine that is given the
:class:`Wire`; when it returns, the connection serves its next request, unless the reply closed it.  A reply that
raises fails the test.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

Framing = Literal["chunked", "length", "close"]

_MAX_HEAD_BYTES = 64 * 1024


@dataclass
class Exchange:
    """One request as it arrived: header names in lower case; ``connection`` counts from 1."""

    connection: int
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Wire:
    """The server's side of one connection."""

    stream: SocketStream
    incoming: BufferedByteReceiveStream
    exchange: Exchange
    framing: Framing = "chunked"
    is_open: bool = True
    sent_bytes: int = 0

    async def send(self, data: bytes) -> None:
        """Write raw bytes; returns when the kernel has taken them all."""
        await self.stream.send(data)
        self.sent_bytes += len(data)

    async def head(
        self,
        status: int = 200,
        content_type: str | None = "text/event-stream",
        headers: Mapping[str, str] | None = None,
        *,
        framing: Framing = "chunked",
        length: int = 0,
    ) -> None:
        self.framing = framing
        lines = [f"HTTP/1.1 {status} Scripted"]
        if content_type is not None:
            lines.append(f"content-type: {content_type}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        lines.append(
            {
                "chunked": "transfer-encoding: chunked",
                "length": f"content-length: {length}",
                "close": "connection: close",
            }[framing]
        )
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def part(self, data: bytes) -> None:
        """Send a piece of the body: one HTTP chunk, if the body is chunked."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data) if self.framing == "chunked" else data)

    async def end(self) -> None:
        """End the body as its framing has it."""
        if self.framing == "chunked":
            await self.send(b"0\r\n\r\n")
        elif self.framing == "close":
            await self.close()

    async def close(self) -> None:
        self.is_open = False
        await self.stream.aclose()

    async def reset(self) -> None:
        """Close with an RST instead of a FIN."""
        raw = self.stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.close()

    async def wait_closed(self) -> None:
        """Return once the client has closed its side, however it did that."""
        self.is_open = False
        try:
            while True:
                await self.incoming.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return


Reply = Callable[[Wire], Awaitable[None]]


@dataclass
class Server:
    """``exchanges`` lists the requests in order of arrival, ``connections`` counts the connections."""

    url: str
    replies: list[Reply]
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0

    async def handle(self, stream: SocketStream) -> None:
        self.connections += 1
        number = self.connections
        incoming = BufferedByteReceiveStream(stream)
        async with stream:
            while (exchange := await _read_request(incoming, number)) is not None:
                self.exchanges.append(exchange)
                wire = Wire(stream, incoming, exchange)
                await self.replies.pop(0)(wire)
                if not wire.is_open:
                    return


async def _read_request(incoming: BufferedByteReceiveStream, connection: int) -> Exchange | None:
    """Read one request; None if the client closes instead."""
    try:
        head = await incoming.receive_until(b"\r\n\r\n", _MAX_HEAD_BYTES)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await incoming.receive_exactly(int(headers.get("content-length", "0")))
    except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
        return None
    return Exchange(connection, first.split(" ")[1], headers, body)


@asynccontextmanager
async def serve(*replies: Reply) -> AsyncIterator[Server]:
    """Serve on a free port of loopback; leaving the context closes everything."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    server = Server(f"http://127.0.0.1:{port}", [*replies])
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, server.handle)
        try:
            yield server
        finally:
            tasks.cancel_scope.cancel()


def data_lines(*events: str | bytes) -> bytes:
    """Return the events as a server writes them: ``data: ...`` and an empty line each."""
    return b"".join(b"data: %b\n\n" % (e.encode() if isinstance(e, str) else e) for e in events)


def streams(*parts: bytes, framing: Framing = "chunked", content_type: str | None = "text/event-stream") -> Reply:
    """Answer with an event stream, one write (and one HTTP chunk) per part."""

    async def reply(wire: Wire) -> None:
        await wire.head(content_type=content_type, framing=framing, length=sum(map(len, parts)))
        for part in parts:
            await wire.part(part)
        await wire.end()

    return reply


def cuts(*parts: bytes, framing: Framing = "chunked", missing: int = 100) -> Reply:
    """Begin an event stream and close the connection ``missing`` bytes before the end it promised."""

    async def reply(wire: Wire) -> None:
        await wire.head(framing=framing, length=sum(map(len, parts)) + missing)
        for part in parts:
            await wire.part(part)
        await wire.close()

    return reply


def resets(*parts: bytes) -> Reply:
    """Begin an event stream and reset the connection."""

    async def reply(wire: Wire) -> None:
        await wire.head()
        for part in parts:
            await wire.part(part)
        await wire.reset()

    return reply


def answers(
    status: int,
    body: bytes = b"",
    content_type: str | None = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Answer with a whole body."""

    async def reply(wire: Wire) -> None:
        await wire.head(status, content_type, headers, framing="length", length=len(body))
        await wire.send(body)

    return reply


def sends(raw: bytes) -> Reply:
    """Answer with raw bytes, whatever they are, and close."""

    async def reply(wire: Wire) -> None:
        await wire.send(raw)
        await wire.close()

    return reply


def hangs(*parts: bytes, head: bool = True) -> Reply:
    """Say no more after the parts (with ``head`` false: nothing at all) until the client closes."""

    async def reply(wire: Wire) -> None:
        if head:
            await wire.head()
            for part in parts:
                await wire.part(part)
        await wire.wait_closed()

    return reply


def floods(status: int = 200, first: bytes = b"") -> Reply:
    """Begin with ``first`` and send one byte, over and over, until the client closes."""

    async def reply(wire: Wire) -> None:
        await wire.head(status)
        await wire.part(first or b"x")
        try:
            while True:
                await wire.part(b"x" * 65536)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            wire.is_open = False

    return reply


def trickles(body: bytes, size: int = 1) -> Reply:
    """Answer with an event stream, ``size`` bytes per HTTP chunk."""

    def pieces() -> Sequence[bytes]:
        return [body[start : start + size] for start in range(0, len(body), size)]

    return streams(*pieces())
