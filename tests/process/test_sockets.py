"""Unix sockets: what is at the path before, who may connect, who hears what, and who may be slow (section 7)."""

from __future__ import annotations

import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from tests.support.gates import Gate
from tests.support.harness import connect, events_path, open_process, serve_socket, socket_path
from tests.support.home import Home, Setup, bounded, spawn
from tests.support.lines import joined_deltas, read_line, types

pytestmark = pytest.mark.anyio

HANGS = [{"text": "Hello"}, {"hang": True}]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def gate(home: Home) -> Iterator[Gate]:
    with Gate(home.workdir) as gate:
        yield gate


# -- the path


@pytest.mark.behaviour("P7.2", "P7.3")
async def test_both_sockets_are_private_and_gone_at_the_end(home: Home) -> None:
    with bounded():
        async with serve_socket(home) as (path, spawned):
            for each in (path, events_path(path)):
                status = each.stat()
                assert stat.S_ISSOCK(status.st_mode)
                assert stat.S_IMODE(status.st_mode) == 0o600
            spawned.signal(signal.SIGTERM)
            assert await spawned.wait() == 0
            assert list(path.parent.iterdir()) == []
            assert "socket_directory_open" not in [record["event"] for record in spawned.log()]


@pytest.mark.behaviour("P7.5")
@pytest.mark.parametrize(("mode", "count"), [(0o755, 0), (0o777, 1)])
async def test_a_directory_others_may_write_to_is_warned_about_once(home: Home, mode: int, count: int) -> None:
    with bounded(), socket_path() as path:
        path.parent.chmod(mode)
        async with spawn(home, Setup(flags=("--socket", str(path)))) as spawned:
            assert spawned.process.stdout is not None
            await spawned.process.stdout.receive()
            spawned.signal(signal.SIGTERM)
            assert await spawned.wait() == 0
            warnings = [record for record in spawned.log() if record["event"] == "socket_directory_open"]
            assert [record["directory"] for record in warnings] == [str(path.parent)] * count


@pytest.mark.behaviour("P7.6")
async def test_a_daemon_starts_over_the_sockets_of_a_killed_one(home: Home) -> None:
    with bounded(), socket_path() as path:
        setup = Setup(flags=("--socket", str(path)))
        for _ in range(2):
            async with spawn(home, setup) as spawned:
                assert spawned.process.stdout is not None
                assert b"ready" in await spawned.process.stdout.receive()
                async with connect(path) as peer:
                    assert (await peer.command("ping")).type == "pong"
                spawned.signal(signal.SIGKILL)
                await spawned.wait()
            assert path.exists()


@pytest.mark.behaviour("P7.6")
@pytest.mark.parametrize("taken", ["s", "s.events"])
async def test_a_socket_that_somebody_answers_on_is_left_alone(home: Home, taken: str) -> None:
    with bounded(), socket_path() as path, socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path.with_name(taken)))
        other.listen(8)
        async with spawn(home, Setup(flags=("--socket", str(path)))) as spawned:
            assert await spawned.wait() == 6
            assert b"somebody answers" in spawned.stderr()
        assert [each.name for each in path.parent.iterdir()] == [taken]


@pytest.mark.behaviour("P7.6")
@pytest.mark.parametrize("taken", ["s", "s.events"])
async def test_what_is_no_socket_is_left_alone(home: Home, taken: str) -> None:
    with bounded(), socket_path() as path:
        path.with_name(taken).write_text("precious", encoding="utf-8")
        async with spawn(home, Setup(flags=("--socket", str(path)))) as spawned:
            assert await spawned.wait() == 6
            assert b"not a socket" in spawned.stderr()
        assert [each.name for each in path.parent.iterdir()] == [taken]
        assert path.with_name(taken).read_text(encoding="utf-8") == "precious"


@pytest.mark.behaviour("P7.6")
async def test_a_link_to_a_dead_socket_is_no_socket(home: Home) -> None:
    with bounded(), socket_path() as path:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path.with_name("dead")))
        path.symlink_to(path.with_name("dead"))
        async with spawn(home, Setup(flags=("--socket", str(path)))) as spawned:
            assert await spawned.wait() == 6
        assert path.is_symlink()


@pytest.mark.behaviour("P7.6")
async def test_of_daemons_that_start_at_once_over_dead_sockets_exactly_one_serves(home: Home) -> None:
    with bounded(60), socket_path() as path:
        for each in (path, events_path(path)):
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(each))
        codes: list[int] = []
        serving, refused = anyio.Event(), anyio.Event()

        async def start(number: int) -> None:
            (home.root / f"d{number}").mkdir()
            async with spawn(Home(home.root / f"d{number}"), Setup(flags=("--socket", str(path)))) as spawned:
                assert spawned.process.stdout is not None
                try:
                    line = await spawned.process.stdout.receive()
                except anyio.EndOfStream:
                    codes.append(await spawned.wait(60))
                    if len(codes) == 3:
                        refused.set()
                    return
                assert b"ready" in line
                assert not serving.is_set()
                serving.set()
                await refused.wait()
                async with connect(path) as peer, connect(events_path(path)) as subscriber:
                    run_id = (await peer.ok("prompt", {"text": "hello"}))["run_id"]
                    await subscriber.run_events(run_id)
                spawned.signal(signal.SIGTERM)
                assert await spawned.wait() == 0

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(start, number)
        assert codes == [6, 6, 6]
        assert list(path.parent.iterdir()) == []


async def test_a_path_no_socket_can_have(home: Home) -> None:
    for path in (home.root / ("x" * 120), home.root / "nowhere" / "either" / "s"):
        with bounded():
            async with spawn(home, Setup(flags=("--socket", str(path)))) as spawned:
                assert await spawned.wait() in (1, 6)
                assert path.name.encode() in spawned.stderr()
                assert b"Traceback" not in spawned.stderr()


# -- what peers send


async def test_unfinished_lines_of_many_peers_are_bounded_together(home: Home) -> None:
    setup = Setup(config={"daemon": {"max_line_bytes": 1 << 20}})
    half = b'{"id":"' + b"x" * (500 << 10)
    with bounded(60):
        async with serve_socket(home, setup) as (path, spawned), AsyncExitStack() as peers:
            opened = [await peers.enter_async_context(connect(path)) for _ in range(200)]
            await opened[-1].ok("ping")
            before = spawned.memory_bytes()
            for peer in opened:
                await peer.send(half)
            # What others hold keeps nobody from sending a long line.
            last = await peers.enter_async_context(connect(path))
            assert (await last.ok("prompt", {"text": "y" * (900 << 10)}))["run_id"]
            assert spawned.memory_bytes("VmHWM") - before < 60 << 20
            await opened[0].send(b"\n")
            assert (await opened[0].answer("")).code == "overloaded"
            await opened[0].ok("ping")
            await opened[-1].send(b'"}\n')
            assert (await opened[-1].answer("")).code == "invalid_payload"


# -- who hears what


@pytest.mark.behaviour("P7.2", "P3.15")
async def test_commands_at_the_path_and_events_beside_it(home: Home) -> None:
    with bounded():
        async with (
            serve_socket(home) as (path, _),
            connect(path) as peer,
            connect(events_path(path)) as first,
            connect(events_path(path)) as second,
        ):
            result = await peer.command("prompt", {"text": "hello"})
            for subscriber in (first, second):
                run = await subscriber.run_events(result.run_id)
                assert joined_deltas(run) == "mock response: hello"
                assert subscriber.lines == run
            assert peer.lines == [result]


@pytest.mark.behaviour("P7.2", "P5.17")
async def test_events_on_a_command_connection_that_asked(home: Home) -> None:
    with bounded():
        async with serve_socket(home) as (path, _), connect(path) as peer, connect(path) as other:
            await peer.ok("hello", {"features": ["events"]})
            run = await peer.run("hello")
            assert types(run)[-1] == "agent_end"
            await peer.ok("hello", {"features": []})
            # ``ready`` follows the answer of ``hello``: it has come once the next answer has.
            await peer.ok("ping")
            before = len(peer.lines)
            assert (await peer.ok("prompt", {"text": "again"}))["output"] == "mock response: again"
            assert len(peer.lines) == before + 1
            assert not other.lines


@pytest.mark.behaviour("P3.15")
async def test_ready_and_bye_only_after_hello(home: Home) -> None:
    with bounded():
        async with serve_socket(home) as (path, spawned), connect(path) as plain, connect(path) as greeted:
            await plain.ok("ping")
            await greeted.ok("hello")
            spawned.signal(signal.SIGTERM)
            assert [line.type for line in await plain.rest()] == ["pong"]
            lines = await greeted.rest()
            assert lines[-1].payload == {"message": "bye", "reason": "signal"}
            assert await spawned.wait() == 0


@pytest.mark.behaviour("P3.14", "P3.13")
async def test_stdout_gets_ready_and_bye_while_only_sockets_serve(home: Home) -> None:
    with bounded():
        async with serve_socket(home) as (path, spawned), connect(path) as peer:
            assert spawned.process.stdin is not None
            assert spawned.process.stdout is not None
            await spawned.process.stdin.send(b'{"id":"a","type":"shutdown"}\n')
            await spawned.process.stdin.aclose()
            assert (await peer.ok("prompt", {"text": "hello"}))["output"] == "mock response: hello"
            await peer.ok("shutdown")
            line = read_line((await spawned.process.stdout.receive())[:-1])
            assert line.payload == {"message": "bye", "reason": "shutdown"}
            assert await spawned.wait() == 0


# -- stdio and sockets together


@pytest.mark.behaviour("P3.18", "P7.2")
async def test_stdio_and_sockets_serve_one_daemon(home: Home) -> None:
    with socket_path() as path:
        async with open_process(home, Setup(flags=("--stdio", "--socket", str(path)))) as (peer, spawned):
            await peer.next_line()
            async with connect(path) as other, connect(events_path(path)) as subscriber:
                session = (await other.ok("new_session"))["session_id"]
                assert (await peer.ok("get_state"))["session_id"] == session
                result = await other.command("prompt", {"text": "from the socket"})
                run = await peer.run_events(result.run_id)
                assert run == await subscriber.run_events(result.run_id)
                second = await peer.run("from stdio")
                assert second == await subscriber.run_events(second[0].run_id)
                await peer.end()
                assert (await peer.rest())[-1].payload == {"message": "bye", "reason": "eof"}
                assert await other.rest() == [line for line in other.lines if line.is_answer]
                await subscriber.rest()
            assert await spawned.wait() == 0
            assert not path.exists()


# -- clients that go


@pytest.mark.behaviour("P3.25", "P3.19")
async def test_a_client_that_goes_aborts_nothing(home: Home, gate: Gate) -> None:
    script = [[gate.step()], [{"text": "Finished."}]]
    with bounded():
        async with serve_socket(home, Setup(script=script)) as (path, _), connect(events_path(path)) as subscriber:
            async with connect(path) as peer:
                await peer.ask("prompt", {"text": "hello"})
                await subscriber.events_until("tool_execution_update")
            gate.open()
            end = (await subscriber.events_until("agent_end"))[-1]
            assert end.payload["status"] == "completed"


@pytest.mark.behaviour("P3.19")
async def test_the_end_of_a_connections_input_answers_what_is_pending(home: Home, gate: Gate) -> None:
    script = [[gate.step()], [{"text": "Finished."}]]
    with bounded():
        async with serve_socket(home, Setup(script=script)) as (path, _), connect(path) as peer:
            async with connect(events_path(path)) as subscriber:
                await peer.ask("prompt", {"text": "hello"}, "p")
                await peer.send(b'{"id":"q","type":"ping"}')
                await peer.end()
                await subscriber.events_until("tool_execution_update")
                gate.open()
                assert {line.id: line.type for line in await peer.rest()} == {"p": "result", "q": "pong"}
            async with connect(path) as another:
                await another.ok("ping")
