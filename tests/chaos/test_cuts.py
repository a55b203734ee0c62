"""Connections that are cut at every await of every command: only the connection ends.

CUTS says at how many loop turns each command is cut at most (25 in ``make test``; ``make test-chaos`` goes on until the
command is answered before its connection is cut).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from nous.replay.engine_mode import replay_in_engine
from nous.runtime.connection import Connection
from nous.runtime.daemon import Daemon
from nous.runtime.drain import end_runs
from nous.runtime.hub import Listener
from nous.runtime.outbox import Outbox
from nous.store.trace_reader import scan
from nous.transport.memory import MemoryEndpoint, memory_pair
from tests.support.harness import Peer, command_line, make_server
from tests.support.home import Home, Setup, bounded
from tests.support.wires import MemoryWire

pytestmark = pytest.mark.anyio

CUTS: Final = int(os.environ.get("CUTS", "25"))

TOOL: Final = [[{"tool_call": {"name": "ls", "id": "c1"}}], [{"text": "Done."}]]

Command = tuple[str, Mapping[str, object]]

# What is sent before the cut, in one write; names in braces stand for what the daemon of the test has.
COMMANDS: Final[dict[str, list[Command]]] = {
    "prompt": [("prompt", {"text": "hello", "wait": False})],
    "waiting prompt": [("prompt", {"text": "hello"})],
    "prompt with a schema": [("prompt", {"text": "{}", "output_schema": {"type": "object"}})],
    "prompt, steer, abort": [
        ("prompt", {"text": "hello", "wait": False}),
        ("steer", {"text": "left"}),
        ("follow_up", {"text": "later"}),
        ("abort", {}),
    ],
    "changes": [
        ("new_session", {}),
        ("switch_session", {"session_id": "{session}"}),
        ("set_leaf", {"session_id": "{session}", "leaf_id": "{leaf}"}),
        ("branch_session", {"session_id": "{session}"}),
        ("set_steering_mode", {"mode": "all"}),
        ("set_active_tools", {"tools": ["ls"]}),
    ],
    "compaction": [("compact_session", {"session_id": "{session}"})],
    "model": [("set_model", {"model": "other", "session_id": "{session}"})],
    "reads": [
        ("get_state", {}),
        ("get_messages", {"session_id": "{session}"}),
        ("get_tree", {"session_id": "{session}"}),
        ("get_events", {"run_id": "{run}"}),
        ("list_runs", {}),
        ("list_sessions", {}),
        ("list_tools", {}),
        ("list_models", {}),
        ("ping", {}),
        ("hello", {"features": ["events"]}),
    ],
    "export": [("export_trace", {"run_id": "{run}"})],
    "extension command": [("extension_command", {"name": "none"})],
    "the same twice": [("prompt", {"text": "hello"}), ("prompt", {"text": "hello"})],
}


class Bench:
    """A daemon in this process, and connections to it."""

    def __init__(self, daemon: Daemon, tasks: TaskGroup) -> None:
        self.daemon = daemon
        self._tasks = tasks
        self.names: dict[str, str] = {}

    async def serve(self, endpoint: MemoryEndpoint, scope: anyio.CancelScope) -> None:
        """Serve a connection as a socket's is served, until its scope is cancelled."""
        outbox = Outbox(endpoint)
        listener = Listener(outbox, paced=False, bound_bytes=1 << 24, on_overrun=scope.cancel)
        try:
            with scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(outbox.run)
                    await Connection(self.daemon, endpoint, outbox, listener, is_stdio=False).serve()
                    tasks.cancel_scope.cancel()
        finally:
            self.daemon.hub.remove(listener)
            outbox.drop()
            await endpoint.aclose()

    @asynccontextmanager
    async def peer(self) -> AsyncIterator[Peer]:
        mine, theirs = memory_pair()
        peer, scope = Peer(MemoryWire(mine)), anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.serve, theirs, scope)
            tasks.start_soon(peer.pump)
            yield peer
            scope.cancel()

    async def cut(self, commands: list[Command], turns: int) -> bool:
        """Send commands and cut their connection after so many turns of the loop; tell whether that came too late."""
        mine, theirs = memory_pair(1 << 22)
        scope = anyio.CancelScope()
        lines = [
            command_line(
                kind, {k: self._filled(v) for k, v in payload.items()}, "twice" if kind == "prompt" else f"{n}"
            )
            for n, (kind, payload) in enumerate(commands)
        ]
        await mine.send(b"".join(line + b"\n" for line in lines))
        mine.end()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.serve, theirs, scope)
            for _ in range(turns):
                await checkpoint()
            has_ended = theirs.is_closed
            scope.cancel()
        return has_ended

    def _filled(self, value: object) -> object:
        return self.names.get(value.strip("{}"), value) if isinstance(value, str) else value

    async def settled(self) -> None:
        """Wait until nothing is under way: what was asked for outlives the connection that asked."""
        await self.daemon.wait_idle()
        while self.daemon.order.busy:
            await anyio.sleep(0.001)
            await self.daemon.wait_idle()

    async def check(self) -> None:
        """Check that the daemon is as if nobody had been cut: turns are taken, runs end and are forgotten."""
        daemon = self.daemon
        async with self.peer() as peer:
            await peer.ok("new_session")
            assert (await peer.ok("prompt", {"text": "hello"}))["output"]
            await daemon.wait_idle()
            await peer.ok("set_active_tools", {"tools": ["ls", "read"]})
        await self.settled()
        assert daemon.upcoming.find("") is None
        for path in daemon.traces_root.glob("*.ndjson"):
            found = scan(path, daemon.is_dead)
            assert found.status in ("completed", "aborted", "failed"), path
            assert replay_in_engine(path).verdict == "identical"
            path.unlink()


@asynccontextmanager
async def bench(home: Home) -> AsyncIterator[Bench]:
    setup = Setup(script=TOOL * 2000, config={"trace": {"fsync": "message"}})
    _, theirs = memory_pair()
    with make_server(home, setup, theirs) as (daemon, _):
        async with anyio.create_task_group() as tasks:
            daemon.bind(tasks)
            yield Bench(daemon, tasks)
            await end_runs(daemon, 0)
            await daemon.schemas.aclose()
            tasks.cancel_scope.cancel()
        daemon.syncs.close()


async def prepare(made: Bench) -> None:
    """Give the daemon a session with a run whose trace can be read, and name both."""
    async with made.peer() as peer:
        result: dict[str, Any] = await peer.ok("prompt", {"text": "first"})
        await made.daemon.wait_idle()
        state = await peer.ok("get_tree", {"session_id": result["session_id"]})
        made.names = {"session": result["session_id"], "run": result["run_id"], "leaf": state["leaf_id"]}


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_connection_that_is_cut_ends_nothing_but_itself(tmp_path: Path, name: str) -> None:
    with bounded(30 + CUTS * 2):
        async with bench(Home(tmp_path)) as made:
            for turns in range(1, CUTS + 1):
                await prepare(made)
                late = await made.cut(COMMANDS[name], turns)
                await made.settled()
                await made.check()
                if late:
                    break
