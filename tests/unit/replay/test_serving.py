"""What a replaying daemon is built from: a recording taken apart, and sources that answer from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from nous.cli.serve import make_recorded_world
from nous.client import Client
from nous.config.settings import ProviderSection, Settings, TraceSettings
from nous.engine.effects import AskPolicy
from nous.engine.inputs import (
    ToolProgressed,
)
from nous.errors import NousError
from nous.ports.model import ModelRequest, TextDelta
from nous.ports.tool import ToolContext, ToolResult
from nous.replay.engine_mode import replay_in_engine
from nous.replay.recording import NotATraceError, read_header
from nous.replay.replayed_run import Paced
from nous.replay.serving import (
    Drive,
    ReplayProvider,
    ReplaySeams,
    ReplayTool,
    Speed,
    find_recordings,
)
from nous.runtime.daemon import Daemon
from nous.system.clock import SystemClock
from nous.system.ids import RandomIds, new_epoch
from nous.testing.memory import serve_in_memory
from tests.support import recordings
from tests.support.recordings import FIXTURES, fixture

pytestmark = pytest.mark.anyio

LIMIT = 1 << 25


# -- the sources


class World:
    """The replay provider and a replay tool of one recording, and what the tool says."""

    def __init__(self, path: Path, *, speed: Speed = "full", drive: Drive = "client", traces: Path) -> None:
        clock, ids = SystemClock(), RandomIds()
        self.seams = ReplaySeams([path], drive=drive, speed=speed, clock=clock, ids=ids, traces=traces)
        self.run_id = self.seams.run_id()
        self.provider = ReplayProvider(self.seams, read_header(path))
        self.said: list[str] = []

    async def model(self, call: int) -> list[Any]:
        async with self.provider.stream(self.request(call)) as batches:
            return [item async for batch in batches for item in batch]

    def request(self, call: int) -> ModelRequest:
        return ModelRequest(run_id=self.run_id, session_id="", call=call, system="", messages=[], tools=[])

    async def tool(self, tool_call_id: str) -> ToolResult:
        async def progress(text: str) -> None:
            await anyio.lowlevel.checkpoint()
            self.said.append(text)

        here = Path()
        context = ToolContext(
            run_id=self.run_id,
            tool_call_id=tool_call_id,
            workdir=here,
            state_dir=here,
            outputs_root=here,
            outputs_dir=here,
            allow_outside_workdir=False,
            takes_images=False,
            progress=progress,
        )
        return await ReplayTool("bash", self.seams).run({}, context)


async def test_the_provider_yields_what_was_recorded_call_by_call(tmp_path: Path) -> None:
    world = World(fixture("two-tools"), traces=tmp_path)
    first, second = await world.model(1), await world.model(2)
    assert isinstance(first[0], TextDelta)
    assert "".join(item.text for item in second if isinstance(item, TextDelta)) == "All done."
    with pytest.raises(NousError, match="the recording has no model call 3"):
        await world.model(3)


async def test_the_provider_fails_as_it_failed(tmp_path: Path) -> None:
    with pytest.raises(NousError) as caught:
        await World(fixture("error-before-stream"), traces=tmp_path).model(1)
    assert (caught.value.code, caught.value.cause) == ("provider_auth", "the key has expired")


async def test_a_call_that_was_stopped_hangs_where_it_was_stopped(tmp_path: Path) -> None:
    world = World(fixture("abort-in-model"), traces=tmp_path)
    said: list[str] = []
    ended = False

    async def listen() -> None:
        nonlocal ended
        async with world.provider.stream(world.request(1)) as batches:
            async for batch in batches:
                said.extend(item.text for item in batch if isinstance(item, TextDelta))
        ended = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert said == ["Well, ", "let me begin"]
    assert not ended


async def test_a_tool_says_what_it_said(tmp_path: Path) -> None:
    world = World(fixture("two-tools"), traces=tmp_path)
    results = [await world.tool(name) for name in world.seams.runs[world.run_id].tools]
    assert [result.outcome for result in results] == ["ok", "ok"]
    assert "bread" in results[0].text
    assert (await world.tool("unheard of")).text == "The recording has no such tool call."


async def test_a_tool_that_is_stopped_still_says_what_it_said_while_it_stopped(tmp_path: Path) -> None:
    world = World(fixture("abort-in-tool"), speed="recorded", traces=tmp_path)
    run = world.seams.runs[world.run_id]
    [name] = run.tools
    run.tools[name] = [Paced(ToolProgressed(name, "before"), 0), Paced(ToolProgressed(name, "last words"), 3600)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.tool, name)
        await anyio.wait_all_tasks_blocked()
        assert world.said == ["before"]
        tasks.cancel_scope.cancel()
    assert world.said == ["before", "last words"]


def test_a_policy_answers_what_it_answered(tmp_path: Path) -> None:
    world = World(fixture("blocked-tool"), traces=tmp_path)
    [asked] = world.seams.runs[world.run_id].policy
    assert world.seams.allows(AskPolicy(asked, "bash", {})) == (False, "the policy denies the tool bash")
    assert world.seams.allows(AskPolicy("another", "bash", {}))[0] is False


def test_a_recording_is_served_under_its_own_id_as_long_as_that_is_free(tmp_path: Path) -> None:
    path = fixture("plain-text")
    recorded = read_header(path).run_id
    world = World(path, traces=tmp_path)
    assert world.run_id == recorded
    (tmp_path / f"{recorded}.ndjson").touch()
    assert world.seams.run_id() != recorded


def test_recordings_are_found_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.trace.ndjson", "a.trace.ndjson", "c.ndjson"):
        (tmp_path / name).write_bytes(fixture("plain-text").read_bytes())
    assert [path.name for path in find_recordings(tmp_path)] == ["a.trace.ndjson", "b.trace.ndjson"]
    assert find_recordings(tmp_path / "c.ndjson") == [tmp_path / "c.ndjson"]
    (tmp_path / "a.trace.ndjson").write_bytes(b"")
    with pytest.raises(NotATraceError):
        find_recordings(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(NousError, match="holds no"):
        find_recordings(empty)


# -- a daemon that serves recordings to whoever sends a prompt


@asynccontextmanager
async def serving(path: Path, state: Path, speed: Speed = "full") -> AsyncIterator[Client]:
    for name in ("sessions", "traces", "outputs"):
        (state / name).mkdir()
    given = ProviderSection(name="replay", replay_from=str(path), replay_speed=speed)
    world = make_recorded_world(given, state / "traces")
    daemon = Daemon(
        settings=Settings(trace=TraceSettings(fsync="off"), provider=given),
        state_root=state,
        workdir=state,
        provider=world.provider,
        tools=world.tools,
        clock=SystemClock(),
        ids=world.ids,
        seams=world.seams,
        epoch=new_epoch(),
        version="0",
    )
    with anyio.fail_after(30):
        async with serve_in_memory(daemon) as client:
            await client.call("hello", features=["thinking", "tool_arguments"], prompt_wait=False)
            yield client


async def run(client: Client, text: str) -> list[bytes]:
    run_id = (await client.call("prompt", text=text))["run_id"]
    return [event.line async for event in client.events(run_id)]


def normalised(lines: list[bytes], *ids: str) -> list[Any]:
    """Return events without what is the client's and the session's own."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(inner) for key, inner in value.items() if key not in ("command_id", "session_id")}
        return [walk(inner) for inner in value] if isinstance(value, list) else value

    out = b"\n".join(lines)
    for name in ids:
        out = out.replace(name.encode(), b"ID")
    return [walk(msgspec.json.decode(line)) for line in out.split(b"\n")]


FROM_THE_ROOT = [path for path in FIXTURES if not read_header(path).context.entries]


@pytest.mark.parametrize("path", FROM_THE_ROOT, ids=lambda path: path.name)
async def test_any_prompt_is_answered_with_the_recorded_run(tmp_path: Path, path: Path) -> None:
    recorded = [line for line in recordings.read_lines(path) if line.startswith(b'{"v"')]
    run_id = read_header(path).run_id
    async with serving(path, tmp_path) as client:
        first = await run(client, "Anything.")
        again = await run(client, "Once more.")
    assert normalised(first, run_id) == normalised(recorded, run_id)
    # The second time in another run, which begins behind the first.
    begin = msgspec.json.decode(again[0])["payload"]
    assert begin["run_id"] != run_id
    assert begin["leaf_id"] == msgspec.json.decode(first[-1])["payload"]["leaf_id"]
    assert [event["type"] for event in normalised(again)] == [event["type"] for event in normalised(recorded)]


async def test_what_was_served_is_a_recording_of_its_own(tmp_path: Path) -> None:
    async with serving(fixture("changed-modes"), tmp_path) as client:
        await run(client, "Anything.")
        await run(client, "Once more.")
    for path in (tmp_path / "traces").iterdir():
        assert replay_in_engine(path).verdict == "identical"


async def test_a_directory_is_served_in_turn(tmp_path: Path) -> None:
    directory = tmp_path / "runs"
    directory.mkdir()
    for name in ("plain-text", "error-before-stream"):
        (directory / f"{name}.trace.ndjson").write_bytes(fixture(name).read_bytes())
    (tmp_path / "state").mkdir()
    async with serving(directory, tmp_path / "state") as client:
        ends = [msgspec.json.decode((await run(client, "x"))[-1])["payload"]["status"] for _ in range(3)]
    assert ends == ["failed", "completed", "failed"]


@pytest.mark.parametrize("name", ["abort-in-tool", "abort-in-model", "steer-between-tools"])
async def test_at_recorded_speed_a_run_comes_to_its_end_too(tmp_path: Path, name: str) -> None:
    async with serving(fixture(name), tmp_path, "recorded") as client:
        last = msgspec.json.decode((await run(client, "x"))[-1])
    assert last["type"] == "agent_end"


async def test_a_steer_that_was_not_recorded_is_refused(tmp_path: Path) -> None:
    path = fixture("abort-in-tool")
    async with serving(path, tmp_path, "recorded") as client:
        pending = client.start("prompt", {"text": "x"})
        steer = client.start("steer", {"text": "not in there"})
        assert (await pending.answer()).ok
        error = (await steer.answer()).error
    assert error is not None
    assert error.code == "command_rejected"
