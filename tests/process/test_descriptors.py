"""What a daemon's descriptors may be, and that nothing but the protocol reaches the wire (section 3)."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import tty
from pathlib import Path

import anyio
import pytest

from tests.support.harness import command_line, open_peer
from tests.support.home import ROOT, Home, Setup, bounded, spawn
from tests.support.lines import Line, joined_deltas, of_type, read_line
from tests.support.raw import RawWire, until, until_still

pytestmark = pytest.mark.anyio

COMMANDS = (
    command_line("ping", None, "a")
    + b"\n"
    + command_line("prompt", {"text": "hello", "wait": False}, "p")
    + b"\n"
    + command_line("get_state", None, "b")
    + b"\n"
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def lines_of(data: bytes) -> list[Line]:
    assert data.endswith(b"\n")
    return [read_line(raw) for raw in data[:-1].split(b"\n")]


def check_whole(lines: list[Line]) -> None:
    """Check that ``lines`` is all that :data:`COMMANDS` and the end of input bring."""
    assert lines[0].payload["message"] == "ready"
    assert lines[-1].payload == {"message": "bye", "reason": "eof"}
    assert sorted(line.id for line in lines if line.is_answer) == ["a", "b", "p"]
    assert joined_deltas(lines) == "mock response: hello"
    assert lines[-2].type == "agent_end"


@pytest.mark.behaviour("P3.31")
async def test_regular_files(home: Home) -> None:
    given, written = home.root / "in", home.root / "out"
    given.write_bytes(COMMANDS)
    with bounded(), given.open("rb") as stdin, written.open("wb") as stdout:
        async with spawn(home, stdin=stdin, stdout=stdout) as spawned:
            assert await spawned.wait() == 0
    check_whole(lines_of(written.read_bytes()))


@pytest.mark.behaviour("P3.31")
async def test_dev_null(home: Home) -> None:
    with bounded():
        async with spawn(home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as spawned:
            assert await spawned.wait() == 0
            spawned.log()
        async with spawn(home, stdin=subprocess.DEVNULL) as spawned:
            assert spawned.process.stdout is not None
            assert b"ready" in await spawned.process.stdout.receive()
            assert await spawned.wait() == 0


@pytest.mark.behaviour("P3.31", "P3.16")
async def test_commands_from_a_pipe_into_dev_null_are_done(home: Home) -> None:
    with bounded():
        async with spawn(home, stdout=subprocess.DEVNULL) as spawned:
            assert spawned.process.stdin is not None
            await spawned.process.stdin.send(COMMANDS)
            await spawned.process.stdin.aclose()
            assert await spawned.wait() == 0
    assert any(b"mock response: hello" in line for line in home.session_lines())


@pytest.mark.behaviour("P3.31")
async def test_a_socket_pair_as_node_gives_its_children(home: Home) -> None:
    mine, theirs = socket.socketpair()
    with mine, bounded():
        async with spawn(home, stdin=theirs.fileno(), stdout=theirs.fileno()) as spawned:
            theirs.close()
            wire = RawWire(mine.fileno(), mine.fileno())
            await wire.send(COMMANDS)
            mine.shutdown(socket.SHUT_WR)
            check_whole(lines_of(await wire.rest()))
            assert await spawned.wait() == 0


@pytest.mark.behaviour("P3.31")
async def test_a_terminal(home: Home) -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    wire = RawWire(master, os.dup(master))
    try:
        with bounded():
            async with spawn(home, stdin=slave, stdout=slave) as spawned:
                assert read_line(await wire.line()).payload["message"] == "ready"
                await wire.send(COMMANDS)
                assert b"pong" in await wire.line()
                await wire.line_with(b"agent_end")
                await wire.send(b'{"id":"z","type":"shutdown"}\n')
                assert b"accepted" in await wire.line_with(b'"z"')
                assert b"bye" in await wire.line()
                assert await spawned.wait() == 0
    finally:
        os.close(slave)
        wire.close()


@pytest.mark.behaviour("P3.31")
async def test_the_descriptors_of_whoever_started_it_stay_as_they_were(home: Home) -> None:
    read_fd, stdin_of_daemon = os.pipe()
    os.write(stdin_of_daemon, COMMANDS)
    mine, theirs = os.pipe()
    with bounded():
        async with spawn(home, stdin=read_fd, stdout=theirs) as spawned:
            wire = RawWire(mine, stdin_of_daemon)
            await wire.line_with(b"agent_end")
            assert os.get_blocking(read_fd)
            assert os.get_blocking(theirs)
            os.close(theirs)
            wire.end()
            await wire.rest()
            assert await spawned.wait() == 0
            os.close(read_fd)
            wire.close()


# -- nothing else on the wire

STRAY = """
import os, sys
seen = []
def hook(event, arguments):
    # After the wire was claimed: a session's file is opened when the first prompt comes.
    if event == "open" and "sessions/" in str(arguments[0]) and not seen:
        seen.append(event)
        print("stray print", flush=True)
        os.write(1, b"stray write\\n")
        os.system("echo stray child; cat")
sys.addaudithook(hook)
"""


@pytest.mark.behaviour("P3.28")
async def test_stray_output_never_reaches_the_wire(home: Home) -> None:
    site = home.root / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(STRAY, encoding="utf-8")
    setup = Setup(environ={"PYTHONPATH": f"{site}{os.pathsep}{ROOT}"})
    with bounded():
        async with spawn(home, setup) as spawned:
            assert spawned.process.stdin is not None
            assert spawned.process.stdout is not None
            await spawned.process.stdin.send(COMMANDS)
            await spawned.process.stdin.aclose()
            data = b""
            try:
                while True:
                    data += await spawned.process.stdout.receive()
            except anyio.EndOfStream:
                check_whole(lines_of(data))
            assert await spawned.wait() == 0
            for word in (b"stray print", b"stray write", b"stray child"):
                assert word in spawned.stderr()


@pytest.mark.behaviour("P3.29")
async def test_children_have_no_descriptor_of_the_wire(home: Home) -> None:
    command = "find /proc/$$/fd -type l -printf '%f %l\\n'; cat; echo 300 end-of-input"
    script = [[{"tool_call": {"name": "bash", "arguments": {"command": command}}}], [{"text": "Done."}]]
    async with open_peer("stdio", home, Setup(script=script)) as peer:
        run = await peer.run("list")
        [end] = of_type(run, "tool_execution_end")
        targets = dict(line.split(" ", 1) for line in end.payload["result"].split("\n") if line)
        assert targets.pop("300") == "end-of-input"
        assert set(targets) == {"0", "1", "2"}
        assert targets["0"] == "/dev/null"
        assert targets["1"] == targets["2"]


@pytest.mark.behaviour("P3.30")
async def test_stderr_holds_json_lines_only(home: Home) -> None:
    script = [[{"tool_call": {"name": "bash", "arguments": {"command": "echo oops >&2; kill -9 $$"}}}], [{"cut": True}]]
    with bounded():
        async with spawn(home, Setup(script=script, flags=("--log-level", "debug"))) as spawned:
            assert spawned.process.stdin is not None
            assert spawned.process.stdout is not None
            await spawned.process.stdin.send(b"garbage\n" + COMMANDS)
            await spawned.process.stdin.aclose()
            async for _ in spawned.process.stdout:
                pass
            assert await spawned.wait() == 0
            for record in spawned.log():
                assert {"ts", "level", "room", "event", "epoch"} <= set(record)
            assert b"oops" not in spawned.stderr()


# -- refusing to start


async def refusal(home: Home, *arguments: str) -> tuple[int, str]:
    with bounded():
        async with spawn(home, arguments=["serve", *arguments], stdin=subprocess.DEVNULL) as spawned:
            assert spawned.process.stdout is not None
            with pytest.raises(anyio.EndOfStream):
                await spawned.process.stdout.receive()
            return await spawned.wait(), spawned.stderr().decode()


async def test_no_provider_no_daemon(home: Home) -> None:
    code, said = await refusal(home, "--state-dir", str(home.state), "--bootstrap")
    assert code == 6
    assert "add --provider mock" in said
    assert not home.state.exists()


async def test_no_state_directory_no_daemon(home: Home) -> None:
    code, said = await refusal(home, "--provider", "mock", "--state-dir", str(home.state))
    assert code == 6
    assert "nous init" in said
    assert not home.state.exists()


async def test_a_wrong_command_line_is_refused(home: Home) -> None:
    for flags in (
        ("--max-line-bytes", "many"),
        ("--drain-timeout", "soon"),
        ("--on-eof", "explode"),
        ("--nonsense",),
    ):
        code, said = await refusal(home, "--provider", "mock", "--state-dir", str(home.state), "--bootstrap", *flags)
        assert code == 6, flags
        assert flags[-1] in said
        assert "Traceback" not in said
    assert not home.state.exists()


async def test_lines_that_no_trace_can_hold_are_not_taken(home: Home) -> None:
    flags = ("--max-line-bytes", str((63 << 20) + 1))
    code, said = await refusal(home, "--provider", "mock", "--state-dir", str(home.state), "--bootstrap", *flags)
    assert code == 6
    assert f"--max-line-bytes: expected an integer from 64 to {63 << 20}" in said
    assert not home.state.exists()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.behaviour("P3.31")
async def test_descriptors_that_are_closed_at_the_start(home: Home, closed: str) -> None:
    """What the daemon opens first must not become its wire."""
    serve = shlex.join([sys.executable, "-m", "nous", "serve", *home.arguments(Setup())])
    with bounded():
        process = await anyio.open_process(
            ["sh", "-c", f"exec {serve} {closed}"], cwd=home.workdir, env=home.environ(), stdin=subprocess.PIPE
        )
        async with process:
            assert process.stdin is not None
            assert process.stderr is not None
            if closed == ">&-":
                await process.stdin.send(COMMANDS)
                await until(lambda: bool(home.session_lines()) or process.returncode is not None)
                locks = [path.read_bytes() for path in (home.state / "daemons").glob("*.lock")]
                assert not any(b'"type"' in lock for lock in locks)
            await process.stdin.aclose()
            assert await process.wait() == 0
            said = b"".join([data async for data in process.stderr])
            assert b"Traceback" not in said


@pytest.mark.behaviour("P3.31")
async def test_pipes_that_do_not_block_as_some_runtimes_give_them(home: Home) -> None:
    stdin, write_fd = os.pipe()
    read_fd, stdout = os.pipe()
    for fd in (stdin, stdout):
        os.set_blocking(fd, False)
    wire = RawWire(read_fd, write_fd)
    script = [[{"text_repeat": {"text": "0123456789" * 10, "count": 10_000}}]]
    with bounded():
        async with spawn(home, Setup(script=script), stdin=stdin, stdout=stdout) as spawned:
            os.close(stdin)
            os.close(stdout)
            await wire.send(COMMANDS)
            # Long enough unread that every buffer on the way is full.
            trace = home.state / "traces"
            await until_still(lambda: sum(path.stat().st_size for path in trace.glob("*.ndjson")))
            wire.end()
            lines = lines_of(await wire.rest())
            assert joined_deltas(lines) == "0123456789" * 100_000
            assert await spawned.wait() == 0
    wire.close()
