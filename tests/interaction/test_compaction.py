"""Compaction as a client sees it: by command, past a threshold, and after a context that did not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nous.protocol.entries import SUMMARY_HEAD
from nous.replay.engine_mode import replay_in_engine
from tests.support.harness import OpenPeer
from tests.support.home import Home, Setup
from tests.support.lines import Line, of_type

pytestmark = pytest.mark.anyio

SMALL: dict[str, Any] = {"engine": {"compact_keep_tokens": 10}}
LONG = "A long answer. " * 20


def texts_of(answer: dict[str, Any]) -> list[str]:
    return [message["text"] for message in answer["messages"]]


def codes(events: list[Line]) -> list[str]:
    return [event.payload.get("code", "") for event in of_type(events, "status")]


def all_replay(home: Home) -> bool:
    traces = sorted(Path(home.state / "traces").glob("*.ndjson"))
    return bool(traces) and all(replay_in_engine(path).verdict == "identical" for path in traces)


@pytest.mark.behaviour("P4.14", "P5.18")
async def test_a_session_is_compacted_by_command(nous: OpenPeer, home: Home) -> None:
    async with nous(Setup(script=[[{"text": LONG}], [{"text": "short"}]], config=SMALL)) as peer:
        await peer.run("first question")
        await peer.run("second question")
        before = await peer.ok("get_messages")
        answer = await peer.ok("compact_session", {"instruction": "the names"})
        assert answer["trigger"] == "manual"
        assert answer["tokens_before"] > 50
        assert "first question" in answer["summary"]
        assert "the names" in answer["summary"]
        kept = [m["id"] for m in before["messages"]]
        assert answer["first_kept_entry_id"] in kept
        # What people see stays; what the model reads begins with the summary.
        assert await peer.ok("get_messages") == before
        [run] = [r for r in (await peer.ok("list_runs"))["runs"] if r["events"] == 4]
        events = (await peer.ok("get_events", {"run_id": run["run_id"]}))["events"]
        assert [e["type"] for e in events] == ["agent_start", "status", "status", "agent_end"]
        assert [e["payload"].get("code") for e in events if e["type"] == "status"] == [
            "compaction_start",
            "compaction_end",
        ]
        await peer.run("third question")
    assert SUMMARY_HEAD[:20] not in "".join(texts_of(before))
    assert all_replay(home)


async def test_the_model_writes_the_summary_where_it_can(nous: OpenPeer, home: Home) -> None:
    summary = {"match": {"purpose": "compaction"}, "steps": [{"text": ["They talked ", "about names."]}]}
    async with nous(Setup(script=[[{"text": LONG}], summary], config=SMALL)) as peer:
        await peer.run("first question")
        await peer.run("second question")
        assert (await peer.ok("compact_session"))["summary"] == "They talked about names."
    assert all_replay(home)


async def test_there_may_be_nothing_to_compact(nous: OpenPeer, home: Home) -> None:
    async with nous() as peer:
        assert await peer.refused("compact_session") == "command_rejected: nothing_to_compact"
        await peer.run("hello")
        refused = await peer.command("compact_session")
        assert refused.code == "command_rejected"
        assert len((await peer.ok("list_runs"))["runs"]) == 1


@pytest.mark.behaviour("P4.43")
async def test_a_run_and_a_compaction_exclude_each_other(nous: OpenPeer) -> None:
    hang = {"match": {"purpose": "compaction"}, "steps": [{"hang": True}]}
    async with nous(Setup(script=[[{"text": LONG}], [{"text": "b"}], hang, [{"hang": True}]], config=SMALL)) as peer:
        await peer.run("first question")
        await peer.run("second question")
        compaction = await peer.ask("compact_session")
        await peer.events_until("status", code="compaction_start")
        assert (await peer.command("prompt", {"text": "x", "wait": False})).cause == "compaction_in_progress"
        assert (await peer.command("steer", {"text": "x"})).cause == "no_active_run"
        await peer.ok("abort")
        assert (await peer.answer(compaction)).code == "command_rejected"
        await peer.start("third question")
        assert (await peer.command("compact_session")).cause == "run_in_progress"
        await peer.ok("abort")


async def test_a_turn_past_the_threshold_is_followed_by_a_compaction(nous: OpenPeer, home: Home) -> None:
    config = {"engine": {"compact_keep_tokens": 10, "compact_at_tokens": 100}}
    async with nous(Setup(script=[[{"text": LONG}], [{"text": "b"}]], config=config)) as peer:
        first = await peer.run("first question")
        assert codes(first) == []
        second = await peer.run("second question")
        assert codes(second) == ["compaction_start", "compaction_end"]
        assert second[-1].payload["status"] == "completed"
    assert all_replay(home)


async def test_a_context_that_does_not_fit_is_compacted_once(nous: OpenPeer, home: Home) -> None:
    overflow = [{"error": {"code": "context_overflow"}}]
    script = [[{"text": LONG}], overflow, [{"text": "it fits now"}], overflow, overflow]
    async with nous(Setup(script=script, config=SMALL)) as peer:
        await peer.run("first question")
        second = await peer.run("second question")
        assert codes(second) == ["compaction_start", "compaction_end"]
        assert of_type(second, "message_end")[-1].payload["text"] == "it fits now"
        third = await peer.run("third question")
        assert third[-1].payload["status"] == "failed"
        assert of_type(third, "error")[0].payload["code"] == "context_overflow"
    assert all_replay(home)
