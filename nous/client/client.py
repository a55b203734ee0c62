"""The client: spawns a daemon or connects to one, sends commands, gives out answers and events, ends in order."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
from msgspec import Struct

from nous.client.beside import Task, run_beside
from nous.client.channel import Channel
from nous.client.errors import (
    ClientClosedError,
    DaemonGoneError,
    NotTheProtocolError,
    Refusal,
    StartRefusedError,
    read_refusal,
)
from nous.client.inbox import EventStream, Inbox
from nous.client.lines import Event, Response, encode_command
from nous.client.link import SocketLink
from nous.client.pending import Pending, PendingCommands
from nous.client.process import DaemonProcess, serve_command
from nous.errors import NousError
from nous.protocol.codec import DEFAULT_MAX_LINE_BYTES
from nous.protocol.events import StartWarning

READY_SECONDS: Final = 30.0
"""How long a daemon may take to start: far more than it needs, also on a busy machine."""

EXIT_SECONDS: Final = 2.0
"""How long an idle daemon may take to end after its stdin did."""

TERMINATE_SECONDS: Final = 6.0
"""How long it may take after SIGTERM: the daemon promises five seconds."""

KILL_SECONDS: Final = 5.0
"""How long the system may take to let go of a killed process."""

HELLO_ID: Final = "hello"
"""The id of the first command that is sent over a socket; its answer is not waited for."""

_NOTICED: Final = frozenset({"status", "accepted", "agent_start", "agent_end"})


class Ready(Struct, frozen=True, kw_only=True):
    """What a daemon says of itself on its first line."""

    protocol: str = "1"
    server: str = ""
    version: str = ""
    pid: int = 0
    epoch: str = ""
    provider: str = ""
    model: str = ""
    max_line_bytes: int = DEFAULT_MAX_LINE_BYTES
    max_event_bytes: int = 0
    features: tuple[str, ...] = ()
    warnings: tuple[StartWarning, ...] = ()


class Client:
    """A connection to one daemon.  Make one with ``async with Client.spawn(...)`` or ``Client.connect(path)``.

    Any number of tasks may use it.  Durations are seconds.
    """

    def __init__(self, *, drain: float, keep_events: bool) -> None:
        self._drain = drain
        self._keep_events = keep_events
        self._inbox = Inbox()
        self._pending = PendingCommands()
        self._count = 0
        self._process: DaemonProcess | None = None
        self._channels: list[Channel] = []
        # A socket connection learns it only by saying hello, and does not wait for it.
        self._expects_ready = True
        self._ready: Ready | None = None
        self._ready_or_ended = anyio.Event()
        self._end_error: NousError | None = None
        self._said_bye = False
        self._active_runs: set[object] = set()
        self._is_closing = False

    # -- making one

    @classmethod
    @asynccontextmanager
    async def spawn(
        cls,
        argv: Sequence[str] | None = None,
        *,
        arguments: Sequence[str] = (),
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        drain: float = 0.0,
        ready_timeout: float = READY_SECONDS,
        keep_events: bool = True,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> AsyncIterator[Client]:
        """Start a daemon and yield the client once it is ready; leaving the block closes it (see :meth:`close`).

        ``argv`` is the whole command line; without it ``nous serve`` of this installation with ``arguments``.
        ``keep_events=False`` is for who only wants answers: events are read and let go.  ``on_stderr`` gets what the
        daemon writes there, as it comes.

        Raises:
            StartRefusedError: it refused to start; the error is the daemon's own, such as ``invalid_config``.
            DaemonGoneError: it ended otherwise before it was ready, or was not ready in time.
            NousError: ``io_failure`` if it could not be started at all.
        """
        client = cls(drain=drain, keep_events=keep_events)
        # --json: a refusal to start comes as an object, which becomes an error with the daemon's own code.
        command = argv or serve_command(("--json", *arguments))
        process = DaemonProcess(command, cwd=cwd, env=env, on_stderr=on_stderr)
        client._process = process
        try:
            channel = Channel(
                process, client._inbox, client._pending, client._explain_process_end, keep_events=keep_events
            )
            channel.on_line = client._notice
            async with client._running([channel], process.run):
                await client._wait_ready(ready_timeout)
                yield client
        finally:
            process.close()

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, path: Path | str, *, events: bool = False, drain: float = 0.0, keep_events: bool = True
    ) -> AsyncIterator[Client]:
        """Connect to a daemon's socket, say ``hello`` and yield the client.

        ``events`` subscribes to ``PATH.events`` too: first what the active runs have said so far, then everything
        live.  (The other way is the command ``hello`` with the feature ``events``.)

        Raises:
            NousError: ``io_failure`` if there is no socket or nobody answers.
        """
        client = cls(drain=drain, keep_events=keep_events)
        client._expects_ready = False
        links = [await SocketLink.connect(Path(path))]
        try:
            if events:
                links.append(await SocketLink.connect(Path(f"{path}.events")))
            async with client._running(client._socket_channels(links)):
                # Without it the daemon would answer in order, as clients of the original v1 expect.
                client.start("hello", command_id=HELLO_ID)
                yield client
        finally:
            for link in links:
                link.close()

    def _socket_channels(self, links: list[SocketLink]) -> list[Channel]:
        channels = [
            Channel(
                links[0],
                self._inbox,
                self._pending,
                self._explain_socket_end,
                keep_events=self._keep_events,
                ends_events=len(links) == 1,
            )
        ]
        for link in links[1:]:
            nothing = PendingCommands()
            channels.append(
                Channel(link, self._inbox, nothing, self._explain_socket_end, keep_events=self._keep_events)
            )
        for channel in channels:
            channel.on_line = self._notice
        return channels

    # -- commands

    async def send(self, kind: str, /, **payload: Any) -> Response:
        """Send a command and wait for its answer, for as long as that takes (``anyio.fail_after`` bounds it).

        A refusal is an answer: ``ok`` is false and ``error`` says why.

        Raises:
            DaemonGoneError: the daemon ended before it answered.
            EventsUnreadError: the answer stands behind events that nobody takes.
            NousError: ``line_too_long``: the daemon would not read the line.
        """
        return await self.start(kind, payload).answer()

    async def call(self, kind: str, /, **payload: Any) -> dict[str, Any]:
        """Like :meth:`send`, but return the answer's payload.

        Raises:
            CommandError: the daemon refused.
        """
        response = await self.send(kind, **payload)
        if response.error is not None:
            raise response.error
        return response.payload

    def start(
        self, kind: str, payload: Mapping[str, Any] | None = None, /, *, command_id: str | None = None
    ) -> Pending:
        """Send a command without waiting for its answer.  Never blocks; lines leave in the order of the calls."""
        if command_id is None:
            self._count += 1
            command_id = f"c{self._count}"
        line = encode_command(command_id, kind, dict(payload or {}))
        limit = DEFAULT_MAX_LINE_BYTES if self._ready is None else self._ready.max_line_bytes
        if len(line) - 1 > limit:
            raise NousError("line_too_long", f"{len(line) - 1} bytes, and the daemon reads {limit}")
        pending = Pending(command_id, len(line))
        self._commands.put(line)
        self._pending.add(pending)
        return pending

    def send_line(self, line: bytes) -> None:
        """Send bytes as they are, LF included: for tests of what is no command.  :meth:`unmatched` has the answer."""
        self._commands.put(line)
        self._pending.note_raw(len(line))

    async def unmatched(self) -> Response:
        """Return the next answer that belongs to no command sent with :meth:`start`; the newest 1024 are kept."""
        return await self._pending.unmatched()

    # -- events

    def events(self, run_id: str | None = None) -> EventStream:
        """Return an iterator over the events of a run, up to its end, or over all of them.

        An event is given out once, to whoever takes it first, and none is dropped: past 1 MiB that nobody has taken
        the client reads no further, and on stdio the daemon then holds its runs back.
        """
        return EventStream(self._inbox, run_id)

    # -- the daemon

    @property
    def ready(self) -> Ready:
        """What the daemon said of itself when it started (a socket says that in its answer to ``hello``)."""
        if self._ready is None:
            raise AttributeError("only a spawned daemon says that it is ready")
        return self._ready

    @property
    def pid(self) -> int | None:
        """The process id of the daemon that this client has spawned, if it has."""
        return None if self._process is None else self._process.pid

    @property
    def returncode(self) -> int | None:
        """The spawned daemon's exit code, negative for a signal; None while it lives."""
        return None if self._process is None else self._process.returncode

    @property
    def stderr_tail(self) -> bytes:
        """The last 64 KiB of what the spawned daemon wrote to stderr."""
        return b"" if self._process is None else self._process.stderr_tail

    # -- ending

    def end_input(self) -> None:
        """Say that no more commands will come, and go on reading: a spawned daemon finishes its runs and ends."""
        self._commands.end_input()

    def kill(self) -> None:
        """Kill a spawned daemon at once.  What it has written to disk stays."""
        if self._process is not None:
            self._process.kill()

    async def close(self, drain: float | None = None) -> None:
        """End in order; leaving the ``async with`` block does so by itself.

        Events that nobody has taken are let go, iterators end with ClientClosedError.  Then: end stdin; wait for runs
        up to ``drain`` seconds; SIGTERM, wait up to six seconds; SIGKILL.  Not to be cancelled, but bounded.
        """
        if self._is_closing:
            return
        self._is_closing = True
        self._inbox.end(ClientClosedError())
        for channel in self._channels:
            channel.ignore_events()
            channel.end_input()
        with anyio.CancelScope(shield=True):
            seconds = self._drain if drain is None else drain
            if self._process is None:
                await self._close_socket(seconds)
            else:
                await self._stop(self._process, seconds)
        self._pending.end(ClientClosedError())

    async def _close_socket(self, drain: float) -> None:
        with anyio.move_on_after(EXIT_SECONDS):
            await self._commands.input_ended.wait()
        with anyio.move_on_after(drain):
            await self._commands.ended.wait()

    async def _stop(self, process: DaemonProcess, drain: float) -> None:
        # A run that nobody wants to wait for would only keep the end of stdin from being one.
        patience = 0.0 if self._active_runs and not drain else drain + EXIT_SECONDS
        if not await process.wait(patience):
            process.terminate()
            if not await process.wait(TERMINATE_SECONDS):
                process.kill()
                await process.wait(KILL_SECONDS)
        with anyio.move_on_after(EXIT_SECONDS):
            await self._commands.ended.wait()

    # -- inside

    @property
    def _commands(self) -> Channel:
        return self._channels[0]

    @asynccontextmanager
    async def _running(self, channels: list[Channel], *more: Task) -> AsyncIterator[None]:
        """Run the channels' tasks around the block, and close before they end."""
        self._channels = channels
        async with run_beside(*more, *(c.read for c in channels), *(c.write for c in channels)):
            try:
                yield
            finally:
                await self.close()

    async def _wait_ready(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._ready_or_ended.wait()
        if self._ready is None:
            raise self._end_error or DaemonGoneError(
                f"the daemon was not ready within {seconds:g} s", stderr=self.stderr_tail
            )

    def _notice(self, line: Event | Response) -> None:
        """Keep in mind what the client itself has to know: readiness, the end, active runs."""
        if line.type not in _NOTICED:
            return
        run_id = line.payload.get("run_id")
        if line.type == "status" and not run_id:
            self._notice_status(line.payload)
        elif line.type == "agent_end":
            self._active_runs.discard(run_id)
        elif line.type == "agent_start" or line.payload.get("command") == "prompt":
            self._active_runs.add(run_id)

    def _notice_status(self, payload: dict[str, Any]) -> None:
        if payload.get("message") == "bye":
            self._said_bye = True
        elif payload.get("message") == "ready" and self._ready is None and self._expects_ready:
            self._ready = msgspec.convert(payload, Ready)
            self._ready_or_ended.set()

    async def _explain_process_end(self, violation: NotTheProtocolError | None) -> NousError | None:
        """Say why stdout ended: the exit code and the last words on stderr, nothing after a proper end."""
        assert self._process is not None
        process = self._process
        refusal = read_refusal(violation.line) if violation is not None and self._ready is None else None
        if violation is not None and refusal is None:
            self._end_error = violation
        else:
            if await process.wait(EXIT_SECONDS):
                await process.last_words()
            self._end_error = self._explain_exit(process, refusal)
        self._ready_or_ended.set()
        return self._end_error

    def _explain_exit(self, process: DaemonProcess, refusal: Refusal | None) -> DaemonGoneError | None:
        if refusal is not None:
            return StartRefusedError(refusal, returncode=process.returncode, stderr=process.stderr_tail)
        if self._said_bye and process.returncode == 0:
            return None
        return DaemonGoneError(
            describe_end(process.returncode), returncode=process.returncode, stderr=process.stderr_tail
        )

    async def _explain_socket_end(self, violation: NotTheProtocolError | None) -> NousError | None:
        if violation is not None:
            return violation
        return None if self._said_bye else DaemonGoneError("the daemon closed the connection")


def describe_end(returncode: int | None) -> str:
    """Return a sentence about how a process ended."""
    if returncode is None:
        return "the daemon closed its output and lives on"
    if returncode < 0:
        return f"the daemon was killed by {signal.Signals(-returncode).name}"
    return f"the daemon ended with exit code {returncode}"
