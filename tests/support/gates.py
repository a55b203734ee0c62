"""Holding a run at a known point without sleeping: a tool call, or a model's answer, that waits for the test."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio

from tests.support.home import ONE_TRY, Setup
from tests.support.sse_server import Reply, Wire, data_lines


class Gate:
    """A named pipe in the workdir on which a ``bash`` call waits until :meth:`open`.

    ``step`` is the call, for a script of the mock provider; what the command prints before and after is ``before`` and
    ``after``.
    """

    def __init__(self, workdir: Path, name: str = "gate") -> None:
        self.path = workdir / name
        os.mkfifo(self.path)
        # Open for reading too: so neither side waits for the other to open it.
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def command(self) -> str:
        return f"echo before; read line < {self.path.name}; echo after"

    def step(self, call_id: str = "gated") -> dict[str, Any]:
        return {"tool_call": {"name": "bash", "arguments": {"command": self.command}, "id": call_id}}

    def open(self) -> None:
        """Let the call go on."""
        os.write(self._fd, b"go\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._fd)


def chat_setup(url: str, *flags: str) -> Setup:
    """Return the setup of a daemon that asks a server of the test, and each time only once."""
    return Setup(provider="openai", config=ONE_TRY, flags=("--model", "m", "--api-base", url, *flags))


def chat_delta(text: str) -> bytes:
    """Return one delta of a chat completion, as a server streams it."""
    return data_lines(json.dumps({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}))


CHAT_END = data_lines('{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}', "[DONE]")


def chat(*texts: str) -> list[bytes]:
    """Return the parts of a whole answer."""
    return [*map(chat_delta, texts), CHAT_END]


def gated(release: anyio.Event, *texts: str) -> Reply:
    """Stream deltas at once, the end only after ``release``."""

    async def reply(wire: Wire) -> None:
        await wire.head()
        for text in texts:
            await wire.part(chat_delta(text))
        await release.wait()
        await wire.part(CHAT_END)
        await wire.end()

    return reply
