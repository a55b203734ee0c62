"""A daemon in this process, without a process or a socket, and the usual client connected to it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup

from nous import __version__
from nous.client import Client
from nous.client.channel import Channel
from nous.config.settings import Settings, TraceSettings
from nous.ports.model import Provider
from nous.ports.system import Clock, Ids
from nous.ports.tool import Tool
from nous.providers.mock import MockProvider
from nous.providers.settings import ProviderSettings
from nous.runtime.connection import Connection
from nous.runtime.daemon import Daemon
from nous.runtime.drain import end_runs
from nous.runtime.hub import Listener
from nous.runtime.outbox import Outbox
from nous.runtime.seams import Seams
from nous.system.clock import SystemClock
from nous.system.ids import RandomIds, new_epoch
from nous.transport.memory import MemoryEndpoint, memory_pair

READY_SECONDS: Final = 10.0
UNSYNCED: Final = Settings(trace=TraceSettings(fsync="off"))
"""What a test wants: everything on disk as always, but nothing to survive a power cut."""


@asynccontextmanager
async def memory_client(
    provider: Provider | None = None,
    *,
    tools: Iterable[Tool] = (),
    settings: Settings = UNSYNCED,
    state_dir: Path | None = None,
    workdir: Path | None = None,
    clock: Clock | None = None,
    ids: Ids | None = None,
    seams: Seams | None = None,
) -> AsyncIterator[Client]:
    """Make a daemon in memory and yield a client of it; what still runs at the end is aborted.

    It is the real daemon: sessions and traces are files (below ``state_dir``, or in a directory that is removed in the
    end), every line passes the real codec.  Without a ``provider`` the mock echoes.  The only tools are those given.
    """
    with _state(state_dir) as state:
        daemon = Daemon(
            settings=settings,
            state_root=state,
            workdir=state if workdir is None else workdir,
            provider=MockProvider(ProviderSettings(model="")) if provider is None else provider,
            tools=lambda: tools,
            clock=clock or SystemClock(),
            ids=ids or RandomIds(),
            seams=seams,
            epoch=new_epoch(),
            version=__version__,
        )
        async with serve_in_memory(daemon) as client:
            yield client


@contextmanager
def _state(given: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nous-") as temporary:
        root = (Path(temporary) if given is None else given).resolve()
        for name in ("sessions", "traces", "outputs"):
            (root / name).mkdir(parents=True, exist_ok=True)
        yield root


@asynccontextmanager
async def serve_in_memory(daemon: Daemon) -> AsyncIterator[Client]:
    """Serve a daemon over a pair of pipes in memory and yield its client.

    An exception of the block leaves as it is, not wrapped into a group.
    """
    mine, theirs = memory_pair()
    failure: Exception | None = None
    async with anyio.create_task_group() as runs:
        daemon.bind(runs)
        async with anyio.create_task_group() as tasks:
            _start(daemon, theirs, tasks)
            try:
                async with MemoryClient.over(mine) as client:
                    yield client
            except Exception as error:
                failure = error
            await end_runs(daemon, 0)
            tasks.cancel_scope.cancel()
        runs.cancel_scope.cancel()
    daemon.syncs.close()
    daemon.uses.close()
    if failure is not None:
        raise failure


def _start(daemon: Daemon, endpoint: MemoryEndpoint, tasks: TaskGroup) -> None:
    outbox = Outbox(endpoint)
    listener = Listener(outbox, paced=True, bound_bytes=0, on_overrun=lambda: None)
    daemon.hub.add(listener)
    connection = Connection(daemon, endpoint, outbox, listener, is_stdio=True)
    tasks.start_soon(outbox.run)
    outbox.put(daemon.event_line(daemon.ready()))
    tasks.start_soon(connection.serve)


class MemoryLink:
    """See :class:`nous.client.link.Link`."""

    def __init__(self, endpoint: MemoryEndpoint) -> None:
        self._endpoint = endpoint

    async def receive(self) -> bytes:
        """Return some bytes, or ``b""`` at the end."""
        return await self._endpoint.receive()

    async def send(self, data: bytes) -> None:
        """Write everything."""
        await self._endpoint.send(data)

    async def end_input(self) -> None:
        """Tell the daemon that no more commands come."""
        self._endpoint.end()


class MemoryClient(Client):
    """A client whose daemon is in this process."""

    @classmethod
    @asynccontextmanager
    async def over(cls, endpoint: MemoryEndpoint) -> AsyncIterator[Client]:
        """Connect to a daemon in this process."""
        client = cls(drain=0.0, keep_events=True)
        channel = Channel(MemoryLink(endpoint), client._inbox, client._pending, client._explain_socket_end)
        channel.on_line = client._notice
        try:
            async with client._running([channel]):
                await client._wait_ready(READY_SECONDS)
                yield client
        finally:
            with anyio.CancelScope(shield=True):
                await endpoint.aclose()
