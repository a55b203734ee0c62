"""A link in memory: what the peer says is put there by the test, what the client says is kept."""

from __future__ import annotations

from collections import deque
from typing import Any

import anyio
import msgspec


def event_line(run_id: str, seq: int, kind: str = "message_update", **payload: Any) -> bytes:
    line = {"v": "1", "id": f"{run_id}.{seq}", "type": kind, "seq": seq, "payload": {"run_id": run_id, **payload}}
    return msgspec.json.encode(line) + b"\n"


def response_line(command_id: str, kind: str = "pong", **more: Any) -> bytes:
    line = {"v": "1", "id": command_id, "type": kind, "payload": {}, "ok": "error" not in more, **more}
    return msgspec.json.encode(line) + b"\n"


class MemoryLink:
    """``say`` queues what one read will deliver, ``hang_up`` the end; ``reads`` counts what was read of it."""

    def __init__(self) -> None:
        self.reads = 0
        self.sent: list[bytes] = []
        self.input_ended = False
        self.is_broken = False
        self._said: deque[bytes] = deque()
        self._arrived = anyio.Event()

    def say(self, data: bytes) -> None:
        self._said.append(data)
        self._arrived.set()

    def hang_up(self) -> None:
        self.say(b"")

    async def receive(self) -> bytes:
        while not self._said:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        self.reads += 1
        return self._said.popleft()

    async def send(self, data: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if self.is_broken:
            raise BrokenPipeError
        self.sent.append(data)

    async def end_input(self) -> None:
        self.input_ended = True
