"""What tracing costs: the same run of 20,000 deltas, with its trace on disk and with one that goes nowhere."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from nous import __version__
from nous.config.settings import DaemonSettings, Settings
from nous.providers.mock import MockProvider
from nous.providers.settings import ProviderSettings
from nous.runtime import run as run_module
from nous.runtime.daemon import Daemon
from nous.store.trace_file import TraceWriter
from nous.system.clock import SystemClock
from nous.system.ids import RandomIds
from nous.transport.memory import memory_pair
from nous.transport.server import Server

DELTAS = 20_000


class NoTrace:
    """Takes the place of a trace's writer and forgets."""

    offset = 0

    @classmethod
    def create(cls, *_: object, **__: object) -> NoTrace:
        return cls()

    def append(self, data: bytes) -> None:
        self.offset += len(data)

    def begin_sync(self) -> None:
        return

    def write_end(self, end: object) -> None:
        return

    def release(self) -> None:
        return


def tracing_ratio(repeats: int = 7) -> float:
    """Return the median wall time with tracing over that without, the two taken in turn."""
    with_trace, without = [], []
    for _ in range(repeats):
        with_trace.append(_timed(TraceWriter))
        without.append(_timed(NoTrace))
    return statistics.median(with_trace) / statistics.median(without)


def _timed(writer: Any) -> float:
    setattr(run_module, "TraceWriter", writer)  # noqa: B010 - for this benchmark alone
    try:
        with tempfile.TemporaryDirectory(dir=Path.home()) as temporary:
            return anyio.run(_one_run, Path(temporary))
    finally:
        setattr(run_module, "TraceWriter", TraceWriter)  # noqa: B010


async def _one_run(root: Path) -> float:
    for name in ("sessions", "traces", "outputs"):
        (root / name).mkdir()
    script = root / "script.yaml"
    script.write_text(f"- - text_repeat: {{text: '12345678', count: {DELTAS}, chunk: 50}}\n", encoding="utf-8")
    daemon = Daemon(
        settings=Settings(daemon=DaemonSettings()),
        state_root=root,
        workdir=root,
        provider=MockProvider(ProviderSettings(model="mock", script=script)),
        tools=tuple,
        clock=SystemClock(),
        ids=RandomIds(),
        epoch="bench",
        version=__version__,
    )
    mine, theirs = memory_pair(1 << 20)
    server = Server(daemon, wire=theirs, serve_stdio=True)
    took = 0.0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        await _read_until(mine.receive, b'"ready"')
        begun = time.perf_counter()
        await mine.send(b'{"id":"1","type":"prompt","payload":{"text":"x","wait":false}}\n')
        await _read_until(mine.receive, b'"type":"agent_end"')
        took = time.perf_counter() - begun
        mine.end()
    return took


async def _read_until(receive: Callable[[], Any], mark: bytes) -> None:
    rest = b""
    while True:
        data = rest + await receive()
        if mark in data:
            return
        if b'"ok":false' in data:
            raise RuntimeError(f"refused: {data[-1000:].decode()}")
        rest = data[-64:]
