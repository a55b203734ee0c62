"""Signals and the end of the process: counted signals, nothing left running, and no work that can hold the end up."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support.harness import command_line, open_process
from tests.support.home import Home, Setup, Spawned
from tests.support.lines import read_line
from tests.support.raw import RawWire, open_raw, until
from tests.support.workers import workers_in

pytestmark = pytest.mark.anyio

MARKER: Final = "left-behind-by-a-tool"
SLEEPERS: Final = f"(setsid sh -c 'exec -a {MARKER} sleep 300' &) ; exec -a {MARKER} sleep 300"
"""A child and a grandchild that has left its session."""
TELLS: Final = "trap 'touch told' TERM; echo ready; while :; do read line < /dev/null; done"
"""Makes a file once it is told to end, and does not end."""
GUARD_SECONDS: Final = 20.0
"""Guards against a daemon that never ends; how soon one ends is measured where it is promised."""


def bash(command: str) -> Setup:
    return Setup(script=[[{"tool_call": {"name": "bash", "arguments": {"command": command}}}]])


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def tools_of(home: Home, daemon: Spawned) -> set[int]:
    return workers_in(home.workdir) - {daemon.pid}


def end_of_trace(home: Home) -> bytes:
    """Return the head of the last line of the only trace."""
    (path,) = (home.state / "traces").glob("*.ndjson")
    return path.read_bytes().splitlines()[-1]


ABORTED: Final = b'{"type":"trace.end","status":"aborted"'

Begin = Callable[[RawWire], None]
BEGINNINGS: Final[dict[str, tuple[tuple[str, ...], Begin]]] = {
    "eof": (("--on-eof", "abort"), RawWire.end),
    "client_gone": ((), RawWire.close_output),
}


@pytest.mark.behaviour("P3.20", "P3.17", "P3.23")
@pytest.mark.parametrize("how", BEGINNINGS)
async def test_the_first_sigterm_is_the_first_also_when_the_end_has_begun(home: Home, how: str) -> None:
    flags, begin = BEGINNINGS[how]
    setup = Setup(script=bash(TELLS).script, flags=flags)
    async with open_raw(home, setup) as (wire, spawned):
        await wire.send(command_line("prompt", {"text": "go", "wait": False}, "p") + b"\n")
        await wire.line_with(b"tool_execution_update")
        begin(wire)
        await until((home.workdir / "told").exists)
        spawned.signal(signal.SIGTERM)
        assert await spawned.wait(GUARD_SECONDS) == 0
        assert end_of_trace(home).startswith(ABORTED)
        await until(lambda: not tools_of(home, spawned))
        spawned.log()


@pytest.mark.behaviour("P3.20")
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGHUP], [signal.SIGTERM, signal.SIGHUP], [signal.SIGHUP, signal.SIGTERM], [signal.SIGHUP] * 3],
    ids=lambda signals: "-".join(number.name for number in signals),
)
async def test_sighup_ends_in_order_and_hurries_nothing(home: Home, signals: list[signal.Signals]) -> None:
    async with open_process(home, bash(f"{SLEEPERS} & {TELLS}")) as (peer, spawned):
        await peer.start("go")
        await peer.events_until("tool_execution_update")
        assert tools_of(home, spawned)
        for number in signals:
            spawned.signal(number)
        lines = await peer.rest()
        assert await spawned.wait(GUARD_SECONDS) == 0
        assert lines[-1].payload == {"message": "bye", "reason": "signal"}
        assert end_of_trace(home).startswith(ABORTED)
        await until(lambda: not tools_of(home, spawned))
        spawned.log()


@pytest.mark.behaviour("P3.20")
async def test_under_nohup_sighup_means_nothing(home: Home) -> None:
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    async with open_raw(home, program=program) as (wire, spawned):
        assert b'"ready"' in await wire.line()
        spawned.signal(signal.SIGHUP)
        await wire.send(command_line("ping", None, "a") + b"\n")
        assert b'"pong"' in await wire.line()
        wire.end()
        assert b'"reason":"eof"' in await wire.line()
        assert await spawned.wait(GUARD_SECONDS) == 0


@pytest.mark.behaviour("P3.21")
async def test_a_second_sigterm_leaves_no_process(home: Home) -> None:
    setup = Setup(script=bash(f"{SLEEPERS} & {TELLS}").script, config={"daemon": {"abort_grace_ms": 60_000}})
    async with open_process(home, setup) as (peer, spawned):
        await peer.start("go")
        await peer.events_until("tool_execution_update")
        spawned.signal(signal.SIGTERM)
        await until((home.workdir / "told").exists)
        spawned.signal(signal.SIGTERM)
        assert await spawned.wait(GUARD_SECONDS) == 128 + signal.SIGTERM
        await until(lambda: not tools_of(home, spawned))


# -- nothing holds the end up

HANGING: Final = """
import os, sys, threading
import nous.cli.serve as serve
def hang(*_arguments):
    os.write(2, b'{"event":"hangs"}\\n')
    threading.Event().wait()
"""
SHORT: Final = "serve.end_limit_ms = lambda grace_ms: 300\n"


def has_hung(spawned: Spawned) -> Callable[[], bool]:
    return lambda: b'"hangs"' in spawned.stderr()


@pytest.mark.behaviour("P3.20")
async def test_housekeeping_that_never_ends_does_not_hold_the_end_up(home: Home) -> None:
    async with open_raw(home, program=HANGING + "serve.keep_house = hang") as (wire, spawned):
        await until(has_hung(spawned))
        spawned.signal(signal.SIGTERM)
        assert await spawned.wait(GUARD_SECONDS) == 0
        assert b'"bye"' in await wire.rest()
        assert b"end_forced" not in spawned.stderr()


@pytest.mark.behaviour("P3.20")
async def test_an_export_that_never_ends_does_not_hold_the_end_up(home: Home) -> None:
    async with open_raw(home, program=HANGING + "serve.export_run = hang") as (wire, spawned):
        await wire.send(command_line("prompt", {"text": "go", "wait": False}, "p") + b"\n")
        run_id = read_line(await wire.line_with(b'"agent_end"')).run_id
        await wire.send(command_line("export_trace", {"run_id": run_id}, "e") + b"\n")
        await until(has_hung(spawned))
        spawned.signal(signal.SIGTERM)
        assert await spawned.wait(GUARD_SECONDS) == 0
        assert b'"bye"' in await wire.rest()
        assert b"end_forced" not in spawned.stderr()


BLOCKED: Final = {
    "python": ("while True: pass", 128 + signal.SIGTERM),
    "system": ("os.read(os.pipe()[0], 1)", 128 + signal.SIGTERM),
    # The regular expression holds the interpreter's lock: no thread runs, and the kernel ends the process.
    "locked": ("import re; re.match('(a+)+$', 'a' * 64 + 'b')", -signal.SIGPROF),
}


@pytest.mark.behaviour("P3.20")
@pytest.mark.parametrize("how", BLOCKED)
async def test_a_blocked_loop_does_not_hold_the_end_up(home: Home, how: str) -> None:
    code, status = BLOCKED[how]
    blocks = f"""
from nous.runtime.daemon import Daemon
def block(daemon):
    os.write(2, b'{{"event":"hangs"}}\\n')
    {code}
Daemon.create_session = block
"""
    async with open_raw(home, program=HANGING + SHORT + blocks) as (wire, spawned):
        await wire.send(command_line("new_session", {}, "n") + b"\n")
        await until(has_hung(spawned))
        spawned.signal(signal.SIGTERM)
        assert await spawned.wait(GUARD_SECONDS) == status
        if how != "locked":
            assert b'"end_forced"' in spawned.stderr()


@pytest.mark.behaviour("P3.21")
async def test_a_second_sigterm_ends_a_daemon_whose_loop_is_blocked(home: Home) -> None:
    blocks = """
from nous.runtime.daemon import Daemon
Daemon.create_session = hang
class Ending(serve.ProcessEnding):
    def begin(self):
        super().begin()
        os.write(2, b'{"event":"has begun"}\\n')
serve.ProcessEnding = Ending
serve.end_limit_ms = lambda grace_ms: 600_000
"""
    async with open_raw(home, program=HANGING + blocks) as (wire, spawned):
        await wire.send(command_line("new_session", {}, "n") + b"\n")
        await until(has_hung(spawned))
        spawned.signal(signal.SIGTERM)
        # Two signals of one kind that come before the first is taken are one.
        await until(lambda: b"has begun" in spawned.stderr())
        spawned.signal(signal.SIGTERM)
        assert await spawned.wait(GUARD_SECONDS) == 128 + signal.SIGTERM
