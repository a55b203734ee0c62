"""What the tools of a killed daemon leave running: the next daemon on the state directory ends it, and only it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from nous.system.orphans import find_orphans
from nous.system.proctree import MARK_VARIABLE, epochs_in
from nous.system.state_dir import dead_epochs
from tests.support.daemon import run_nous
from tests.support.harness import open_process
from tests.support.home import Home, Setup
from tests.support.raw import until
from tests.unit.system.processes import is_running

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.uname().sysname != "Linux", reason="finds processes through /proc"),
]

LEAVES: Final = """
setsid sh -c 'trap "" TERM HUP; echo marked=$$; sh -c "echo marked=\\$\\$; sleep 300" & wait' &
env -i /bin/sh -c 'echo cleared=$$; exec sleep 300' &
wait
"""
"""A stubborn one that left the session with a child of its own, and one that cleared its environment."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@asynccontextmanager
async def left_behind(home: Home) -> AsyncIterator[set[int]]:
    """Kill a daemon while a tool runs, and give the marked processes that its tool started."""
    setup = Setup(script=[[{"tool_call": {"name": "bash", "arguments": {"command": LEAVES}}}]])
    async with open_process(home, setup) as (peer, spawned):
        await peer.start("go")
        text = ""
        while len(text.split()) < 3:
            [*_, update] = await peer.events_until("tool_execution_update")
            text += update.payload["delta"]
        spawned.signal(signal.SIGKILL)
        await spawned.wait()
    words = [word.split("=") for word in text.split()]
    try:
        yield {int(pid) for kind, pid in words if kind == "marked"}
    finally:
        # Nothing can find the one that cleared its environment.
        for pid in (int(pid) for kind, pid in words if kind == "cleared"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def bystander(mark: str) -> Iterator[int]:
    """A process of somebody else's, with a mark that only looks alike."""
    with subprocess.Popen(["sleep", "300"], env={"PATH": os.environ["PATH"], MARK_VARIABLE: mark}) as process:
        try:
            yield process.pid
        finally:
            process.kill()


async def test_the_next_daemon_ends_what_a_killed_one_left(home: Home) -> None:
    async with left_behind(home) as pids:
        (epoch,) = dead_epochs(home.state / "daemons")
        assert {stat.pid for stat in find_orphans([epoch])} >= pids
        with bystander(f":{epoch}") as unlike, bystander(f":x{epoch}.0123456789abcdef") as other:
            async with open_process(home) as (peer, spawned):
                await until(lambda: not any(map(is_running, pids)))
                await until(lambda: b'"orphans_ended"' in spawned.stderr())
                await peer.ok("ping")
            assert is_running(unlike)
            assert is_running(other)
        assert find_orphans([epoch]) == []


async def test_gc_ends_it_before_it_forgets_the_daemon(home: Home) -> None:
    async with left_behind(home) as pids:
        (epoch,) = dead_epochs(home.state / "daemons")
        assert {stat.pid for stat in find_orphans([epoch])} >= pids
        assert run_nous(home, "gc", "--state-dir", home.state).returncode == 0
        assert not any(map(is_running, pids))
        assert dead_epochs(home.state / "daemons") == []


async def test_a_living_daemon_keeps_its_processes(home: Home) -> None:
    setup = Setup(script=[[{"tool_call": {"name": "bash", "arguments": {"command": "echo $$; sleep 300"}}}]])
    async with open_process(home, setup) as (peer, _):
        await peer.start("go")
        [*_, update] = await peer.events_until("tool_execution_update")
        assert run_nous(home, "gc", "--state-dir", home.state).returncode == 0
        async with open_process(home) as (other, _):
            await other.ok("ping")
        assert is_running(int(update.payload["delta"]))
        await peer.ok("abort")


def test_a_process_spares_itself_and_what_it_comes_from(tmp_path: Path) -> None:
    """A daemon that itself was started by a tool of the dead one."""
    program = """
import os, sys
from nous.system.orphans import end_orphans
os._exit(0 if end_orphans(["dead"]) == 0 else 1)
"""
    home = Home(tmp_path)
    command = ["sh", "-c", f"{sys.executable} -c '{program}'; exit $?"]
    environ = {**home.environ(), MARK_VARIABLE: ":dead.0123456789abcdef"}
    assert subprocess.run(command, env=environ, timeout=60, check=False).returncode == 0


def test_marks_name_their_epochs() -> None:
    assert epochs_in(":0123456789abcdef") == frozenset()
    assert epochs_in(":outer.01:23:inner.45") == {"outer", "inner"}
