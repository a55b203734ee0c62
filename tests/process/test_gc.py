"""``nous gc`` as a shell sees it, beside a daemon that works."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.support.daemon import run_nous
from tests.support.harness import open_process
from tests.support.home import Home, Setup

pytestmark = pytest.mark.anyio

HANGS = [{"text": "Hello"}, {"hang": True}]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def make_old(home: Home) -> None:
    """Make everything there is a month old."""
    then = time.time() - 30 * 24 * 3600
    for place in ("sessions", "traces", "outputs"):
        for path in (home.state / place).rglob("*"):
            os.utime(path, (then, then))


async def test_what_is_old_goes_and_a_run_that_goes_on_stays(home: Home) -> None:
    config = home.root / "keep.yaml"
    config.write_text("retention: {max_session_days: 7, max_trace_days: 7, max_output_days: 7}\n", encoding="utf-8")
    arguments = ("gc", "--state-dir", home.state, "--config", config, "--json")
    async with open_process(home, Setup(script=[[{"text": "Done."}], HANGS])) as (peer, spawned):
        ended = (await peer.run("one"))[0]
        await peer.ok("new_session")
        running = await peer.start("two")
        await peer.events_until("message_update", run_id=running)
        make_old(home)
        planned = json.loads(run_nous(home, *arguments, "--dry-run").stdout)
        assert (planned["ok"], planned["dry_run"]) == (True, True)
        assert (home.state / "traces" / f"{ended.run_id}.ndjson").exists()
        answer = json.loads(run_nous(home, *arguments).stdout)
        assert answer["removed"] == planned["removed"]
        assert {(unit["kind"], unit["name"]) for unit in answer["removed"]} == {
            ("trace", ended.run_id),
            ("session", ended.payload["session_id"]),
        }
        assert answer["freed_bytes"] == sum(unit["size_bytes"] for unit in answer["removed"]) > 0
        assert answer["kept"] == {"session": 1, "trace": 1, "output": 0}
        # The daemon goes on as if nothing had happened, and says of what is gone that it is gone.
        await peer.ok("abort", {"run_id": running})
        assert (await peer.run_events(running))[-1].payload["status"] == "aborted"
        asked = {"session_id": ended.payload["session_id"]}
        assert (await peer.command("get_messages", asked)).code == "session_not_found"
        assert (await peer.command("get_events", {"run_id": ended.run_id})).code == "run_not_found"
        spawned.process.kill()
        await spawned.process.wait()
    answer = json.loads(run_nous(home, *arguments).stdout)
    assert len(answer["dead_daemons"]) == 1
    assert list((home.state / "daemons").iterdir()) == []


async def test_the_active_session_of_a_living_daemon_stays(home: Home) -> None:
    config = home.root / "keep.yaml"
    config.write_text("retention: {max_session_days: 7, max_trace_days: 7}\n", encoding="utf-8")
    arguments = ("gc", "--state-dir", home.state, "--config", config, "--json")
    async with open_process(home, Setup(script=[[{"text": "Done."}]])) as (peer, _):
        first = (await peer.run("one"))[0].payload["session_id"]
        make_old(home)
        removed = json.loads(run_nous(home, *arguments).stdout)["removed"]
        assert [unit["kind"] for unit in removed] == ["trace"]
        assert (await peer.ok("get_messages", {"session_id": first}))["messages"]
        await peer.ok("new_session")
        make_old(home)
        removed = json.loads(run_nous(home, *arguments).stdout)["removed"]
        assert [unit["name"] for unit in removed] == [first]


async def test_a_session_is_not_pruned_under_a_run_of_another_process(home: Home) -> None:
    script = [[{"text": "One."}], [{"text": "Two"}, {"hang": True}], [{"text": "Three."}]]
    async with open_process(home, Setup(script=script)) as (peer, _):
        session_id = (await peer.run("one"))[0].payload["session_id"]
        running = await peer.start("two")
        await peer.events_until("message_update", run_id=running)
        prune = ("session", "compact", session_id, "--state-dir", home.state, "--keep-tokens", "0", "--prune", "--json")
        refused = run_nous(home, *prune)
        answer = json.loads(refused.stdout)
        assert (refused.returncode, answer["error_code"]) == (6, "command_rejected")
        assert b"run_in_progress" in refused.stdout
        await peer.ok("abort", {"run_id": running})
        assert (await peer.run_events(running))[-1].payload["status"] == "aborted"
        assert json.loads(run_nous(home, *prune).stdout)["pruned"]["removed_messages"] > 0
        assert (await peer.run("three"))[-1].payload["status"] == "completed"


def test_without_rules_nothing_goes_and_an_absent_state_directory_is_an_empty_one(home: Home) -> None:
    done = run_nous(home, "gc", "--state-dir", home.root / "absent")
    assert (done.returncode, done.stdout) == (0, b"removed: 0 of 0, 0 bytes; kept: 0 sessions, 0 traces, 0 outputs\n")
    assert not (home.root / "absent").exists()
