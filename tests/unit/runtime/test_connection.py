"""What only a bug can cause, made by putting something broken in place: the connection and the daemon go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from nous.ports.model import ModelItem, ModelRequest, TextDelta
from nous.ports.tool import ToolContext, ToolResult
from nous.providers.mock import MockProvider
from nous.providers.settings import ProviderSettings
from nous.runtime.daemon import Daemon
from nous.tools.ls import LsTool
from nous.transport.memory import memory_pair
from tests.support.harness import Peer, make_server
from tests.support.home import Home, Setup, bounded
from tests.support.lines import of_type, types
from tests.support.wires import MemoryWire

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(tmp_path: Path, setup: Setup | None = None) -> AsyncIterator[tuple[Peer, Daemon]]:
    """Give a peer of a daemon in this process, and the daemon itself to break."""
    mine, theirs = memory_pair()
    with bounded(), make_server(Home(tmp_path), setup or Setup(), theirs) as (daemon, server):
        peer = Peer(MemoryWire(mine))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve)
            tasks.start_soon(peer.pump)
            yield peer, daemon
            daemon.stop.request("signal", abort=True)
            await daemon.wait_idle()
            await theirs.aclose()


class BrokenProvider(MockProvider):
    """Says half a word and then does what no provider may."""

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[list[ModelItem]]]:
        async def items() -> AsyncIterator[list[ModelItem]]:
            yield [TextDelta("Half")]
            raise ZeroDivisionError("secret detail")

        yield items()


class BrokenTool(LsTool):
    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        raise ZeroDivisionError("secret detail")


@pytest.mark.behaviour("P8.24")
async def test_a_provider_that_crashes_fails_its_run(tmp_path: Path) -> None:
    async with opened(tmp_path) as (peer, daemon):
        whole, daemon.provider = daemon.provider, BrokenProvider(ProviderSettings(model="m"))
        run = await peer.run("hello")
        assert types(run)[-4:] == ["message_end", "error", "turn_end", "agent_end"]
        error = of_type(run, "error")[0].payload
        assert (error["code"], error["cause"]) == ("internal_error", "ZeroDivisionError")
        daemon.provider = whole
        assert (await peer.run("again"))[-1].payload["status"] == "completed"


@pytest.mark.behaviour("P8.24")
async def test_a_command_that_crashes_is_answered(tmp_path: Path) -> None:
    async with opened(tmp_path) as (peer, daemon):
        whole, daemon.sessions = daemon.sessions, None  # type: ignore[assignment]
        for _ in range(2):
            answer = await peer.command("new_session", {}, "same id")
            assert (answer.code, answer.data["error"]["category"]) == ("internal_error", "internal_failure")
            assert answer.cause == "AttributeError"
        daemon.sessions = whole
        answer = await peer.command("new_session", {}, "same id")
        assert (answer.code, "duplicate" in answer.payload) == ("", False)


async def test_a_tool_that_crashes_is_a_result_the_model_can_read(tmp_path: Path) -> None:
    script = [[{"tool_call": {"name": "ls", "id": "c1"}}], [{"text": "Oh."}]]
    async with opened(tmp_path, Setup(script=script)) as (peer, daemon):
        daemon.toolbox.tools["ls"] = BrokenTool()
        run = await peer.run("hello")
        [end] = of_type(run, "tool_execution_end")
        assert (end.payload["result"], end.payload["is_error"]) == ("The tool crashed (ZeroDivisionError).", True)
        assert [w.payload["code"] for w in of_type(run, "warning")] == ["tool_execution_error"]
        assert run[-1].payload["status"] == "completed"
        assert not any(b"secret detail" in line.raw for line in peer.lines)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


async def held() -> tuple[int, int]:
    """Return how many descriptors and tasks this process has, once what just ended has gone."""
    for _ in range(20):
        await checkpoint()
    return open_descriptors(), len(asyncio.all_tasks())


async def test_runs_leave_nothing_behind(tmp_path: Path) -> None:
    async with opened(
        tmp_path, Setup(script=[[{"tool_call": {"name": "bash", "arguments": {"command": "echo x"}}}]])
    ) as (
        peer,
        daemon,
    ):
        await peer.run("with a tool")
        for _ in range(3):
            await peer.run("warm up")
        before = await held()
        for number in range(30):
            await peer.run(f"{number}")
            assert (await peer.command("prompt", {"text": "x", "provider": "nobody"})).code == "invalid_payload"
        assert await held() == before
        assert (daemon.runs, daemon.order.busy) == ({}, False)
