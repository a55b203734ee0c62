"""A run from outside: what comes up before it has begun is not lost."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec
import pytest

from nous.client import Client
from nous.runtime.daemon import Daemon
from nous.system.clock import SystemClock
from nous.system.ids import RandomIds
from nous.testing import scripted_provider
from nous.testing.memory import UNSYNCED, serve_in_memory

pytestmark = pytest.mark.anyio


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    for name in ("sessions", "traces", "outputs"):
        (tmp_path / name).mkdir()
    return Daemon(
        settings=UNSYNCED,
        state_root=tmp_path,
        workdir=tmp_path,
        provider=scripted_provider([{"text": "Well"}, {"hang": True}]),
        tools=list,
        clock=SystemClock(),
        ids=RandomIds(),
        epoch="e1",
        version="0",
    )


async def kinds_of_inputs(daemon: Daemon, client: Client) -> list[str]:
    """Start a run, and change things as soon as the daemon knows of it; return the inputs of its trace."""

    async def change_at_once() -> None:
        while not daemon.runs:
            await anyio.lowlevel.checkpoint()
        daemon.set_steering_mode("all")
        daemon.abort_all("signal")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(change_at_once)
        run_id = (await client.call("prompt", text="go on", wait=False))["run_id"]
    async for event in client.events(run_id):
        last = event
    assert last.payload["status"] == "aborted"
    lines = (daemon.traces_root / f"{run_id}.ndjson").read_bytes().split(b"\n")
    return [msgspec.json.decode(line)["kind"] for line in lines if line.startswith(b'{"type":"trace.input"')]


async def test_an_abort_and_a_change_of_modes_while_a_run_begins_are_not_lost(daemon: Daemon) -> None:
    with anyio.fail_after(30):
        async with serve_in_memory(daemon) as client:
            kinds = await kinds_of_inputs(daemon, client)
    assert kinds[0] == "run_started"
    assert {"steering_mode_set", "abort_requested"} <= set(kinds)
