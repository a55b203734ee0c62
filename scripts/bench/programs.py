"""Starts the programs that are measured, and reads what they do: wall time, CPU time, memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
LIMIT_S: Final = 120


class Program:
    """A process that answers lines on stdout.  Reads are by line; every wait is bounded by the run's own alarm."""

    def __init__(self, arguments: list[str], env: dict[str, str] | None = None) -> None:
        self.spawned = time.perf_counter()
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin, self.process.stdout

    def send(self, line: str) -> None:
        self._in.write(line.encode() + b"\n")
        self._in.flush()

    def line(self) -> bytes:
        line = self._out.readline()
        if not line:
            raise RuntimeError("the program ended")
        return bytes(line)

    def until(self, mark: bytes) -> bytes:
        while mark not in (line := self.line()):
            pass
        return line

    def cpu_s(self) -> float:
        """CPU time so far of all threads, those that have ended included, to the nanosecond."""
        # The kernel's clock of another process: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of linux/posix-timers.h.
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def settle(self) -> None:
        """Wait until it has nothing to do: what a start leaves for later is no part of what comes first."""
        before, now = -1.0, self.cpu_s()
        while now - before > 0.0005:
            time.sleep(0.05)
            before, now = now, self.cpu_s()

    def written_bytes(self) -> int:
        """Bytes that went through write calls so far, whatever they went to."""
        fields = dict(
            line.split(": ") for line in Path(f"/proc/{self.process.pid}/io").read_text("ascii").split("\n")[:-1]
        )
        return int(fields["wchar"])

    def rss_mb(self, field: str = "VmRSS") -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").split("\n"):
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
        return 0.0

    def close(self) -> None:
        self._in.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._out.close()


class Provider:
    def __init__(self) -> None:
        self._sent = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "provider.py")], stdout=subprocess.PIPE, stderr=self._sent
        )
        assert self.process.stdout is not None
        self._out = self.process.stdout
        self.base = f"http://127.0.0.1:{int(self._out.readline())}"

    def last_byte_ns(self, count: int) -> int:
        """Return when the ``count``-th answer's last byte was sent."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            self._sent.seek(0)
            lines = self._sent.read().split()
            if len(lines) >= count:
                return int(lines[count - 1])
            time.sleep(0.001)
        raise RuntimeError("the provider sent nothing")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        self._out.close()
        self._sent.close()


@contextmanager
def provider() -> Iterator[Provider]:
    made = Provider()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def nous(base: str, model: str, *extra: str, state: Path | None = None) -> Iterator[Program]:
    """A daemon on a fresh state directory and workdir (or on ``state``)."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "work").mkdir()
        (root / "work" / "small.txt").write_text("a small file\n" * 20, encoding="utf-8")
        program = Program(
            [
                str(Path(sys.executable).with_name("nous")),
                *("serve", "--provider", "openai", "--api-base", base, "--model", model),
                *("--state-dir", str(state or root / "state"), "--bootstrap", "--workdir", str(root / "work"), *extra),
            ],
            env={k: v for k, v in os.environ.items() if not k.startswith("NOUS_")},
        )
        try:
            yield program
        finally:
            program.close()


@contextmanager
def floor(base: str, model: str) -> Iterator[Program]:
    program = Program([sys.executable, str(HERE / "floor.py"), base, model])
    try:
        yield program
    finally:
        program.close()
