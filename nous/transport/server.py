"""Serves a daemon over stdio and Unix sockets, from ``ready`` to ``bye``."""

from __future__ import annotations

import resource
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from nous.ports.endpoint import BrokenEndpointError, Endpoint
from nous.protocol.events import StatusEvent
from nous.runtime.connection import Connection
from nous.runtime.daemon import Daemon
from nous.runtime.drain import ABORT_MARGIN_MS, end_runs
from nous.runtime.hub import Listener
from nous.runtime.outbox import Outbox
from nous.system.threads import run_in_thread
from nous.telemetry.log import get_log
from nous.transport.ending import ProcessEnding
from nous.transport.unix import SocketEndpoint, UnixListener, prepare_directory

log = get_log("transport")

FLUSH_MS: Final = 1500
"""How long the last lines may take to a reader that is slow; with the abort grace this stays under 5 s."""

ANSWER_MS: Final = 500
"""How long commands that are still pending at the end may take to be answered."""

SPARE_MS: Final = 300
"""What the steps of the end may take beyond their own bounds before the process is ended by force."""


def end_limit_ms(abort_grace_ms: int) -> int:
    """Return how long the end of a daemon may take once it has begun: its steps one after the other."""
    return abort_grace_ms + ABORT_MARGIN_MS + ANSWER_MS + FLUSH_MS + SPARE_MS


MIN_CONNECTIONS: Final = 4

FIRST_TURNS: Final = 8
"""So many turns the loop takes before anything is loaded ahead: what came with the start is answered first."""


ServePeer = Callable[[SocketEndpoint, Outbox, Listener, TaskGroup], Awaitable[None]]
"""Serves one peer of a socket; tasks of the connection go into the group, which is cancelled when this returns."""


class Server:
    """One daemon and its transports.  ``wire`` gets ``ready`` and ``bye`` also where only sockets serve.

    ``load_ahead`` and ``housekeeping`` are called after ``ready``, in a thread: what a first run will need, and what
    nobody waits for.  ``ending``: what signals and the deadline of the end do to this process; without it (in tests)
    nothing.
    """

    def __init__(
        self,
        daemon: Daemon,
        *,
        wire: Endpoint,
        serve_stdio: bool,
        socket_path: Path | None = None,
        load_ahead: Callable[[], None] = lambda: None,
        housekeeping: Callable[[], None] = lambda: None,
        ending: ProcessEnding | None = None,
    ) -> None:
        self._daemon = daemon
        self._wire = wire
        self._serve_stdio = serve_stdio
        self._socket_path = socket_path
        self._load_ahead = load_ahead
        self._housekeeping = housekeeping
        self._ending = ending
        self._outbox = Outbox(wire)
        self._connections: set[Connection] = set()
        self._places = anyio.Semaphore(max_connections())

    async def serve(self) -> None:
        """Serve until asked to stop, then end in order.  Returns once ``bye`` is written or given up on."""
        daemon = self._daemon
        listeners = self._listen()
        try:
            async with anyio.create_task_group() as runs:
                daemon.bind(runs)
                async with anyio.create_task_group() as tasks:
                    await self._start(tasks, listeners)
                    await daemon.stop.requested.wait()
                    await self._end()
                    if self._ending is not None:
                        self._ending.settle()
                    daemon.syncs.let_go()
                    tasks.cancel_scope.cancel()
                runs.cancel_scope.cancel()
        finally:
            for listener in listeners:
                listener.close()
            with anyio.CancelScope(shield=True):
                await daemon.catalogue.aclose()
            daemon.syncs.close()
            daemon.uses.close()

    def _listen(self) -> list[UnixListener]:
        if self._socket_path is None:
            return []
        path = self._socket_path
        prepare_directory(path.parent)
        commands = UnixListener(path)
        try:
            return [commands, UnixListener(path.with_name(path.name + ".events"))]
        except BaseException:
            commands.close()
            raise

    async def _start(self, tasks: TaskGroup, listeners: list[UnixListener]) -> None:
        daemon = self._daemon
        tasks.start_soon(self._outbox.run)
        if self._ending is not None:
            # A signal right after ``ready`` must find its handler.
            self._ending.watch(daemon.stop)
        self._outbox.put(daemon.event_line(daemon.ready()))
        tasks.start_soon(daemon.loop_watch.run)
        tasks.start_soon(daemon.extensions.run, daemon.listener)
        tasks.start_soon(daemon.schemas.run)
        tasks.start_soon(self._watch_wire)
        if self._serve_stdio:
            tasks.start_soon(self._serve_wire)
        if listeners:
            tasks.start_soon(self._accept, listeners[0], self._serve_commands, tasks)
            tasks.start_soon(self._accept, listeners[1], self._serve_events, tasks)
        tasks.start_soon(self._settle_in)

    async def _settle_in(self) -> None:
        """Do what the start did not wait for, once what came with it is answered."""
        for _ in range(FIRST_TURNS):
            await anyio.lowlevel.checkpoint()
        try:
            await run_in_thread(self._load_ahead)
        except Exception as error:
            # The first run will say it in full.
            log.info("not_loaded_ahead", error=repr(error))
        await self._warm_provider()
        await self._keep_house(self._housekeeping)

    async def _warm_provider(self) -> None:
        try:
            await self._daemon.provider.warm()
        except Exception as error:
            # The first call will say it in full.
            log.info("provider_not_warmed", error=repr(error))

    async def _keep_house(self, work: Callable[[], None]) -> None:
        try:
            await run_in_thread(work)
        except Exception as error:
            log.warning("housekeeping_failed", error=repr(error))

    async def _end(self) -> None:
        """End runs, answer what is pending, write the last lines; every step is bounded."""
        daemon = self._daemon
        await end_runs(daemon, daemon.settings.daemon.drain_timeout_ms)
        with anyio.move_on_after(ANSWER_MS / 1000):
            for connection in tuple(self._connections):
                await connection.wait_idle()
        bye = daemon.event_line(StatusEvent(message="bye", reason=daemon.stop.reason))
        self._outbox.put(bye)
        for connection in self._connections:
            connection.say_bye(bye)
        with anyio.move_on_after(FLUSH_MS / 1000):
            await self._outbox.room(0)
            for connection in tuple(self._connections):
                await connection.outbox.room(0)

    # -- stdio

    async def _serve_wire(self) -> None:
        daemon = self._daemon
        listener = Listener(self._outbox, paced=True, bound_bytes=0, on_overrun=lambda: None)
        daemon.hub.add(listener)
        connection = Connection(
            daemon, self._wire, self._outbox, listener, is_stdio=True, on_end_of_input=self._on_end_of_input
        )
        self._connections.add(connection)
        try:
            await connection.serve()
        except Exception as error:
            log.error("connection_failed", error=describe(error))
            daemon.stop.request("client_gone", abort=True)

    def _on_end_of_input(self) -> None:
        self._daemon.stop.request("eof", abort=self._daemon.settings.daemon.on_eof == "abort")

    async def _watch_wire(self) -> None:
        """A reader of stdout that goes away is a client that is gone."""
        try:
            await self._wire.wait_closed()
        except BrokenEndpointError:
            pass
        except Exception as error:
            # Not to be watched: that it is gone is seen when something is written.
            log.warning("wire_not_watched", error=describe(error))
            return
        self._outbox.drop()
        self._daemon.stop.request("client_gone", abort=True)

    # -- sockets

    async def _accept(self, listener: UnixListener, serve: ServePeer, tasks: TaskGroup) -> None:
        await self._places.acquire()
        async for endpoint in listener.connections():
            tasks.start_soon(self._serve_socket, endpoint, serve)
            # Peers beyond the bound wait in the backlog until another one goes.
            await self._places.acquire()

    async def _serve_socket(self, endpoint: SocketEndpoint, serve: ServePeer) -> None:
        """Serve one peer.  Whatever goes wrong ends this connection and nothing else."""
        outbox = Outbox(endpoint)
        listener: Listener | None = None
        try:
            async with anyio.create_task_group() as tasks:
                listener = self._subscriber(endpoint, outbox, tasks)
                tasks.start_soon(outbox.run)
                await serve(endpoint, outbox, listener, tasks)
                tasks.cancel_scope.cancel()
        except Exception as error:
            log.warning("connection_failed", peer_pid=endpoint.peer_pid, error=describe(error))
        finally:
            if listener is not None:
                self._daemon.hub.remove(listener)
            outbox.drop()
            endpoint.close()
            self._places.release()

    async def _serve_commands(
        self, endpoint: SocketEndpoint, outbox: Outbox, listener: Listener, tasks: TaskGroup
    ) -> None:
        connection = Connection(self._daemon, endpoint, outbox, listener, is_stdio=False)
        self._connections.add(connection)
        try:
            await connection.serve()
            await outbox.room(0)
        finally:
            self._connections.discard(connection)

    async def _serve_events(
        self, endpoint: SocketEndpoint, outbox: Outbox, listener: Listener, tasks: TaskGroup
    ) -> None:
        from nous.runtime.catchup import follow_events

        tasks.start_soon(follow_events, self._daemon, listener)
        await endpoint.wait_closed()

    def _subscriber(self, endpoint: SocketEndpoint, outbox: Outbox, tasks: TaskGroup) -> Listener:
        def overrun() -> None:
            log.warning("event_subscriber_dropped", peer_pid=endpoint.peer_pid, queued_bytes=outbox.queued_bytes)
            outbox.drop()
            tasks.cancel_scope.cancel()

        return Listener(
            outbox,
            paced=False,
            bound_bytes=self._daemon.settings.daemon.subscriber_buffer_bytes,
            on_overrun=overrun,
            peer_pid=endpoint.peer_pid,
        )


def max_connections() -> int:
    """Return how many connections may be open: they leave half of the descriptors to runs, tools and files."""
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft_limit == resource.RLIM_INFINITY else max(soft_limit // 2, MIN_CONNECTIONS)


def describe(error: BaseException) -> str:
    """Return what went wrong; of a group, the first of its errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return repr(error)
