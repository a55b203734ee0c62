"""The daemon as a child process: its pipes, its last words on stderr, its end.

It stands in a session of its own, so that Ctrl-C in a terminal reaches the client alone, which decides what it means.
If the client dies, however hard, its ends of the pipes close with it: the daemon sees that and ends by itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio

from nous.errors import NousError
from nous.system.pipes import ReadPipe, WritePipe
from nous.system.threads import run_alone

STDERR_TAIL_BYTES: Final = 64 * 1024
"""How much of the daemon's stderr is kept: the end, where it says why it died."""

LAST_WORDS_SECONDS: Final = 1.0
"""How long stderr may take to be read to its end after the process is gone: a grandchild may hold it open."""


def serve_command(arguments: Sequence[str] = ()) -> list[str]:
    """Return the command line of ``nous serve`` in this interpreter and with this code.

    ``-P``: a directory the daemon is started in must not be able to put modules of its own in the place of ours.
    """
    return [sys.executable, "-P", "-m", "nous", "serve", *arguments]


class DaemonProcess:
    """One child and its three pipes.  ``run`` has to run beside everything else, in a task of its own."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> None:
        self._on_stderr = on_stderr
        self._stderr_tail = bytearray()
        self._stderr_ended = anyio.Event()
        self._exited = anyio.Event()
        self._popen, self._stdin, self._stdout, self._stderr = _start(argv, cwd, env)

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it lives."""
        return self._popen.returncode if self._exited.is_set() else None

    @property
    def stderr_tail(self) -> bytes:
        """The end of what it wrote to standard error."""
        return bytes(self._stderr_tail)

    async def receive(self) -> bytes:
        """Return some of its output, or ``b""`` at the end."""
        return await self._stdout.receive()

    async def send(self, data: bytes) -> None:
        """Write everything to its standard input."""
        await self._stdin.send(data)

    async def end_input(self) -> None:
        """Close the daemon's standard input."""
        self._stdin.close()

    async def run(self) -> None:
        """Reap the process when it ends, and drain its stderr."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._drain_stderr)
            # A thread that waits works everywhere; it ends with the process, which `stop` sees to.
            await run_alone(self._popen.wait)
            self._exited.set()

    async def _drain_stderr(self) -> None:
        try:
            while data := await self._stderr.receive():
                self._stderr_tail += data
                del self._stderr_tail[:-STDERR_TAIL_BYTES]
                if self._on_stderr is not None:
                    self._on_stderr(data)
        finally:
            self._stderr_ended.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for the end, ``seconds`` at most; whether it has ended."""
        with anyio.move_on_after(seconds):
            await self._exited.wait()
            return True
        return False

    async def last_words(self) -> None:
        """Wait, not for long, until all of stderr has been read."""
        with anyio.move_on_after(LAST_WORDS_SECONDS):
            await self._stderr_ended.wait()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        """Reach the whole group: what was started may be a script around the daemon."""
        if not self._exited.is_set():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, number)

    def close(self) -> None:
        """Close the pipes.  No task may be waiting on one any more."""
        for pipe in (self._stdin, self._stdout, self._stderr):
            pipe.close()


def _start(
    argv: Sequence[str], cwd: Path | str | None, env: Mapping[str, str] | None
) -> tuple[subprocess.Popen[bytes], WritePipe, ReadPipe, ReadPipe]:
    pairs = [os.pipe(), os.pipe(), os.pipe()]
    (child_in, our_in), (our_out, child_out), (our_err, child_err) = pairs
    try:
        popen = subprocess.Popen(
            list(argv), stdin=child_in, stdout=child_out, stderr=child_err, cwd=cwd, env=env, start_new_session=True
        )
    except OSError as error:
        for fd in (our_in, our_out, our_err):
            os.close(fd)
        name = error.filename or argv[0]
        raise NousError("io_failure", f"cannot start {argv[0]}: {name}: {error.strerror}") from error
    finally:
        for fd in (child_in, child_out, child_err):
            os.close(fd)
    return popen, WritePipe(our_in), ReadPipe(our_out), ReadPipe(our_err)
