"""What one connection, one command or a lack of descriptors does not do to others: processes, over sockets."""

from __future__ import annotations

import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from tests.support.extension_programs import write_extension
from tests.support.gates import Gate
from tests.support.harness import Peer, connect, events_path, open_process, serve_socket, socket_path, wait_ready
from tests.support.home import Home, Setup, Spawned, bounded, spawn

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def gate(home: Home) -> Iterator[Gate]:
    with Gate(home.workdir) as gate:
        yield gate


def open_numbers(pid: int) -> set[int]:
    return {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}


def first_free(pid: int) -> int:
    taken = open_numbers(pid)
    return next(number for number in range(len(taken) + 1) if number not in taken)


async def logged(peer: Peer, spawned: Spawned, event: str) -> None:
    """Wait until the daemon has logged an event; ``peer`` is served all the time."""
    while event not in [record["event"] for record in spawned.log()]:
        await peer.ok("ping")


# -- descriptors


async def test_without_a_free_descriptor_only_new_connections_wait(home: Home, gate: Gate) -> None:
    with bounded(60):
        script = [[gate.step()], [{"text": "Finished."}], [{"text": "Again."}]]
        async with serve_socket(home, Setup(script=script)) as (path, spawned), connect(path) as peer:
            await peer.ok("hello", {"features": ["events"]})
            run_id = await peer.start("hello")
            await peer.events_until("tool_execution_update")
            limits = resource.prlimit(spawned.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(spawned.pid, resource.RLIMIT_NOFILE, (first_free(spawned.pid), limits[1]))
            async with AsyncExitStack() as peers:
                waiting: list[Peer] = []
                while "accept_failed" not in [record["event"] for record in spawned.log()]:
                    # One that a number was left for (something has been closed since) is accepted; the next one waits.
                    waiting.append(await peers.enter_async_context(connect(path)))
                    await waiting[-1].ask("ping", {}, "waits")
                    await peer.ok("ping")
                assert (await peer.ok("list_tools"))["tools"]
                assert (await peer.ok("steer", {"text": "left"}))["run_id"] == run_id
                assert (await peer.command("prompt", {"text": "no"})).code
                resource.prlimit(spawned.pid, resource.RLIMIT_NOFILE, limits)
                for each in waiting:
                    assert (await each.answer("waits")).type == "pong"
                await logged(peer, spawned, "accept_resumed")
            async with connect(events_path(path)) as subscriber:
                gate.open()
                assert (await subscriber.run_events(run_id))[-1].payload["status"] == "completed"


async def test_connections_leave_descriptors_to_runs(home: Home) -> None:
    """Connections take half of the descriptors at most; peers beyond wait, and are served when others go."""
    limit = 96
    program = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))"
    script = [[{"tool_call": {"name": "bash", "arguments": {"command": "echo x"}, "id": "c1"}}], [{"text": "Done."}]]
    with bounded(60), socket_path() as path:
        setup = Setup(script=script, flags=("--socket", str(path)))
        async with spawn(home, setup, program=program) as spawned, AsyncExitStack() as peers:
            await wait_ready(spawned)
            opened = [await peers.enter_async_context(connect(path)) for _ in range(limit // 2 - 1)]
            for peer in opened:
                await peer.ok("ping")
            late = await peers.enter_async_context(connect(path))
            await late.ask("ping", {}, "late")
            assert (await opened[0].ok("prompt", {"text": "hello"}))["output"] == "Done."
            assert not late.lines
            await opened[1].end()
            assert (await late.answer("late")).type == "pong"
            assert "accept_failed" not in [record["event"] for record in spawned.log()]


# -- a trace that is gone


async def test_the_trace_of_an_active_run_is_missing_for_a_subscriber(home: Home, gate: Gate) -> None:
    with bounded(60):
        script = [[gate.step()], [{"text": "Finished."}], [{"text": "Again."}]]
        async with serve_socket(home, Setup(script=script)) as (path, spawned), connect(path) as peer:
            await peer.ok("hello", {"features": ["events"]})
            run_id = await peer.start("hello")
            await peer.events_until("tool_execution_update")
            (home.state / "traces" / f"{run_id}.ndjson").unlink()
            async with connect(events_path(path)) as subscriber:
                assert await subscriber.rest() == []
            assert await peer.refused("get_events", {"run_id": run_id}) == "run_not_found"
            gate.open()
            assert (await peer.run_events(run_id))[-1].payload["status"] == "completed"
            async with connect(events_path(path)) as subscriber:
                await subscriber.run_events(await peer.start("again"))
            await logged(peer, spawned, "connection_failed")


# -- extensions that cannot be loaded

BROKEN = """
import os, nous.extensions.host as host
find = host.find_installed
def broken(*arguments):
    if os.path.exists({flag!r}):
        raise OSError(24, "Too many open files")
    return find(*arguments)
host.find_installed, host.LOAD_AGAIN_S = broken, 0.02
"""


async def test_extensions_that_cannot_be_loaded_end_no_daemon_and_let_nothing_pass(home: Home) -> None:
    flag = home.root / "flag"
    flag.touch()
    body = "for call in calls(): result(call, block='no')"
    write_extension(home.root / ".config" / "nous" / "extensions", "guard", body, hooks=["input"])
    async with open_process(home, program=BROKEN.format(flag=str(flag))) as (peer, _):
        assert "Too many open files" in await peer.refused("prompt", {"text": "hello"})
        assert "Too many open files" in await peer.refused("new_session")
        await peer.ok("list_tools")
        assert await peer.refused("abort") == "command_rejected: no_active_run"
        flag.unlink()
        while "Too many open files" in (answer := await peer.command("prompt", {"text": "hello"})).cause:
            pass
        assert (answer.code, answer.cause) == ("policy_blocked", "no")


# -- lines that would be too long


async def test_three_megabytes_of_an_extension_fit_no_line_and_are_cut(home: Home) -> None:
    places = home.root / ".config" / "nous" / "extensions"
    directory = write_extension(places, "big", "for call in calls(): result(call, value='x' * (3 << 20))")
    program = directory / "main.py"
    hello = program.read_text(encoding="utf-8").replace("tools=[", "commands=[{'name': 'big'}], tools=[")
    program.write_text(hello, encoding="utf-8")
    setup = Setup(config={"extensions": {"max_output_bytes": {"big": 8 << 20}}})
    async with open_process(home, setup) as (peer, _):
        answer = await peer.ok("extension_command", {"name": "big"})
        assert answer["truncated_fields"] == ["result", "value"]
        assert answer["result"] == {}
        assert set(answer["value"]) == {"x"}
        await peer.ok("ping")


# -- commands that take long


@asynccontextmanager
async def held(fifo: Path) -> AsyncIterator[None]:
    """Wait until somebody reads ``fifo``, and let that go on at the end."""
    fd = await anyio.to_thread.run_sync(os.open, fifo, os.O_WRONLY, abandon_on_cancel=True)
    try:
        yield
    finally:
        os.close(fd)


async def check_nothing_waits(path: Path, gate: Gate, fifo: Path, peer: Peer, kind: str, **payload: object) -> None:
    """Hold a command of one connection, and have another connection's answered meanwhile."""
    async with connect(path) as other:
        await peer.ok("hello")  # or its answers come in the order of its commands
        run_id = await other.start("hello")
        await other.ok("hello", {"features": ["events"]})
        await peer.ask(kind, payload, "held")
        async with held(fifo):
            assert (await other.ok("ping"))["message"] == "pong"
            assert (await other.ok("steer", {"text": "left"}))["run_id"] == run_id
            assert (await other.ok("follow_up", {"text": "later"}))["run_id"] == run_id
            assert (await other.ok("abort"))["run_id"] == run_id
            await other.events_until("agent_end", status="aborted")
            assert (await peer.ok("ping"))["message"] == "pong"
            assert not [line for line in peer.lines if line.id == "held"]
        assert not (await peer.answer("held")).code


async def test_a_hook_that_takes_long_holds_no_abort_up(home: Home, gate: Gate) -> None:
    fifo = home.root / "fifo"
    os.mkfifo(fifo)
    body = f"for call in calls(): open({str(fifo)!r}).read(); result(call)"
    places = home.root / ".config" / "nous" / "extensions"
    write_extension(places, "slow", body, hooks=["session_before_switch"])
    setup = Setup(script=[[gate.step()]], config={"extensions": {"hook_timeout_ms": {"slow": 600_000}}})
    with bounded(60):
        async with serve_socket(home, setup) as (path, _), connect(path) as peer:
            await check_nothing_waits(path, gate, fifo, peer, "new_session")


HOLD = """
import nous.runtime.recorded, nous.replay.export_process
def hold(module, name):
    work = getattr(module, name)
    def held(*arguments):
        open({fifo!r}).read()
        return work(*arguments)
    setattr(module, name, held)
hold({module}, {name!r})
"""


@pytest.mark.parametrize(
    ("kind", "module", "name"),
    [
        ("list_runs", "nous.runtime.recorded", "_list_runs"),
        ("export_trace", "nous.replay.export_process", "export_apart"),
    ],
)
async def test_a_read_that_takes_long_holds_no_abort_up(
    home: Home, gate: Gate, kind: str, module: str, name: str
) -> None:
    fifo = home.root / "fifo"
    os.mkfifo(fifo)
    program = HOLD.format(fifo=str(fifo), module=module, name=name)
    with bounded(60), socket_path() as path:
        setup = Setup(script=[[{"text": "First."}], [gate.step()]], flags=("--socket", str(path)))
        async with spawn(home, setup, program=program) as spawned:
            await wait_ready(spawned)
            async with connect(path) as peer:
                run_id = (await peer.ok("prompt", {"text": "first"}))["run_id"]
                payload = {"run_id": run_id} if kind == "export_trace" else {}
                await check_nothing_waits(path, gate, fifo, peer, kind, **payload)
