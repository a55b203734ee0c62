"""Many runs in one daemon: nothing is left of them but their files.

SOAK_RUNS says how many (200 in ``make test``, 2,000 in ``make test-chaos``).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from nous.client import Client
from tests.support.harness import open_peer
from tests.support.home import Home, Setup, bounded

pytestmark = pytest.mark.anyio

RUNS: Final = int(os.environ.get("SOAK_RUNS", "200"))
WARM_RUNS: Final = max(20, RUNS // 10)
"""What is kept between runs (modules, buffers, the sessions used last) is there by then."""

SESSION_RUNS: Final = 10
SHARE: Final = 1.10

KINDS: Final[list[Any]] = [
    [[{"text": ["All ", "is ", "well."]}]],
    [[{"tool_call": {"name": "read", "arguments": {"path": "a.txt"}}}], [{"text": "It says so."}]],
    [[{"tool_call": {"name": "bash", "arguments": {"command": "echo out; exit 3"}}}], [{"text": "It failed."}]],
    [[{"text": "Half"}, {"error": {"status": 401}}]],
    [[{"text_repeat": {"text": "abcdefgh", "count": 2000}}]],
]


def script(runs: int) -> list[Any]:
    return [call for number in range(runs) for call in KINDS[number % len(KINDS)]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    (home.workdir / "a.txt").write_text("hello\n", encoding="utf-8")
    return home


@asynccontextmanager
async def bounded_by(runs: int) -> AsyncIterator[None]:
    """Raise TimeoutError if that many runs take longer than they ever should."""
    with bounded(30 + runs / 4):
        yield


class Usage:
    """What a process holds on to."""

    def __init__(self, pid: int) -> None:
        place = Path(f"/proc/{pid}")
        self.resident_pages = int((place / "statm").read_text(encoding="ascii").split()[1])
        self.descriptors = len(list((place / "fd").iterdir()))
        self.threads = len(list((place / "task").iterdir()))


async def test_runs_leave_nothing_in_a_daemon(home: Home) -> None:
    setup = Setup(script=script(RUNS), config={"trace": {"fsync": "off"}})
    warm: Usage | None = None
    arguments, environ = home.arguments(setup), home.environ(setup)
    async with bounded_by(RUNS), Client.spawn(arguments=arguments, env=environ) as client:
        assert client.pid is not None
        statuses: list[str] = []
        for number in range(RUNS):
            if not number % SESSION_RUNS:
                await client.call("new_session")
            run_id = (await client.call("prompt", text="go", wait=False))["run_id"]
            async for event in client.events(run_id):
                if event.type == "agent_end":
                    statuses.append(event.payload["status"])
            if number + 1 == WARM_RUNS:
                warm = Usage(client.pid)
        assert (await client.call("get_state"))["runs"] == []
        last = Usage(client.pid)
    assert warm is not None
    assert statuses.count("failed") == RUNS // len(KINDS)
    assert statuses.count("completed") == RUNS - RUNS // len(KINDS)
    assert last.descriptors <= warm.descriptors
    # Worker threads of the loop come and go; there are never more than it takes for one run.
    assert last.threads <= max(warm.threads, 8)
    assert last.resident_pages <= SHARE * warm.resident_pages


async def test_runs_leave_no_task_behind(home: Home) -> None:
    """Counted in the daemon's own loop, which is this one."""
    async with open_peer("memory", home, Setup(script=script(50), config={"trace": {"fsync": "off"}})) as peer:
        await peer.run("go")
        before = len(asyncio.all_tasks())
        for _ in range(45):
            await peer.run("go")
        await peer.ok("ping")
        assert len(asyncio.all_tasks()) <= before
