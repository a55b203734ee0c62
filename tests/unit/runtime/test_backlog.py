"""Commands that wait are bounded in number and in bytes together, whatever became of the connections that sent them."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from nous.errors import NousError
from nous.runtime.backlog import Backlog
from nous.runtime.connection import Connection
from nous.runtime.daemon import Daemon
from nous.runtime.hub import Listener
from nous.runtime.outbox import Outbox
from nous.transport.memory import memory_pair
from tests.support.harness import Peer, command_line, make_server
from tests.support.home import Home, Setup, bounded
from tests.support.wires import MemoryWire

pytestmark = pytest.mark.anyio


def refuse(backlog: Backlog, size: int) -> None:
    with pytest.raises(NousError) as caught:
        backlog.enter(size)
    assert (caught.value.code, caught.value.retryable) == ("overloaded", True)


def test_commands_are_bounded_in_number() -> None:
    backlog = Backlog(max_bytes=100, max_commands=2)
    first, second = backlog.enter(0), backlog.enter(0)
    refuse(backlog, 0)
    first()
    first()
    third = backlog.enter(0)
    refuse(backlog, 0)
    second()
    third()
    assert backlog.is_empty


def test_commands_are_bounded_in_bytes() -> None:
    backlog = Backlog(max_bytes=100, max_commands=10)
    first = backlog.enter(60)
    refuse(backlog, 41)
    second = backlog.enter(40)
    refuse(backlog, 1)
    first()
    second()
    assert backlog.is_empty


def test_one_command_is_taken_whatever_its_size() -> None:
    backlog = Backlog(max_bytes=100)
    leave = backlog.enter(101)
    refuse(backlog, 0)
    leave()
    assert backlog.is_empty


async def send_and_go(daemon: Daemon, line: bytes) -> None:
    """Send a line over a connection of its own, and end that connection before it is answered."""
    mine, theirs = memory_pair()
    outbox = Outbox(theirs)
    listener = Listener(outbox, paced=False, bound_bytes=1 << 24, on_overrun=lambda: None)
    await mine.send(line + b"\n")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Connection(daemon, theirs, outbox, listener, is_stdio=False).serve)
        for _ in range(20):
            await checkpoint()
        tasks.cancel_scope.cancel()
    outbox.drop()
    await mine.aclose()
    await theirs.aclose()


@pytest.mark.parametrize(
    ("kind", "payload"),
    [("set_active_tools", {"tools": ["ls"]}), ("prompt", {"text": "hello"}), ("new_session", {})],
)
async def test_changes_of_connections_that_are_gone_are_bounded(
    tmp_path: Path, kind: str, payload: dict[str, object]
) -> None:
    mine, theirs = memory_pair()
    with bounded(), make_server(Home(tmp_path), Setup(script=[[{"text": "hi"}]] * 9), theirs) as (daemon, server):
        peer = Peer(MemoryWire(mine))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve)
            tasks.start_soon(peer.pump)
            await peer.ok("ping")
            daemon.backlog = Backlog(max_bytes=1 << 20, max_commands=3)
            before = daemon.order.ask()
            async with before:
                for number in range(9):
                    await send_and_go(daemon, command_line(kind, payload, f"gone-{number}"))
                answer = await peer.command("set_active_tools", {"tools": ["read"]}, "again")
                assert answer.code == "overloaded"
                await peer.ok("ping")
            async with daemon.order.ask():
                assert daemon.backlog.is_empty
            # A command that was refused is as if it was never sent.
            assert not (await peer.command("set_active_tools", {"tools": ["read"]}, "again")).code
            daemon.stop.request("signal", abort=True)
            await daemon.wait_idle()
            await theirs.aclose()
