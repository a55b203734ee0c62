"""A run whose daemon was killed: read up to the cut, closed by the next daemon, served by it, and replayed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import msgspec
import pytest

from nous.client import Client, DaemonGoneError
from nous.replay.daemon_mode import replay_in_daemon
from nous.replay.describe import failure_text
from nous.replay.engine_mode import replay_in_engine
from tests.support.daemon import spawned
from tests.support.home import Home, Setup

pytestmark = pytest.mark.anyio

SCRIPT: Final = (
    [
        {"thinking": "hm"},
        {"text_repeat": {"text": "word ", "count": 400, "chunk": 8}},
        {"tool_call": {"name": "bash", "arguments": {"command": "for n in 1 2 3 4 5; do echo $n; done"}}},
        {"tool_call": {"name": "ls", "arguments": {}}},
    ],
    [{"text_repeat": {"text": "more ", "count": 400, "chunk": 8}}],
)
EVENTS: Final = 820
"""About as many events the whole run has."""

FEATURES: Final = ["thinking", "tool_arguments"]


async def run_until_killed(home: Home, count: int) -> tuple[str, list[bytes]]:
    """Start a run, kill the daemon once ``count`` events were seen; return the run's id and what was seen."""
    seen: list[bytes] = []
    async with spawned(home, Setup(script=SCRIPT)) as client:
        await client.call("hello", features=FEATURES, prompt_wait=False)
        run_id: str = (await client.call("prompt", text="Go on."))["run_id"]
        stream = client.events(run_id)
        while len(seen) < count and (event := await anext(stream, None)) is not None:
            seen.append(event.line)
        client.kill()
        try:
            async for event in stream:
                seen.append(event.line)
        except DaemonGoneError:
            pass
    return run_id, seen


async def closed_run(client: Client, run_id: str) -> dict[str, Any]:
    """Return the run's line in the list once its trace was closed."""
    while True:
        runs = (await client.call("list_runs"))["runs"]
        [found] = [run for run in runs if run["run_id"] == run_id]
        if "ended_at" in found:
            return dict(found)


async def served_events(client: Client, run_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    place: dict[str, Any] = {}
    while True:
        page = await client.call("get_events", run_id=run_id, features=FEATURES, **place)
        events += page["events"]
        if page["done"]:
            return events
        place = {"after_seq": page["next_after_seq"], "after_k": page.get("next_after_k", 0)}


@pytest.mark.parametrize("seed", range(6))
async def test_a_killed_run_replays_up_to_the_cut(tmp_path: Path, seed: int) -> None:
    home = Home(tmp_path)
    run_id, seen = await run_until_killed(home, random.Random(seed).randrange(1, EVENTS))
    async with spawned(home, Setup(script=SCRIPT)) as client:
        run = await closed_run(client, run_id)
        ids = [event["id"] for event in await served_events(client, run_id)]
    path = home.state / "traces" / f"{run_id}.ndjson"
    lines = [line for line in path.read_bytes().split(b"\n") if line.startswith(b'{"v"')]
    # Nothing that was seen is lost, nothing was invented.
    assert lines[: len(seen)] == seen
    assert ids == [msgspec.json.decode(line)["id"] for line in lines]
    for replay in (replay_in_engine, replay_in_daemon):
        report = await anyio.to_thread.run_sync(replay, path)
        assert report.verdict == "identical", failure_text(report)
        assert report.status == run["status"]
    assert run["status"] in ("interrupted", "completed")
