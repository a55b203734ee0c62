"""Where a daemon of a test lives, and how it is started as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import anyio
import msgspec
from anyio.abc import Process

ROOT: Final = Path(__file__).resolve().parents[2]
SCALE: Final = float(os.environ.get("TEST_TIMEOUT_SCALE", "1"))
"""Stretches every deadline of the tests: for machines slower than the slowest one thought of."""

TEST_SECONDS: Final = 30.0
END_SECONDS: Final = 10.0


def bounded(seconds: float = TEST_SECONDS) -> AbstractContextManager[object]:
    """Return a context that raises TimeoutError past ``seconds``."""
    return anyio.fail_after(seconds * SCALE)


ONE_TRY: Final = {"retry": {"max_retries": 0}}
"""Configuration of a daemon that makes no model call again."""


@dataclass(frozen=True)
class Setup:
    """What a daemon is started with.

    ``script`` is the mock provider's (see nous.providers.script), ``config`` goes into the file of ``--config``,
    ``flags`` onto the command line, ``environ`` into the environment.
    """

    script: Sequence[object] = ()
    config: Mapping[str, object] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    provider: str = "mock"


class Home:
    """A directory of its own for everything a daemon of a test reads and writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.workdir = root / "work"
        self.workdir.mkdir(exist_ok=True)

    def arguments(self, setup: Setup) -> list[str]:
        """Return the flags of ``nous serve`` for a setup, with its files written."""
        out = ["--provider", setup.provider, "--state-dir", str(self.state), "--workdir", str(self.workdir)]
        if setup.script:
            out += ["--script", str(self._write("script.ndjson", *setup.script))]
        if setup.config:
            out += ["--config", str(self._write("config.yaml", setup.config))]
        return [*out, "--bootstrap", *setup.flags]

    def environ(self, setup: Setup | None = None) -> dict[str, str]:
        """Return the environment of a daemon: nothing from outside but where programs are."""
        out = {"PATH": os.environ["PATH"], "HOME": str(self.root), "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
        return {**out, **(setup.environ if setup is not None else {})}

    def session_lines(self) -> list[bytes]:
        """Return every line of every session on disk."""
        files = sorted((self.state / "sessions").glob("*.ndjson"))
        return [line for file in files for line in file.read_bytes().split(b"\n") if line]

    def _write(self, name: str, *values: object) -> Path:
        """Write JSON values, one a line (a single one is YAML too), and return the path."""
        path = self.root / name
        path.write_bytes(b"".join(msgspec.json.encode(value) + b"\n" for value in values))
        return path


# -- a daemon as a process

_RUN_NOUS: Final = "\nfrom nous.cli.start import main; raise SystemExit(main())"


class Spawned:
    """A process that a test started; its stderr goes to a file."""

    def __init__(self, process: Process, stderr: Path) -> None:
        self.process = process
        self._stderr = stderr

    @property
    def pid(self) -> int:
        return self.process.pid

    async def wait(self, seconds: float = END_SECONDS) -> int:
        """Return the exit code.  Raises TimeoutError if the process does not end within ``seconds``."""
        with bounded(seconds):
            return await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Signal the daemon, if it still runs."""
        # Not process.send_signal, which reaps a daemon that has just ended: asyncio would report 255 then.
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stderr(self) -> bytes:
        return self._stderr.read_bytes()

    def log(self) -> list[dict[str, Any]]:
        """Return the records on stderr, where nothing else may stand."""
        lines = self.stderr().split(b"\n")
        assert lines.pop() == b"", "stderr ends within a line"
        records = [json.loads(line) for line in lines]
        assert all(isinstance(record, dict) and "event" in record for record in records), records
        return records

    def memory_bytes(self, field_name: str = "VmRSS") -> int:
        """Return a figure of /proc/PID/status: ``VmRSS`` is what is resident now, ``VmHWM`` the most there ever was."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        line = next(x for x in status.split("\n") if x.startswith(f"{field_name}:"))
        return int(line.split()[1]) * 1024


@asynccontextmanager
async def spawn(
    home: Home,
    setup: Setup | None = None,
    *,
    arguments: Sequence[str] | None = None,
    program: str | None = None,
    stdin: int | IO[Any] | None = subprocess.PIPE,
    stdout: int | IO[Any] | None = subprocess.PIPE,
) -> AsyncIterator[Spawned]:
    """Start ``nous serve`` (or ``nous`` with other ``arguments``); whatever still lives at the end is killed.

    ``program``: Python code that runs before the command does, in its process.
    """
    setup = Setup() if setup is None else setup
    command = ["serve", *home.arguments(setup)] if arguments is None else list(arguments)
    path = home.root / f"stderr-{time.monotonic_ns()}"
    with path.open("wb") as stderr:
        process = await anyio.open_process(
            [sys.executable, *(("-m", "nous") if program is None else ("-c", program + _RUN_NOUS)), *command],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=home.workdir,
            env=home.environ(setup),
            start_new_session=True,
        )
    try:
        yield Spawned(process, path)
    finally:
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                process.kill()
            await process.aclose()
