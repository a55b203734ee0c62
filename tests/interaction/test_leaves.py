"""Leaves: a prompt where it was asked to stand, and the tree that grows from that, over every transport."""

from __future__ import annotations

import pytest

from tests.support.harness import OpenPeer, Peer
from tests.support.home import Home, Setup
from tests.support.lines import of_type

pytestmark = pytest.mark.anyio

HANGS = [{"text": "Hello"}, {"hang": True}]


async def user_texts(peer: Peer, **payload: object) -> list[str]:
    messages = (await peer.ok("get_messages", payload))["messages"]
    return [m["text"] for m in messages if m["role"] == "user"]


@pytest.mark.behaviour("P4.19", "P4.22")
async def test_a_prompt_on_an_older_leaf_starts_a_branch(nous: OpenPeer) -> None:
    async with nous() as peer:
        first = await peer.ok("prompt", {"text": "one"})
        second = await peer.ok("prompt", {"text": "two"})
        accepted = await peer.ok("prompt", {"text": "other two", "wait": False, "leaf_id": first["leaf_id"]})
        assert (accepted["session_id"], accepted["leaf_id"]) == (first["session_id"], first["leaf_id"])
        run = await peer.run_events(accepted["run_id"])
        assert run[0].payload["leaf_id"] == first["leaf_id"]
        assert await user_texts(peer) == ["one", "other two"]
        assert await user_texts(peer, leaf_id=second["leaf_id"]) == ["one", "two"]
        nodes = {node["id"]: node for node in (await peer.ok("get_tree"))["nodes"]}
        assert len(nodes) == 6
        question = of_type(run, "message_end")[0].payload["message_id"]
        assert nodes[question]["parent_id"] == first["leaf_id"]


@pytest.mark.behaviour("P4.19")
async def test_a_leaf_of_nowhere_is_refused_before_anything_is_written(nous: OpenPeer, home: Home) -> None:
    async with nous() as peer:
        assert (await peer.command("prompt", {"text": "x", "leaf_id": "nowhere"})).code == "command_rejected"
        assert home.session_lines() == []
        elsewhere = (await peer.ok("prompt", {"text": "one"}))["leaf_id"]
        await peer.ok("new_session")
        before = home.session_lines()
        for leaf_id in ("nowhere", elsewhere):
            for wait in (True, False):
                answer = await peer.command("prompt", {"text": "x", "leaf_id": leaf_id, "wait": wait})
                assert answer.code == "command_rejected"
                assert "leaf_id" in answer.cause
            assert (await peer.command("set_leaf", {"leaf_id": leaf_id})).code == "command_rejected"
        assert home.session_lines() == before
        assert (await peer.ok("list_runs"))["runs"][0]["events"] > 0
        assert len((await peer.ok("list_runs"))["runs"]) == 1


@pytest.mark.behaviour("P4.12")
async def test_set_leaf_moves_the_active_leaf_and_lasts(nous: OpenPeer) -> None:
    async with nous() as peer:
        first = await peer.ok("prompt", {"text": "one"})
        second = await peer.ok("prompt", {"text": "two"})
        answer = await peer.ok("set_leaf", {"leaf_id": first["leaf_id"]})
        assert answer == {"session_id": first["session_id"], "leaf_id": first["leaf_id"]}
        assert await user_texts(peer) == ["one"]
        tree = await peer.ok("get_tree")
        assert tree["leaf_id"] == first["leaf_id"]
        assert len(tree["nodes"]) == 4
        run = await peer.run("three")
        assert run[0].payload["leaf_id"] == first["leaf_id"]
        await peer.ok("set_leaf", {"leaf_id": second["leaf_id"], "session_id": first["session_id"]})
    async with nous() as peer:
        await peer.ok("switch_session", {"session_id": first["session_id"]})
        assert await user_texts(peer) == ["one", "two"]


@pytest.mark.behaviour("P4.12", "P4.32")
async def test_the_leaf_of_a_busy_session_stays(nous: OpenPeer) -> None:
    async with nous(Setup(script=[[{"text": "First."}], HANGS])) as peer:
        first = await peer.ok("prompt", {"text": "one"})
        run_id = await peer.start("two")
        await peer.events_until("message_update", run_id=run_id)
        assert await peer.refused("set_leaf", {"leaf_id": first["leaf_id"]}) == "command_rejected: run_in_progress"
        refused = await peer.refused("prompt", {"text": "x", "leaf_id": first["leaf_id"]})
        assert refused == "command_rejected: run_in_progress"


async def test_an_empty_leaf_is_refused(nous: OpenPeer) -> None:
    async with nous() as peer:
        await peer.run("hello")
        assert await peer.refused("set_leaf", {"leaf_id": ""}) == "invalid_payload: leaf_id: empty"
