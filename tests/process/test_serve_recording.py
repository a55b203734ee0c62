"""``nous.testing.serve_recording``: a recorded run for a front end, as if it happened now."""

from __future__ import annotations

from pathlib import Path

import anyio
import msgspec
import pytest

from nous.client import Client, Event
from nous.errors import NousError
from nous.replay.recording import read_header
from nous.testing import serve_recording
from tests.support import recordings
from tests.support.home import bounded
from tests.support.recordings import RUNS, fixture

pytestmark = pytest.mark.anyio


async def run(client: Client, **payload: object) -> list[Event]:
    run_id = (await client.call("prompt", text="Whatever.", wait=False, **payload))["run_id"]
    return [event async for event in client.events(run_id)]


async def test_the_example_of_the_manual() -> None:
    with bounded():
        async with serve_recording(fixture("two-tools")) as served:
            accepted = await served.client.call("prompt", text="Read my notes.", wait=False)
            tools = [
                event.payload["tool_name"]
                async for event in served.client.events(accepted["run_id"])
                if event.type == "tool_execution_start"
            ]
    assert tools == ["read", "bash"]


async def test_a_front_end_spawns_its_own(tmp_path: Path) -> None:
    with bounded():
        async with serve_recording(str(fixture("plain-text"))) as served:
            command = b'{"v":"1","id":"c1","type":"prompt","payload":{"text":"Hi","wait":false}}\n'
            done = await anyio.run_process(served.argv, input=command, env=served.env, cwd=tmp_path)
    lines = [msgspec.json.decode(line) for line in done.stdout.split(b"\n") if line]
    assert lines[0]["payload"]["message"] == "ready"
    assert lines[0]["payload"]["provider"] == "mock"
    assert [line["type"] for line in lines if "seq" in line][-1] == "agent_end"
    assert lines[-1]["payload"]["message"] == "bye"


async def test_the_conversation_before_it_is_there(tmp_path: Path) -> None:
    path = fixture("earlier-context")
    header = read_header(path)
    with bounded():
        async with serve_recording(path) as served:
            assert served.session_id == header.session_id
            before = await served.client.call("get_messages", session_id=served.session_id)
            events = await run(served.client, session_id=served.session_id)
    assert len(before["messages"]) == header.context.entries
    recorded = [line for line in recordings.read_lines(path) if line.startswith(b'{"v"')]
    shown = [event.line for event in events]
    assert len(shown) == len(recorded)
    assert shown[0] == recorded[0]


async def test_a_directory_is_served_in_turn() -> None:
    with bounded():
        async with serve_recording(RUNS) as served:
            assert served.session_id == ""
            statuses = [(await run(served.client))[-1].payload["status"] for _ in range(2)]
    assert statuses == ["aborted", "aborted"]  # abort-at-eof, abort-grace-over


async def test_recorded_speed_takes_its_time_and_comes_to_the_end() -> None:
    with bounded():
        async with serve_recording(fixture("steer-between-tools"), speed="recorded") as served:
            assert (await run(served.client))[-1].payload["status"] == "completed"


async def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"hello\n")
    with pytest.raises(NousError) as caught:
        async with serve_recording(path):
            pass
    assert caught.value.code == "invalid_usage"


async def test_nothing_of_the_users_is_within_its_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with bounded():
        async with serve_recording(fixture("plain-text")) as served:
            pid = served.client.pid
            assert pid is not None
            environ = await anyio.to_thread.run_sync(Path(f"/proc/{pid}/environ").read_bytes)
    assert b"sk-secret" not in environ
    assert "sk-secret" not in repr(served.env)
