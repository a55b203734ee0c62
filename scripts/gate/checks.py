"""What a check is, and the place it works in: real daemons, offline, in a directory of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from nous.client import Client, Event

ROOT: Final = Path(__file__).resolve().parents[2]
AUDIT: Final = Path(__file__).resolve().parent / "audit"
"""Holds the ``sitecustomize`` with which every Python started here watches its own sockets."""

AUDIT_VARIABLE: Final = "GATE_AUDIT_FILE"
CHECK_SECONDS: Final = 120.0

_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TMPDIR", "TZ", "SYSTEMROOT")


class UnmetError(Exception):
    """A requirement does not hold; the text says what was seen instead."""


def expect(holds: bool, seen: object) -> None:
    """Raise :class:`UnmetError` unless something holds; ``seen`` is what is shown then."""
    if not holds:
        raise UnmetError(str(seen))


class Place:
    """A home, a workdir and a state directory for one check, and an environment without keys or settings."""

    def __init__(self, root: Path, violations: Path) -> None:
        self.state = root / "state"
        self.workdir = root / "work"
        self.workdir.mkdir()
        self._root = root
        self._violations = violations
        self._scripts = 0

    def environ(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        paths = os.pathsep.join([str(AUDIT), str(ROOT)])
        return {**kept, "HOME": str(self._root), "PYTHONPATH": paths, AUDIT_VARIABLE: str(self._violations), **more}

    def script(self, calls: Sequence[object]) -> Path:
        """Write what the model will say, call by call, and return the file."""
        self._scripts += 1
        path = self._root / f"script-{self._scripts}.ndjson"
        path.write_bytes(b"".join(msgspec.json.encode(call) + b"\n" for call in calls))
        return path

    @asynccontextmanager
    async def daemon(self, calls: Sequence[object] = (), *flags: str) -> AsyncIterator[Client]:
        """Start ``nous serve`` with the scripted model and give its client; it has ended when the block has."""
        arguments = [
            "--provider",
            "mock",
            "--state-dir",
            str(self.state),
            "--workdir",
            str(self.workdir),
            "--bootstrap",
        ]
        if calls:
            arguments += ["--script", str(self.script(calls))]
        async with Client.spawn(arguments=[*arguments, *flags], env=self.environ(), cwd=self.workdir) as client:
            yield client

    def nous(self, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        """Run the command ``nous`` to its end."""
        return self.run([sys.executable, "-P", "-m", "nous", *map(str, arguments)])

    def run(self, argv: Sequence[str], **environ: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            argv, env=self.environ(**environ), cwd=ROOT, capture_output=True, timeout=CHECK_SECONDS, check=False
        )

    def trace(self, run_id: str) -> Path:
        return self.state / "traces" / f"{run_id}.ndjson"


async def stream(client: Client, text: str, **payload: Any) -> list[Event]:
    """Prompt without waiting, and return the run's events up to its end."""
    accepted = await client.call("prompt", text=text, wait=False, **payload)
    return [event async for event in client.events(accepted["run_id"])]


async def answered_within(client: Client, seconds: float, done: anyio.Event) -> int:
    """Ask ``ping`` again and again until ``done``; every answer must come within ``seconds``.  Returns how many did."""
    count = 0
    while not done.is_set():
        with anyio.move_on_after(seconds) as scope:
            await client.call("ping")
        expect(not scope.cancelled_caught, f"a ping was not answered within {seconds:g} s")
        count += 1
        await anyio.sleep(0.01)
    return count


Check = Callable[[Place], Awaitable[str]]
"""Returns what it saw, in a few words; raises if the requirement does not hold."""

Table = Mapping[str, tuple[str, Check]]
"""Checks by their ids, each with the requirement in a sentence."""
