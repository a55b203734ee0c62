"""A client as they were written for the original implementation of v1.

It sends raw lines, says no ``hello``, opens a connection for each command and begins to count its ids anew on each.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec
from anyio.abc import ByteReceiveStream, SocketStream

from scripts.gate.checks import expect

Line = dict[str, Any]


class Lines:
    """One connection: lines out, lines in."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._held = b""

    async def send(self, *lines: bytes) -> None:
        await self._stream.send(b"".join(line + b"\n" for line in lines))

    async def next(self) -> Line:
        """Return the next line; it must come."""
        while b"\n" not in self._held:
            self._held += await self._stream.receive()
        line, _, self._held = self._held.partition(b"\n")
        found: Line = msgspec.json.decode(line)
        return found

    async def until(self, kind: str) -> list[Line]:
        """Return the lines up to the first of a type."""
        lines = [await self.next()]
        while lines[-1]["type"] != kind:
            lines.append(await self.next())
        return lines


class Original:
    """What such a client does with a daemon's socket at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Lines]:
        async with await anyio.connect_unix(self.path) as stream:
            yield Lines(stream)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[Lines]:
        async with await anyio.connect_unix(f"{self.path}.events") as stream:
            yield Lines(stream)

    async def ask(self, kind: str, payload: Any = None, **envelope: Any) -> Line:
        """Send one command on a connection of its own; return its answer."""
        async with self.connect() as lines:
            await lines.send(command(kind, {} if payload is None else payload, **envelope))
            answer = await lines.next()
            expect(answer["id"] == "1", f"{kind} was answered to {answer['id']!r}")
            return answer

    async def ok(self, kind: str, payload: Any = None) -> Line:
        """Send a command that succeeds; return the payload of its answer."""
        answer = await self.ask(kind, payload)
        expect(answer["ok"] is True, f"{kind}: {answer}")
        found: Line = answer["payload"]
        return found

    async def refused(self, kind: str, payload: Any = None) -> tuple[str, str]:
        """Send a command that is refused; return the code and the message."""
        answer = await self.ask(kind, payload)
        expect(answer["ok"] is False, f"{kind} was not refused: {answer}")
        return answer["error"]["code"], answer["error"]["message"]

    async def until_runs(self, count: int) -> None:
        """Wait until so many runs are active: no event tells one that comes late."""
        while len((await self.ok("get_state"))["runs"]) != count:  # noqa: ASYNC110
            await anyio.sleep(0.05)

    @asynccontextmanager
    async def another_process(self, program: str) -> AsyncIterator[ByteReceiveStream]:
        """Run a Python program with the path of the event socket as its argument; give its stdout."""
        process = await anyio.open_process([sys.executable, "-c", program, f"{self.path}.events"])
        try:
            assert process.stdout is not None
            yield process.stdout
        finally:
            with anyio.CancelScope(shield=True):
                with suppress(ProcessLookupError):  # it has ended by itself
                    process.kill()
                await process.aclose()


def command(kind: str, payload: Any, command_id: str = "1", **envelope: Any) -> bytes:
    return msgspec.json.encode({"v": "1", "id": command_id, "type": kind, "payload": payload, **envelope})
