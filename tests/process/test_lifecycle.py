"""How a daemon begins and ends: ``ready`` to ``bye``, end of input, signals, a client that is gone (section 3)."""

from __future__ import annotations

import json
import os
import signal
import sys
import tty
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from nous import __version__
from nous.runtime.connection import MAX_PENDING
from tests.support.gates import Gate
from tests.support.harness import command_line, connect, open_peer, open_process, socket_path
from tests.support.home import Home, Setup, bounded, spawn
from tests.support.lines import Line, of_type, read_line, types
from tests.support.raw import RawWire, open_raw, until_still

pytestmark = pytest.mark.anyio

HANGS = [{"text": "Hello"}, {"hang": True}]
STUBBORN = "trap '' TERM; echo ready; while :; do read line < /dev/null; done"
IGNORES_TERM = [{"tool_call": {"name": "bash", "arguments": {"command": STUBBORN}}}]
SIGNAL_SECONDS = 5.0
"""What section 3 grants a daemon between SIGTERM and its end."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def gate(home: Home) -> Iterator[Gate]:
    with Gate(home.workdir) as gate:
        yield gate


def lines_of(data: bytes) -> list[Line]:
    assert data.endswith(b"\n")
    return [read_line(raw) for raw in data[:-1].split(b"\n")]


def prompt(text: str = "hello", *, wait: bool = False) -> bytes:
    return command_line("prompt", {"text": text, "wait": wait}, "p") + b"\n"


# -- first and last


@pytest.mark.behaviour("P3.12", "P3.13", "P1.7", "P2.12", "P5.18")
async def test_ready_is_the_first_line_and_bye_the_last(home: Home) -> None:
    async with open_process(home, Setup(flags=("--max-line-bytes", "12345"))) as (peer, spawned):
        state = await peer.ok("get_state")
        await peer.end()
        first, *_, last = await peer.rest()
        assert await spawned.wait() == 0
        assert (first.type, first.id) == ("status", "evt-1")
        assert first.payload == {
            "message": "ready",
            "protocol": "1",
            "server": "nous",
            "version": __version__,
            "pid": spawned.pid,
            "epoch": state["epoch"],
            "provider": "mock",
            "model": "mock",
            "max_line_bytes": 12345,
            "max_event_bytes": 1 << 20,
            "features": ["events", "thinking", "tool_arguments"],
        }
        assert (last.type, last.id) == ("status", "evt-2")
        assert last.payload == {"message": "bye", "reason": "eof"}


@pytest.mark.behaviour("P3.12")
async def test_each_process_has_an_epoch_of_its_own(home: Home) -> None:
    epochs = set()
    for _ in range(2):
        async with open_process(home) as (peer, _):
            epochs.add((await peer.next_line()).payload["epoch"])
    assert len(epochs) == 2


# -- the end of stdin


@pytest.mark.behaviour("P3.16", "P7.1")
async def test_three_commands_in_a_pipe(home: Home) -> None:
    async with open_process(home) as (peer, spawned):
        await peer.send(
            prompt() + command_line("ping", None, "a") + b"\n" + command_line("get_state", None, "b") + b"\n"
        )
        await peer.end()
        lines = await peer.rest()
        assert await spawned.wait() == 0
        assert {line.id for line in lines if line.is_answer} == {"p", "a", "b"}
        run = [line for line in lines if line.run_id and not line.is_answer]
        assert run[-1].payload["status"] == "completed"
        assert lines[-2] == run[-1]


@pytest.mark.behaviour("P3.16")
async def test_a_run_goes_on_after_the_end_of_stdin(home: Home, gate: Gate) -> None:
    async with open_process(home, Setup(script=[[gate.step()], [{"text": "Finished."}]])) as (peer, spawned):
        await peer.send(prompt(wait=True))
        await peer.events_until("tool_execution_update")
        await peer.end()
        gate.open()
        lines = await peer.rest()
        assert await spawned.wait() == 0
        assert (await peer.answer("p")).payload["output"] == "Finished."
        assert lines[-1].payload["message"] == "bye"


@pytest.mark.behaviour("P3.16", "P3.11")
async def test_draining_is_bounded(home: Home) -> None:
    async with open_process(home, Setup(script=[HANGS], flags=("--drain-timeout", "50ms"))) as (peer, spawned):
        run_id = await peer.start("hello")
        await peer.end()
        lines = await peer.rest()
        assert await spawned.wait() == 0
        run = await peer.run_events(run_id)
        assert types(run)[-3:] == ["message_end", "turn_end", "agent_end"]
        assert run[-1].payload["status"] == "aborted"
        assert lines[-1].payload == {"message": "bye", "reason": "eof"}


@pytest.mark.behaviour("P3.17")
async def test_on_eof_abort_ends_runs_at_once(home: Home) -> None:
    async with open_process(home, Setup(script=[HANGS], flags=("--on-eof", "abort"))) as (peer, spawned):
        await peer.send(prompt(wait=True))
        await peer.events_until("message_update")
        await peer.end()
        lines = await peer.rest()
        assert await spawned.wait(SIGNAL_SECONDS) == 0
        assert (await peer.answer("p")).payload["events"][-1]["status"] == "aborted"
        assert lines[-1].payload == {"message": "bye", "reason": "eof"}


# -- shutdown


@pytest.mark.behaviour("P6.5", "P8.23", "P3.13")
async def test_shutdown_finishes_runs_and_takes_no_more(home: Home, gate: Gate) -> None:
    async with open_process(home, Setup(script=[[gate.step()], [{"text": "Finished."}]])) as (peer, spawned):
        run_id = await peer.start("hello")
        await peer.events_until("tool_execution_update")
        assert await peer.ok("shutdown") == {"command": "shutdown"}
        await peer.ok("new_session")
        late = await peer.command("prompt", {"text": "late"})
        assert (late.code, late.data["error"]["retryable"]) == ("shutting_down", True)
        gate.open()
        run = await peer.run_events(run_id)
        assert run[-1].payload["status"] == "completed"
        assert (await peer.rest())[-1].payload == {"message": "bye", "reason": "shutdown"}
        assert await spawned.wait() == 0


# -- signals


@pytest.mark.behaviour("P3.20", "P3.11")
@pytest.mark.parametrize("script", [HANGS, IGNORES_TERM], ids=["model", "tool"])
async def test_sigterm_aborts_and_ends_in_order(home: Home, script: list[object]) -> None:
    async with open_process(home, Setup(script=[script])) as (peer, spawned):
        await peer.send(prompt(wait=True))
        await peer.events_until("message_update" if script is HANGS else "tool_execution_update")
        with bounded(SIGNAL_SECONDS):
            spawned.signal(signal.SIGTERM)
            lines = await peer.rest()
            assert await spawned.wait() == 0
        assert lines[-1].payload == {"message": "bye", "reason": "signal"}
        result = await peer.answer("p")
        run = await peer.run_events(result.run_id)
        assert run[-1].payload["status"] == "aborted"
        assert any(b'"type":"trace.end","status":"aborted"' in line for line in trace_lines(home, result.run_id))
        spawned.log()


@pytest.mark.behaviour("P3.20", "P3.16")
async def test_sigterm_cuts_the_draining_short(home: Home) -> None:
    async with open_process(home, Setup(script=[HANGS])) as (peer, spawned):
        run_id = await peer.start("hello")
        await peer.events_until("message_update")
        await peer.end()
        with bounded(SIGNAL_SECONDS):
            spawned.signal(signal.SIGTERM)
            lines = await peer.rest()
            assert await spawned.wait() == 0
        assert (await peer.run_events(run_id))[-1].payload["status"] == "aborted"
        assert lines[-1].payload["message"] == "bye"


@pytest.mark.behaviour("P3.20")
async def test_sigterm_at_any_moment_of_the_start(home: Home) -> None:
    async with open_raw(home) as (wire, spawned):
        assert b'"ready"' in await wire.line()
        spawned.signal(signal.SIGTERM)
        assert b'"bye"' in await wire.line()
        assert await spawned.wait() == 0


@pytest.mark.behaviour("P3.20")
async def test_a_disk_that_hangs_keeps_no_daemon_from_ending(home: Home) -> None:
    """A session's file is being made durable, and never is."""
    program = """
import sys, threading
from nous.cli.main import main
from nous.store.sync_job import SyncJob
SyncJob.descriptors = lambda job: []
SyncJob.run = lambda job: threading.Event().wait()
sys.exit(main(["serve", *sys.argv[1:]]))
"""
    command = [sys.executable, "-c", program, *home.arguments(Setup())]
    with bounded():
        async with await anyio.open_process(command, cwd=home.workdir, env=home.environ()) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert b'"ready"' in await process.stdout.receive()
            await process.stdin.send(
                b"\n".join([command_line("new_session", {}, "n"), command_line("ping", {}, "p"), b""])
            )
            assert b'"pong"' in await process.stdout.receive()
            process.send_signal(signal.SIGTERM)
            with bounded(SIGNAL_SECONDS):
                assert b'"bye"' in await process.stdout.receive()
                assert await process.wait() == 0


@pytest.mark.behaviour("P3.21")
async def test_a_second_signal_ends_the_process_now(home: Home) -> None:
    setup = Setup(script=[IGNORES_TERM], config={"daemon": {"abort_grace_ms": 60_000}})
    async with open_process(home, setup) as (peer, spawned):
        await peer.start("hello")
        await peer.events_until("tool_execution_update")
        spawned.signal(signal.SIGTERM)
        while (await peer.ok("get_state"))["run_state"] != "aborting":
            pass
        spawned.signal(signal.SIGTERM)
        assert await spawned.wait(2.0) == 128 + signal.SIGTERM
        assert "bye" not in [line.payload.get("message") for line in await peer.rest()]


@pytest.mark.behaviour("P3.22")
async def test_sigint_is_for_the_client_to_handle(home: Home) -> None:
    async with open_peer("stdio", home) as peer:
        pid = (await peer.next_line()).payload["pid"]
        for _ in range(3):
            os.kill(pid, signal.SIGINT)
            await peer.ok("ping")


@pytest.mark.behaviour("P3.22", "P3.31")
async def test_sigint_ends_a_daemon_whose_stdin_is_a_terminal(home: Home) -> None:
    master, slave = os.openpty()
    read_fd, stdout = os.pipe()
    wire = RawWire(read_fd, master)
    try:
        with bounded():
            async with spawn(home, stdin=slave, stdout=stdout) as spawned:
                os.close(stdout)
                assert b'"ready"' in await wire.line()
                await wire.send(b'{"id":"a","type":"ping"}\n')
                assert b'"pong"' in await wire.line()
                spawned.signal(signal.SIGINT)
                assert b'"bye","reason":"signal"' in await wire.line()
                assert await spawned.wait() == 0
    finally:
        os.close(slave)
        wire.close()


# -- a client that is gone


@pytest.mark.behaviour("P3.23", "P3.24")
async def test_a_closed_stdout_is_noticed_while_a_tool_is_silent(home: Home, gate: Gate) -> None:
    async with open_raw(home, Setup(script=[[gate.step()]])) as (wire, spawned):
        await wire.send(prompt())
        run_id = read_line(await wire.line_with(b"tool_execution_update")).run_id
        wire.close_output()
        assert await spawned.wait() == 0
        spawned.log()
        assert any(b'"type":"trace.end","status":"aborted"' in line for line in trace_lines(home, run_id))


@pytest.mark.behaviour("P3.23")
async def test_a_closed_stdout_in_the_middle_of_a_stream(home: Home) -> None:
    script = [[{"text_repeat": {"text": "abcdefgh" * 8, "count": 100_000}}]]
    async with open_raw(home, Setup(script=script)) as (wire, spawned):
        await wire.send(prompt())
        run_id = read_line(await wire.line_with(b"message_update")).run_id
        wire.close_output()
        assert await spawned.wait() == 0
        spawned.log()
        assert any(b'"type":"trace.end","status":"aborted"' in line for line in trace_lines(home, run_id))


@pytest.mark.behaviour("P3.23")
async def test_a_stdout_that_nobody_ever_had(home: Home) -> None:
    async with open_raw(home) as (wire, spawned):
        wire.close_output()
        assert await spawned.wait() == 0
        spawned.log()


# -- a client that does not read


@pytest.mark.behaviour("P3.26")
@pytest.mark.parametrize("how", ["signal", "eof"])
async def test_deadlines_win_over_a_reader_that_stalls(home: Home, how: str) -> None:
    script = [[{"text_repeat": {"text": "abcdefgh" * 8, "count": 1_000_000}}]]
    async with open_raw(home, Setup(script=script, flags=("--drain-timeout", "100ms"))) as (wire, spawned):
        await wire.send(prompt())
        run_id = read_line(await wire.line_with(b"message_update")).run_id
        trace = home.state / "traces" / f"{run_id}.ndjson"
        await until_still(lambda: trace.stat().st_size)
        with bounded(SIGNAL_SECONDS):
            if how == "signal":
                spawned.signal(signal.SIGTERM)
            else:
                wire.end()
            assert await spawned.wait() == 0
        assert trace_lines(home, run_id)[-1].startswith(b'{"type":"trace.end","status":"aborted"')
        spawned.log()


@pytest.mark.behaviour("P3.26", "P3.31")
async def test_a_terminal_that_was_stopped_holds_nobody_up(home: Home) -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    stdin, write_fd = os.pipe()
    wire = RawWire(master, write_fd)
    traces = home.state / "traces"
    with bounded(), socket_path() as path:
        flags = ("--drain-timeout", "100ms", "--stdio", "--socket", str(path))
        script = [[{"text_repeat": {"text": "abcdefgh" * 8, "count": 100_000}}]]
        try:
            async with spawn(home, Setup(script=script, flags=flags), stdin=stdin, stdout=slave) as spawned:
                os.close(stdin)
                await wire.send(prompt())
                await wire.line_with(b"message_update")
                for _ in range(5):
                    await until_still(lambda: sum(file.stat().st_size for file in traces.iterdir()))
                    async with connect(path) as other:
                        await other.ok("ping")
                    # Leave room for a part of what waits: a terminal is then writable, and a write to it blocks.
                    for _ in range(400):
                        await anyio.wait_readable(master)
                        os.read(master, 777)
                wire.end()
                assert await spawned.wait(SIGNAL_SECONDS) == 0
        finally:
            os.close(slave)
            wire.close()


@pytest.mark.behaviour("P3.27")
async def test_unread_answers_stop_the_reading_of_commands(home: Home) -> None:
    count, padding = 4000, {"ignored": "x" * 20_000}
    async with open_raw(home) as (wire, spawned), anyio.create_task_group() as tasks:
        assert b'"ready"' in await wire.line()
        await wire.send(command_line("list_tools", {}, "first") + b"\n")
        answer_bytes = len(await wire.line())
        before = spawned.memory_bytes()

        async def ask() -> None:
            for n in range(count):
                await wire.send(command_line("list_tools", padding, f"{n}") + b"\n")

        tasks.start_soon(ask)
        # Read are as many commands as may wait, and as answers fit what is kept for a reader, what is being written
        # (1 MiB each) and the pipes.
        commands = MAX_PENDING + (9 << 18) / answer_bytes
        assert await until_still(lambda: wire.sent_bytes) < commands * 20_000 + (1 << 20) < count * 20_000
        assert spawned.memory_bytes() - before < 16 << 20
        for n in range(count):
            assert (await wire.line()).startswith(b'{"v":"1","id":"%d","type":"tools"' % n)


@pytest.mark.behaviour("P7.7", "P5.12")
async def test_a_client_that_reads_nothing_holds_the_provider_back(home: Home) -> None:
    count = 200_000
    text = "0123456789\u20ac" * 3
    script = [[{"text_repeat": {"text": text, "count": count}}]]
    async with open_raw(home, Setup(script=script), seconds=120) as (wire, spawned):
        await wire.send(b'{"id":"a","type":"ping"}\n')
        await wire.line_with(b"pong")
        before = spawned.memory_bytes("VmHWM")
        await wire.send(prompt())
        run_id = read_line(await wire.line_with(b"message_update")).run_id
        trace = home.state / "traces" / f"{run_id}.ndjson"
        size = await until_still(lambda: trace.stat().st_size)
        assert size < 4 << 20, "the provider was not held back"
        assert spawned.memory_bytes("VmHWM") - before < 16 << 20
        lines = await wire.lines_to(b'"type":"agent_end"')
        wire.end()
        assert await spawned.wait() == 0
        deltas = [raw for raw in lines if b'"type":"message_update"' in raw]
        run = [read_line(raw) for raw in lines if b'"type":"message_update"' not in raw]
        assert of_type(run, "message_end")[-1].payload["text_bytes"] == count * len(text.encode())
        assert text + "".join(json.loads(raw)["payload"]["delta"] for raw in deltas) == text * count


def trace_lines(home: Home, run_id: str) -> list[bytes]:
    data = (home.state / "traces" / f"{run_id}.ndjson").read_bytes()
    assert data.endswith(b"\n")
    return data[:-1].split(b"\n")
