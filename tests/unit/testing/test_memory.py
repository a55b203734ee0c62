"""A daemon in this process: the real one, behind the usual client."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest

from nous.client import Client, CommandError, Event
from nous.config.settings import Settings
from nous.replay.engine_mode import replay_in_engine
from nous.testing import memory_client, scripted_provider
from nous.tools.registry import builtin_tools

pytestmark = pytest.mark.anyio


async def run(client: Client, text: str) -> list[Event]:
    run_id = (await client.call("prompt", text=text, wait=False))["run_id"]
    with anyio.fail_after(30):
        return [event async for event in client.events(run_id)]


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def text_of(events: list[Event]) -> str:
    return "".join(event.payload["delta"] for event in events if event.type == "message_update")


async def test_without_a_provider_it_echoes() -> None:
    async with memory_client() as client:
        assert client.ready.server == "nous"
        assert text_of(await run(client, "hello")) == "mock response: hello"


async def test_a_script_says_what_the_model_says() -> None:
    provider = scripted_provider([{"text": ["one ", "two"]}], [{"error": {"status": 401}}], model="scripted")
    async with memory_client(provider) as client:
        assert text_of(await run(client, "first")) == "one two"
        failed = await run(client, "second")
        assert [event.payload["code"] for event in failed if event.type == "error"] == ["provider_auth"]
        assert text_of(await run(client, "third")) == "mock response: third"
        assert client.ready.model == "scripted"


async def test_a_script_that_cannot_be_understood_is_refused() -> None:
    with pytest.raises(Exception, match="line 2: Object contains unknown field `txt`"):
        scripted_provider([{"text": "one"}], [{"txt": "two"}])


async def test_it_has_the_tools_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("bread\n", encoding="utf-8")
    call = {"tool_call": {"name": "read", "arguments": {"path": "notes.txt"}}}
    async with memory_client(scripted_provider([call]), tools=builtin_tools(), workdir=tmp_path) as client:
        [ended] = [event for event in await run(client, "read") if event.type == "tool_execution_end"]
        assert "bread" in ended.payload["result"]
    async with memory_client(scripted_provider([call]), workdir=tmp_path) as client:
        warnings = [event.payload["code"] for event in await run(client, "read") if event.type == "warning"]
        assert warnings == ["tool_not_found"]


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
async def test_it_keeps_no_descriptor_open() -> None:
    counts: list[int] = []
    for _ in range(3):
        async with memory_client(settings=Settings()) as client:
            await run(client, "hello")
        counts.append(count_descriptors())
    assert counts[1:] == counts[:1] * 2


async def test_what_it_did_is_on_disk(tmp_path: Path) -> None:
    async with memory_client(state_dir=tmp_path) as client:
        await run(client, "hello")
    [trace] = (tmp_path / "traces").iterdir()
    assert replay_in_engine(trace).verdict == "identical"
    async with memory_client(state_dir=tmp_path) as client:
        sessions = [path.stem for path in (tmp_path / "sessions").glob("*.ndjson")]
        messages = await client.call("get_messages", session_id=sessions[0])
        assert [message["text"] for message in messages["messages"]] == ["hello", "mock response: hello"]


async def test_leaving_ends_what_still_runs(tmp_path: Path) -> None:
    provider = scripted_provider([{"text": "Well"}, {"hang": True}])
    async with memory_client(provider, state_dir=tmp_path) as client:
        await client.call("prompt", text="go on", wait=False)
        async for event in client.events():
            if event.type == "message_update":
                break
    [trace] = (tmp_path / "traces").iterdir()
    report = replay_in_engine(trace)
    assert (report.verdict, report.status) == ("identical", "aborted")


async def test_what_goes_wrong_in_the_block_leaves_it_as_it_is() -> None:
    with pytest.raises(CommandError) as caught:
        async with memory_client() as client:
            await client.call("switch_session", session_id="nowhere")
    assert caught.value.code == "session_not_found"


async def test_several_at_once_keep_apart() -> None:
    async with memory_client() as one, memory_client() as other:
        events = await run(one, "a"), await run(other, "b")
        assert [text_of(found) for found in events] == ["mock response: a", "mock response: b"]
        assert one.ready.epoch != other.ready.epoch
