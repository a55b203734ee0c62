"""A daemon that is left with few descriptors, from none on: it refuses or fails what needs one, and recovers.

SPARE says up to how many descriptors are left (3 in ``make test``; ``make test-chaos`` tries more).
"""

from __future__ import annotations

import os
import resource
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.support.harness import Peer, check_replays, connect, events_path, serve_socket
from tests.support.home import Home, Setup, bounded

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")]

SPARE: Final = int(os.environ.get("SPARE", "3"))

TOOL: Final = [[{"tool_call": {"name": "bash", "arguments": {"command": "echo x"}, "id": "c1"}}], [{"text": "Done."}]]

COMMANDS: Final = ("ping", "get_state", "list_tools", "list_runs", "list_sessions", "new_session", "get_tree")


def open_numbers(pid: int) -> set[int]:
    return {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}


async def starve(peer: Peer, path: Path) -> None:
    """Have everything asked for; each command is answered, whatever the answer is."""
    async with AsyncExitStack() as peers:
        for _ in range(2):
            await peers.enter_async_context(connect(path))
            await peers.enter_async_context(connect(events_path(path)))
        for kind in COMMANDS:
            await peer.command(kind)
        accepted = await peer.command("prompt", {"text": "hello", "wait": False})
        if not accepted.code:
            end = (await peer.run_events(accepted.run_id))[-1]
            assert end.payload["status"] in ("completed", "failed")
        await peer.command("abort")


async def test_a_daemon_with_few_descriptors_answers_and_recovers(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with bounded(60 + 20 * SPARE):
        async with serve_socket(home, Setup(script=TOOL * (2 * SPARE + 4))) as (path, spawned), connect(path) as peer:
            await peer.ok("hello", {"features": ["events"]})
            await peer.run("first")
            limits = resource.prlimit(spawned.pid, resource.RLIMIT_NOFILE)
            for spare in range(SPARE + 1):
                taken = open_numbers(spawned.pid)
                free = [number for number in range(len(taken) + SPARE + 1) if number not in taken]
                resource.prlimit(spawned.pid, resource.RLIMIT_NOFILE, (free[spare], limits[1]))
                await starve(peer, path)
                resource.prlimit(spawned.pid, resource.RLIMIT_NOFILE, limits)
                async with connect(path) as other:
                    await other.ok("ping")
                await peer.ok("new_session")
                assert (await peer.run("again"))[-1].payload["status"] == "completed"
                assert (await peer.ok("get_state"))["runs"] == []
            statuses = {run["status"] for run in (await peer.ok("list_runs"))["runs"]}
            assert statuses <= {"completed", "failed"}
        check_replays(home)
