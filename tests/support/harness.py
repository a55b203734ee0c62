"""One way to talk to a daemon, whatever carries the bytes: in memory, over stdio, over a Unix socket.

    home = Home(tmp_path)
    async with open_peer("stdio", home, Setup(script=[[{"text": "Hello"}]])) as peer:
        answer = await peer.command("ping")
        run = await peer.run("hi")

A :class:`Peer` is no client: it shows every line in the order it came, lets a test send any bytes at all, and checks
each line against what holds for every line (:mod:`tests.support.lines`).  Every wait is bounded: leaving the deadline
of ``open_peer`` fails the test.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import anyio
import msgspec

from nous.cli.options import given_flags, parse
from nous.cli.serve import make_daemon, make_parser, make_world, permission
from nous.config.layers import resolve
from nous.config.provider import require_provider
from nous.ports.endpoint import Endpoint
from nous.protocol.grammar import EventGrammar
from nous.replay.engine_mode import replay_in_engine
from nous.runtime.daemon import Daemon
from nous.system.ids import new_epoch
from nous.system.state_dir import EpochLock, open_state_dir
from nous.transport.memory import MemoryEndpoint, memory_pair
from nous.transport.server import Server
from tests.support.home import TEST_SECONDS, Home, Setup, Spawned, bounded, spawn
from tests.support.lines import Line, read_line
from tests.support.wires import MemoryWire, ProcessWire, SocketWire, Wire

Carrier = Literal["memory", "stdio", "socket"]
CARRIERS: Final[tuple[Carrier, ...]] = ("memory", "stdio", "socket")

Found = TypeVar("Found")


class Peer:
    """One connection as a test sees it.

    ``lines`` is all that came, in order.  ``answer``, ``events_until`` and ``next_line`` each go on where they
    themselves left off.
    """

    def __init__(self, wire: Wire, max_event_bytes: int = 1 << 20) -> None:
        self.lines: list[Line] = []
        self.ended = False
        self._wire = wire
        self._max_event_bytes = max_event_bytes
        self._changed = anyio.Event()
        self._sent = 0
        self._answers: dict[str, list[Line]] = {}
        self._events: list[Line] = []
        self._runs: dict[str, list[Line]] = {}
        self._grammars: dict[str, EventGrammar] = {}
        self._line_cursor = 0
        self._event_cursor = 0

    # -- out

    async def send(self, data: bytes) -> None:
        """Send raw bytes."""
        await self._wire.send(data)

    async def send_line(self, line: bytes) -> None:
        await self._wire.send(line + b"\n")

    async def ask(self, kind: str, payload: Mapping[str, object] | None = None, command_id: str | None = None) -> str:
        """Send a command; return its id without waiting for the answer."""
        self._sent += 1
        command_id = f"c{self._sent}" if command_id is None else command_id
        await self.send_line(command_line(kind, payload, command_id))
        return command_id

    async def end(self) -> None:
        """Send no more."""
        await self._wire.end()

    # -- in

    async def command(
        self, kind: str, payload: Mapping[str, object] | None = None, command_id: str | None = None
    ) -> Line:
        """Send a command and return its answer, success or error."""
        return await self.answer(await self.ask(kind, payload, command_id))

    async def refused(self, kind: str, payload: Mapping[str, object] | None = None) -> str:
        """Send a command and return the code it is refused with, and its cause if there is one: ``code: cause``."""
        answer = await self.command(kind, payload)
        assert answer.code, answer
        return f"{answer.code}: {answer.cause}" if answer.cause else answer.code

    async def ok(self, kind: str, payload: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Send a command that succeeds and return the payload of its answer."""
        answer = await self.command(kind, payload)
        assert not answer.code, answer
        return answer.payload

    async def start(self, text: str, **payload: object) -> str:
        """Start a run and return its id once it was accepted."""
        accepted = await self.ok("prompt", {"text": text, "wait": False, **payload})
        return str(accepted["run_id"])

    async def run(self, text: str, **payload: object) -> list[Line]:
        """Start a run and return its events, to the last."""
        return await self.run_events(await self.start(text, **payload))

    async def run_events(self, run_id: str) -> list[Line]:
        """Wait for a run's end and return all its events."""

        def ended() -> list[Line] | None:
            mine = self._runs.get(run_id)
            return mine if mine and mine[-1].type == "agent_end" else None

        return await self._until(ended, f"the end of run {run_id}")

    async def answer(self, command_id: str) -> Line:
        """Return the next answer to a command."""

        def next_answer() -> Line | None:
            found = self._answers.get(command_id)
            return found.pop(0) if found else None

        return await self._until(next_answer, f"the answer to {command_id}")

    async def events_until(self, kind: str, **fields: object) -> list[Line]:
        """Return the events since the last call, up to one of this type whose payload has these fields."""

        def found() -> list[Line] | None:
            for index in range(self._event_cursor, len(self._events)):
                line = self._events[index]
                if line.type == kind and all(line.payload.get(k) == v for k, v in fields.items()):
                    out = self._events[self._event_cursor : index + 1]
                    self._event_cursor = index + 1
                    return out
            return None

        return await self._until(found, f"the event {kind} {fields or ''}")

    async def seq_reached(self, run_id: str, seq: int) -> None:
        """Return as soon as a run's event of this number or a later one has come."""

        def reached() -> bool | None:
            mine = self._runs.get(run_id)
            return True if mine and mine[-1].data["seq"] >= seq else None

        await self._until(reached, f"event {seq} of run {run_id}")

    async def next_line(self) -> Line:
        """Return the next line, whatever it is."""

        def following() -> Line | None:
            return self.lines[self._line_cursor] if self._line_cursor < len(self.lines) else None

        line = await self._until(following, "a line")
        self._line_cursor += 1
        return line

    async def rest(self) -> list[Line]:
        """Wait for the end of the stream and return every line there ever was."""
        while not self.ended:
            await self._changed.wait()
        return self.lines

    async def pump(self) -> None:
        """Read to the end of the stream."""
        held = b""
        while data := await self._wire.receive():
            *lines, held = (held + data).split(b"\n")
            for raw in lines:
                self._take(read_line(raw, self._max_event_bytes))
            self._notify()
        self.ended = True
        self._notify()
        assert not held, f"the stream ended within a line: {held[:200]!r}"

    def _take(self, line: Line) -> None:
        self.lines.append(line)
        if line.is_answer:
            self._answers.setdefault(line.id, []).append(line)
        else:
            self._events.append(line)
            self._runs.setdefault(line.run_id, []).append(line)
            self._check_grammar(line)

    def _check_grammar(self, line: Line) -> None:
        """Hold each run against the grammar of events, unless its beginning was before our time."""
        if line.data.get("seq") == 1:
            self._grammars[line.run_id] = EventGrammar(filtered=True)
        grammar = self._grammars.get(line.run_id)
        violation = None if grammar is None else grammar.feed(line.data)
        assert violation is None, f"{violation}\n{line}"

    def check_ended(self) -> None:
        """Check that each run that began has ended."""
        assert self.ended
        for grammar in self._grammars.values():
            assert grammar.finish() == []

    def _notify(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def _until(self, probe: Callable[[], Found | None], what: str) -> Found:
        while (found := probe()) is None:
            assert not self.ended, f"the stream ended before {what}; it ended with {self.lines[-3:]}"
            await self._changed.wait()
        return found


def command_line(kind: str, payload: Mapping[str, object] | None, command_id: str) -> bytes:
    return msgspec.json.encode({"v": "1", "id": command_id, "type": kind, "payload": dict(payload or {})})


# -- opening one

OpenPeer = Callable[..., AbstractAsyncContextManager["Peer"]]
"""What the fixture ``nous`` of the interaction tests gives: an optional :class:`Setup` in, a :class:`Peer` out."""


@asynccontextmanager
async def open_peer(carrier: Carrier, home: Home, setup: Setup | None = None) -> AsyncIterator[Peer]:
    """Start a daemon and connect to it; at the end it must stop in order, with nothing but JSON on its stderr.

    All events come on the one connection: a socket's peer has asked for them in its ``hello``.
    """
    try:
        with bounded():
            async with _OPENERS[carrier](home, setup or Setup()) as peer:
                yield peer
            check_replays(home)
    except BaseExceptionGroup as group:
        raise _first_of(group) from None


def check_replays(home: Home) -> None:
    """Check that every run of a test replays from its trace, byte for byte."""
    for path in sorted((home.state / "traces").glob("*.ndjson")):
        report = replay_in_engine(path)
        assert report.verdict == "identical", f"{path}: {report}"


def _first_of(error: BaseException) -> BaseException:
    """Return what failed first: the failure a person wants to read, without the task groups around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def _open_in_memory(home: Home, setup: Setup) -> AsyncIterator[Peer]:
    mine, theirs = memory_pair()
    async with anyio.create_task_group() as tasks:
        with make_server(home, setup, theirs) as (daemon, server):
            async with _pumped(MemoryWire(mine)) as peer:
                tasks.start_soon(_serve_in_memory, server, theirs)
                yield peer
                daemon.stop.request("signal", abort=True)
                await peer.rest()
                peer.check_ended()


async def _serve_in_memory(server: Server, endpoint: MemoryEndpoint) -> None:
    await server.serve()
    await endpoint.aclose()


@contextmanager
def make_server(home: Home, setup: Setup, wire: Endpoint) -> Iterator[tuple[Daemon, Server]]:
    """Build what ``nous serve`` builds, from the same command line, in this process."""
    options = parse(make_parser(), home.arguments(setup))
    settings = resolve(environ=home.environ(setup), flags=given_flags(options), config_file=options.config).settings
    world = make_world(require_provider(settings), settings, home.state / "traces")
    state = open_state_dir(home.state, permission(options, settings))
    epoch = new_epoch()
    lock = EpochLock.acquire(state.daemons, epoch)
    try:
        daemon = make_daemon(settings, state, home.workdir, world, epoch)
        yield daemon, Server(daemon, wire=wire, serve_stdio=True)
    finally:
        lock.release()


@asynccontextmanager
async def open_process(
    home: Home, setup: Setup | None = None, seconds: float = TEST_SECONDS, *, program: str | None = None
) -> AsyncIterator[tuple[Peer, Spawned]]:
    """Start a daemon on stdio and give the process beside the peer; how it ends is the test's business.

    ``program`` as :func:`tests.support.home.spawn` has it.
    """
    try:
        with bounded(seconds):
            async with spawn(home, setup, program=program) as spawned, _pumped(ProcessWire(spawned.process)) as peer:
                yield peer, spawned
    except BaseExceptionGroup as group:
        raise _first_of(group) from None


@asynccontextmanager
async def _open_stdio(home: Home, setup: Setup) -> AsyncIterator[Peer]:
    async with open_process(home, setup) as (peer, spawned):
        yield peer
        await _terminate(peer, spawned)


@asynccontextmanager
async def _open_socket(home: Home, setup: Setup) -> AsyncIterator[Peer]:
    async with serve_socket(home, setup) as (path, spawned), connect(path) as peer:
        await peer.ok("hello", {"features": ["events"]})
        yield peer
        await _terminate(peer, spawned)


@asynccontextmanager
async def serve_socket(home: Home, setup: Setup | None = None) -> AsyncIterator[tuple[Path, Spawned]]:
    """Start a daemon on a socket, and give the path once it is ready; how it ends is the test's business."""
    setup = setup or Setup()
    with socket_path() as path:
        async with spawn(home, replace(setup, flags=(*setup.flags, "--socket", str(path)))) as spawned:
            await wait_ready(spawned)
            yield path, spawned


@asynccontextmanager
async def connect(path: Path) -> AsyncIterator[Peer]:
    """Connect to a socket, or with ``PATH.events`` subscribe."""
    async with await anyio.connect_unix(path) as stream, _pumped(SocketWire(stream)) as peer:
        yield peer


def events_path(path: Path) -> Path:
    return path.with_name(path.name + ".events")


@asynccontextmanager
async def _pumped(wire: Wire) -> AsyncIterator[Peer]:
    """Give a peer that reads while the block runs."""
    peer = Peer(wire)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.pump)
        yield peer
        tasks.cancel_scope.cancel()


@contextmanager
def socket_path() -> Iterator[Path]:
    """Give a path short enough for a socket, which pytest's own directories are not."""
    with tempfile.TemporaryDirectory(prefix="nous-") as directory:
        yield Path(directory) / "s"


async def wait_ready(spawned: Spawned) -> Line:
    """Read the first line of a daemon's stdout, which is ``ready``."""
    assert spawned.process.stdout is not None
    data = b""
    while not data.endswith(b"\n"):
        data += await spawned.process.stdout.receive()
    line = read_line(data[:-1])
    assert line.payload["message"] == "ready", line
    return line


async def _terminate(peer: Peer, spawned: Spawned) -> None:
    spawned.signal(signal.SIGTERM)
    await peer.rest()
    peer.check_ended()
    assert await spawned.wait() == 0
    spawned.log()


_OPENERS: Final[dict[Carrier, Callable[[Home, Setup], AbstractAsyncContextManager[Peer]]]] = {
    "memory": _open_in_memory,
    "stdio": _open_stdio,
    "socket": _open_socket,
}
