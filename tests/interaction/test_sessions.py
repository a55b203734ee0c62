"""Sessions as a client sees them: new, switched, branched, their messages and their tree, page by page."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.harness import OpenPeer, Peer, open_peer
from tests.support.home import Home, Setup
from tests.support.lines import of_type

pytestmark = pytest.mark.anyio


async def messages(peer: Peer, **payload: object) -> list[dict[str, Any]]:
    answer = await peer.ok("get_messages", payload)
    assert "next_cursor" not in answer
    found: list[dict[str, Any]] = answer["messages"]
    return found


@pytest.mark.behaviour("P4.15")
async def test_a_new_session_is_the_active_one(nous: OpenPeer, home: Home) -> None:
    async with nous() as peer:
        first, second = await peer.ok("new_session"), await peer.ok("new_session")
        assert first == {"session_id": first["session_id"], "active": True}
        assert first["session_id"] != second["session_id"]
        assert (await peer.ok("get_state"))["session_id"] == second["session_id"]
        files = {path.stem for path in (home.state / "sessions").glob("*.ndjson")}
        assert files == {first["session_id"], second["session_id"]}


@pytest.mark.behaviour("P4.16")
async def test_switching_back(nous: OpenPeer) -> None:
    async with nous() as peer:
        first = (await peer.ok("prompt", {"text": "one"}))["session_id"]
        await peer.ok("new_session")
        await peer.ok("prompt", {"text": "two"})
        assert await peer.ok("switch_session", {"session_id": first}) == {"session_id": first, "active": True}
        assert (await peer.ok("prompt", {"text": "three"}))["session_id"] == first
        assert [m["text"] for m in await messages(peer) if m["role"] == "user"] == ["one", "three"]


@pytest.mark.behaviour("P4.16")
async def test_switching_to_what_is_not_there_changes_nothing(nous: OpenPeer) -> None:
    async with nous() as peer:
        active = (await peer.ok("new_session"))["session_id"]
        assert (await peer.command("switch_session", {"session_id": "nobody"})).code == "session_not_found"
        assert (await peer.ok("get_state"))["session_id"] == active


@pytest.mark.behaviour("P4.17")
@pytest.mark.parametrize("name", ["session_id", "parent_id"])
async def test_a_branch_goes_on_where_its_parent_was(nous: OpenPeer, name: str) -> None:
    async with nous() as peer:
        parent = (await peer.ok("prompt", {"text": "one"}))["session_id"]
        branch = await peer.ok("branch_session", {name: parent})
        assert branch == {"session_id": branch["session_id"], "active": True, "parent_id": parent}
        assert (await peer.ok("get_state"))["session_id"] == branch["session_id"] != parent
        await peer.ok("prompt", {"text": "two"})
        assert [m["text"] for m in await messages(peer) if m["role"] == "user"] == ["one", "two"]
        assert [m["text"] for m in await messages(peer, session_id=parent) if m["role"] == "user"] == ["one"]


@pytest.mark.behaviour("P4.17")
async def test_a_branch_from_a_leaf_starts_with_the_path_to_it(nous: OpenPeer) -> None:
    async with nous() as peer:
        first = await peer.ok("prompt", {"text": "one"})
        await peer.ok("prompt", {"text": "two"})
        branch = await peer.ok("branch_session", {"session_id": first["session_id"], "leaf_id": first["leaf_id"]})
        assert [m["text"] for m in await messages(peer)] == ["one", "mock response: one"]
        refused = {"session_id": first["session_id"], "leaf_id": "not-a-leaf"}
        assert (await peer.command("branch_session", refused)).code == "command_rejected"
        assert (await peer.ok("get_state"))["session_id"] == branch["session_id"]


@pytest.mark.behaviour("P4.11", "P4.20", "P4.21", "P4.22")
async def test_messages_are_the_path_to_the_leaf(nous: OpenPeer) -> None:
    script = [[{"text": "Look."}, {"tool_call": {"name": "ls", "arguments": {}, "id": "c1"}}], [{"text": "Done."}]]
    async with nous(Setup(script=script)) as peer:
        run = await peer.run("hello")
        answer = await peer.ok("get_messages")
        assert answer["session_id"] == run[0].payload["session_id"]
        assert answer["leaf_id"] == run[-1].payload["leaf_id"] == answer["messages"][-1]["id"]
        user, asking, result, final = answer["messages"]
        assert [m["role"] for m in answer["messages"]] == ["user", "assistant", "tool_result", "assistant"]
        assert "parent_id" not in user
        assert [m["parent_id"] for m in (asking, result, final)] == [user["id"], asking["id"], result["id"]]
        assert (user["text"], user["turn_kind"]) == ("hello", "prompt")
        assert {m["run_id"] for m in answer["messages"]} == {run[0].run_id}
        assert asking["blocks"] == [
            {"type": "text", "text": "Look."},
            {"type": "tool_call", "id": "c1", "name": "ls", "arguments": "{}"},
        ]
        ends = [line.payload["message_id"] for line in of_type(run, "message_end", "tool_execution_end")]
        assert ends == [user["id"], asking["id"], result["id"], final["id"]]


@pytest.mark.behaviour("P4.11")
async def test_messages_up_to_a_given_leaf(nous: OpenPeer) -> None:
    async with nous() as peer:
        first = await peer.ok("prompt", {"text": "one"})
        await peer.ok("prompt", {"text": "two"})
        assert [m["text"] for m in await messages(peer, leaf_id=first["leaf_id"])] == ["one", "mock response: one"]
        assert (await peer.command("get_messages", {"leaf_id": "nobody"})).code == "command_rejected"


@pytest.mark.behaviour("P4.11", "P4.13")
async def test_there_are_no_messages_before_there_is_a_session(nous: OpenPeer) -> None:
    async with nous() as peer:
        assert await peer.ok("get_messages") == {"session_id": "", "messages": []}
        assert await peer.ok("get_tree") == {"session_id": "", "nodes": []}
        session = (await peer.ok("new_session"))["session_id"]
        assert await peer.ok("get_messages") == {"session_id": session, "messages": []}


@pytest.mark.behaviour("P4.13")
async def test_the_tree_is_messages_with_their_parents(nous: OpenPeer) -> None:
    async with nous() as peer:
        await peer.ok("prompt", {"text": "one\n  two " + "x" * 200})
        tree = await peer.ok("get_tree")
        user, assistant = tree["nodes"]
        assert (user["role"], user["parent_id"]) == ("user", "")
        assert (assistant["role"], assistant["parent_id"]) == ("assistant", user["id"])
        assert user["snippet"].startswith("one two xxx")
        assert len(user["snippet"]) == 80
        assert tree["leaf_id"] == assistant["id"]


@pytest.mark.behaviour("P1.16")
async def test_messages_come_in_pages_that_fit_a_line(nous: OpenPeer) -> None:
    async with nous(Setup(script=[[{"text": str(number) * 300_000}] for number in range(6)])) as peer:
        for number in range(6):
            await peer.ok("prompt", {"text": f"question {number}"})
        texts: list[str] = []
        cursor, pages = None, 0
        while pages == 0 or cursor is not None:
            answer = await peer.ok("get_messages", {} if cursor is None else {"cursor": cursor})
            texts += [m["text"] for m in answer["messages"]]
            cursor, pages = answer.get("next_cursor"), pages + 1
        assert texts == [t for n in range(6) for t in (f"question {n}", str(n) * 300_000)]
        assert pages > 1
        for wrong in ("x", "-1", "1000", "\u0663", "1" * 40):
            assert (await peer.command("get_messages", {"cursor": wrong})).code == "invalid_payload"


@pytest.mark.behaviour("P1.16")
async def test_a_message_too_long_for_a_line_is_only_measured(nous: OpenPeer) -> None:
    async with nous(Setup(script=[[{"text": "y" * 1_100_000}]])) as peer:
        await peer.run("hello")
        answer = await peer.ok("get_messages")
        long = answer["messages"][1]
        assert (long["text"], long["text_bytes"], long["text_omitted"]) == ("", 1_100_000, True)


@pytest.mark.behaviour("P1.16", "P4.13")
async def test_the_tree_comes_in_pages(nous: OpenPeer) -> None:
    calls = [{"tool_call": {"name": "\U0001f600" * 60, "id": f"c{number}"}} for number in range(3000)]
    async with nous(Setup(script=[calls], config={"trace": {"fsync": "off"}})) as peer:
        await peer.run("hello")
        first = await peer.ok("get_tree")
        second = await peer.ok("get_tree", {"cursor": first["next_cursor"]})
        assert "next_cursor" not in second
        nodes = first["nodes"] + second["nodes"]
        assert len({node["id"] for node in nodes}) == len(nodes) == 3003


async def test_a_conversation_goes_on_after_a_restart(nous: OpenPeer, home: Home) -> None:
    async with nous() as peer:
        first = await peer.ok("prompt", {"text": "one"})
    async with nous() as peer:
        assert (await peer.ok("get_state"))["session_id"] == ""
        await peer.ok("switch_session", {"session_id": first["session_id"]})
        assert [m["text"] for m in await messages(peer)] == ["one", "mock response: one"]
        run = await peer.run("two")
        assert run[0].payload["leaf_id"] == first["leaf_id"]
        assert len(await messages(peer)) == 4


@pytest.mark.behaviour("P8.8")
async def test_a_damaged_session_is_refused_and_the_others_work(nous: OpenPeer, home: Home) -> None:
    async with nous() as peer:
        damaged = (await peer.ok("prompt", {"text": "one"}))["session_id"]
    path = home.state / "sessions" / f"{damaged}.ndjson"
    path.write_bytes(path.read_bytes().replace(b"one", b"two", 1))
    async with nous() as peer:
        for kind in ("switch_session", "get_messages", "get_tree", "branch_session"):
            answer = await peer.command(kind, {"session_id": damaged})
            assert answer.code == "session_corrupt"
            assert path.name in answer.cause
        assert (await peer.command("prompt", {"text": "x", "session_id": damaged})).code == "session_corrupt"
        assert (await peer.ok("prompt", {"text": "x"}))["output"] == "mock response: x"


async def test_two_daemons_may_share_a_session(nous: OpenPeer, home: Home) -> None:
    async with nous() as peer, open_peer("memory", home) as other:
        session = (await peer.ok("prompt", {"text": "one"}))["session_id"]
        run = await other.run("two", session_id=session)
        assert run[-1].payload["status"] == "completed"
        texts = [m["text"] for m in await messages(peer, session_id=session) if m["role"] == "user"]
        assert texts == ["one", "two"]
        assert (await peer.run("three"))[0].payload["leaf_id"] == run[-1].payload["leaf_id"]


@pytest.mark.behaviour("P6.2")
async def test_sessions_are_listed_in_pages_last_changed_first(nous: OpenPeer) -> None:
    async with nous() as peer:
        ids = [(await peer.ok("new_session"))["session_id"] for _ in range(5)]
        for session_id in ids:
            await peer.run(f"hello from {session_id}", session_id=session_id)
        await peer.run("again", session_id=ids[1])
        found: list[dict[str, Any]] = []
        payload: dict[str, object] = {"limit": 2}
        while True:
            answer = await peer.ok("list_sessions", payload)
            assert len(answer["sessions"]) <= 2
            found += answer["sessions"]
            if "next_cursor" not in answer:
                break
            payload["cursor"] = answer["next_cursor"]
        assert [session["session_id"] for session in found] == [ids[1], ids[4], ids[3], ids[2], ids[0]]
        assert [session["message_count"] for session in found] == [4, 2, 2, 2, 2]
        assert found[0]["snippet"] == f"hello from {ids[1]}"
        assert (await peer.command("list_sessions", {"cursor": "../x"})).code == "invalid_payload"


@pytest.mark.behaviour("P8.29")
async def test_a_torn_tail_is_kept_aside_and_told(nous: OpenPeer, home: Home) -> None:
    async with nous() as peer:
        session_id = (await peer.ok("prompt", {"text": "before"}))["session_id"]
    path = home.state / "sessions" / f"{session_id}.ndjson"
    whole = path.read_bytes()
    torn = whole.split(b"\n")[1][:40]
    path.write_bytes(whole + torn)
    async with nous() as peer:
        await peer.run("after", session_id=session_id)
        warning = (await peer.events_until("warning", code="torn_tail_recovered"))[-1].payload
    (kept,) = path.parent.glob("*.torn-*")
    assert kept.read_bytes() == torn
    assert session_id in warning["cause"]
    assert kept.name in warning["cause"]
    assert path.read_bytes().startswith(whole)
