"""The commands that ask and set, over every transport."""

from __future__ import annotations

import pytest

from tests.support.harness import OpenPeer
from tests.support.home import Home, Setup

pytestmark = pytest.mark.anyio

HANGS = [{"text": "Hello"}, {"hang": True}]
BUILTIN_TOOLS = ["read", "write", "edit", "bash", "grep", "find", "ls"]


@pytest.mark.behaviour("P4.1", "P2.2", "P2.6")
async def test_ping(nous: OpenPeer) -> None:
    async with nous() as peer:
        answer = await peer.command("ping", command_id="anything at all \u2028 \u00e9")
        assert (answer.type, answer.payload) == ("pong", {"message": "pong"})


@pytest.mark.behaviour("P2.1", "P2.2")
async def test_the_version_is_1_as_text_or_number_or_left_out(nous: OpenPeer) -> None:
    async with nous() as peer:
        for version in (b"", b'"v":"1",', b'"v":1,'):
            await peer.send_line(b'{%b"id":"a","type":"ping"}' % version)
            assert (await peer.answer("a")).type == "pong"
        for version in (b'"2"', b"2", b"1.0", b"true", b"null", b'"01"', b"[1]", b'"1 "'):
            await peer.send_line(b'{"v":%b,"id":"a","type":"ping"}' % version)
            answer = await peer.answer("a")
            assert (answer.code, answer.cause) == ("invalid_command", "invalid_version"), version


@pytest.mark.behaviour("P2.2", "P8.1")
async def test_a_command_without_an_id_is_answered_to_nobody(nous: OpenPeer) -> None:
    async with nous() as peer:
        for command_id in (b"", b'"id":"",', b'"id":7,', b'"id":null,', b'"id":["a"],'):
            await peer.send_line(b'{%b"type":"ping"}' % command_id)
            answer = await peer.answer("")
            assert (answer.code, answer.cause) == ("invalid_command", "missing_id"), command_id


@pytest.mark.behaviour("P2.2", "P8.1")
async def test_a_command_without_a_type_is_refused(nous: OpenPeer) -> None:
    async with nous() as peer:
        for kind in (b"", b',"type":""', b',"type":3', b',"type":null'):
            await peer.send_line(b'{"id":"a"%b}' % kind)
            answer = await peer.answer("a")
            assert (answer.code, answer.cause) == ("invalid_command", "missing_type"), kind


@pytest.mark.behaviour("P2.2", "P8.1")
async def test_an_unknown_command_is_refused(nous: OpenPeer) -> None:
    async with nous() as peer:
        assert await peer.refused("do_my_laundry") == "invalid_command: unknown_command"


@pytest.mark.behaviour("P2.3", "P2.4", "P2.5")
async def test_what_the_envelope_may_leave_out_and_may_carry(nous: OpenPeer) -> None:
    async with nous() as peer:
        await peer.send_line(b'{"id":"a","type":"get_state"}')
        assert (await peer.answer("a")).type == "state"
        await peer.send_line(b'{"id":"b","type":"ping","ts":[1],"meta":{"x":null},"future":1,"payload":{"new":true}}')
        assert (await peer.answer("b")).type == "pong"


WRONG_PAYLOADS: list[tuple[str, dict[str, object], str]] = [
    ("prompt", {}, "text"),
    ("prompt", {"text": ""}, "text"),
    ("prompt", {"text": 5}, "text"),
    ("prompt", {"text": "x", "wait": "no"}, "wait"),
    ("steer", {}, "text"),
    ("follow_up", {"run_id": "r"}, "text"),
    ("set_active_tools", {"tools": "read"}, "tools"),
    ("set_steering_mode", {"mode": "sometimes"}, "mode"),
    ("set_follow_up_mode", {}, "mode"),
    ("switch_session", {}, "session_id"),
    ("branch_session", {}, "session_id"),
    ("set_leaf", {"session_id": "s"}, "leaf_id"),
    ("extension_command", {"payload": {}}, "name"),
    ("get_messages", {"cursor": 4}, "cursor"),
]


@pytest.mark.behaviour("P2.7", "P8.2")
async def test_a_wrong_payload_names_its_field(nous: OpenPeer) -> None:
    async with nous() as peer:
        for kind, payload, field in WRONG_PAYLOADS:
            refusal = await peer.refused(kind, payload)
            assert refusal.startswith("invalid_payload: "), kind
            assert field in refusal, kind
        await peer.send_line(b'{"id":"a","type":"ping","payload":[]}')
        assert (await peer.answer("a")).code == "invalid_payload"


@pytest.mark.behaviour("P4.10")
async def test_the_state_of_a_daemon_that_did_nothing_yet(nous: OpenPeer) -> None:
    async with nous() as peer:
        state = await peer.ok("get_state")
        assert (state["run_state"], state["run_id"], state["session_id"]) == ("idle", "", "")
        assert (state["steering_mode"], state["follow_up_mode"]) == ("one-at-a-time", "one-at-a-time")
        assert state["pending_counts"] == {"steer": 0, "follow_up": 0}
        assert state["runs"] == []
        assert (state["provider"], state["model"]) == ("mock", "mock")


@pytest.mark.behaviour("P4.10")
async def test_the_state_while_a_run_goes_on(nous: OpenPeer) -> None:
    async with nous(Setup(script=[HANGS])) as peer:
        accepted = await peer.ok("prompt", {"text": "hi", "wait": False})
        await peer.events_until("message_update")
        await peer.ok("steer", {"text": "a"})
        await peer.ok("follow_up", {"text": "b"})
        await peer.ok("follow_up", {"text": "c"})
        state = await peer.ok("get_state")
        assert state["run_state"] == "running"
        assert (state["run_id"], state["session_id"]) == (accepted["run_id"], accepted["session_id"])
        assert state["pending_counts"] == {"steer": 1, "follow_up": 2}
        [run] = state["runs"]
        assert (run["run_id"], run["run_state"]) == (accepted["run_id"], "running")
        other = await peer.ok("new_session")
        assert await peer.ok("get_state") | {"health": state["health"]} == {
            **state,
            "session_id": other["session_id"],
        }
        idle = await peer.ok("get_state", {"session_id": other["session_id"]})
        assert (idle["run_state"], idle["run_id"]) == ("idle", "")
        assert idle["pending_counts"] == {"steer": 0, "follow_up": 0}
        named = await peer.ok("get_state", {"session_id": accepted["session_id"]})
        assert (named["run_state"], named["session_id"]) == ("running", accepted["session_id"])


@pytest.mark.behaviour("P6.20")
async def test_the_state_tells_how_the_daemon_is(nous: OpenPeer) -> None:
    async with nous(Setup(script=[HANGS])) as peer:
        idle = (await peer.ok("get_state"))["health"]
        assert (idle["open_runs"], idle["queued_inputs"]) == (0, 0)
        assert idle["rss_bytes"] > 1 << 20
        await peer.ok("prompt", {"text": "hi", "wait": False})
        await peer.events_until("message_update")
        await peer.ok("steer", {"text": "a"})
        await peer.ok("follow_up", {"text": "b"})
        busy = (await peer.ok("get_state"))["health"]
        assert (busy["open_runs"], busy["queued_inputs"]) == (1, 2)
        assert busy["queued_output_bytes"] >= 0
        assert busy["uptime_ms"] >= idle["uptime_ms"] >= 0
        assert busy.get("loop_lag_ms", 0) >= 0
        await peer.ok("abort")
        await peer.events_until("agent_end")
        assert (await peer.ok("get_state"))["health"]["open_runs"] == 0


UNSAFE_IDS = ["nobody", "../sessions/x", "a/b", "x" * 129, "a\u0000b", ".", "\u0663"]


@pytest.mark.behaviour("P2.13", "P8.5")
async def test_a_session_that_does_not_exist(nous: OpenPeer) -> None:
    async with nous() as peer:
        for kind in ("switch_session", "branch_session"):
            assert (await peer.command(kind, {"session_id": ""})).code == "invalid_payload"
        for kind in ("get_state", "get_messages", "get_tree", "switch_session", "branch_session"):
            for session_id in UNSAFE_IDS:
                assert (await peer.command(kind, {"session_id": session_id})).code == "session_not_found", session_id
        for session_id in UNSAFE_IDS:
            assert (await peer.command("prompt", {"text": "x", "session_id": session_id})).code == "session_not_found"


@pytest.mark.behaviour("P2.13", "P8.6")
async def test_a_run_that_does_not_exist(nous: OpenPeer) -> None:
    async with nous() as peer:
        for kind, payload in (
            ("steer", {"text": "x"}),
            ("follow_up", {"text": "x"}),
            ("abort", {}),
            ("get_events", {}),
        ):
            for run_id in UNSAFE_IDS:
                assert (await peer.command(kind, {**payload, "run_id": run_id})).code == "run_not_found", run_id


@pytest.mark.behaviour("P4.7", "P6.4")
async def test_active_tools_are_what_the_model_is_offered(nous: OpenPeer) -> None:
    async with nous() as peer:
        tools = (await peer.ok("list_tools"))["tools"]
        assert sorted(tool["name"] for tool in tools) == sorted(BUILTIN_TOOLS)
        for tool in tools:
            assert tool["active"] is True
            assert tool["source"] == "builtin"
            assert tool["schema"]["type"] == "object"
            assert tool["description"]
        accepted = await peer.ok("set_active_tools", {"tools": ["read", "ls", "read"]})
        assert accepted == {"command": "set_active_tools", "count": 2}
        assert (await peer.ok("get_state"))["active_tools"] == ["read", "ls"]
        active = [tool["name"] for tool in (await peer.ok("list_tools"))["tools"] if tool["active"]]
        assert sorted(active) == ["ls", "read"]


@pytest.mark.behaviour("P4.7")
async def test_a_tool_nobody_registered_cannot_be_activated(nous: OpenPeer) -> None:
    async with nous() as peer:
        assert (await peer.command("set_active_tools", {"tools": ["read", "teleport"]})).code == "command_rejected"
        assert sorted((await peer.ok("get_state"))["active_tools"]) == sorted(BUILTIN_TOOLS)
        assert await peer.ok("set_active_tools", {"tools": []}) == {"command": "set_active_tools", "count": 0}


@pytest.mark.behaviour("P4.7")
async def test_the_flag_sets_the_active_tools(nous: OpenPeer) -> None:
    async with nous(Setup(flags=("--tools", "bash,read"))) as peer:
        assert (await peer.ok("get_state"))["active_tools"] == ["bash", "read"]


@pytest.mark.behaviour("P4.8", "P4.9")
async def test_queue_modes(nous: OpenPeer) -> None:
    async with nous() as peer:
        for kind, field in (("set_steering_mode", "steering_mode"), ("set_follow_up_mode", "follow_up_mode")):
            for mode in ("all", "one-at-a-time"):
                assert await peer.ok(kind, {"mode": mode}) == {"command": kind, "mode": mode}
                assert (await peer.ok("get_state"))[field] == mode


async def test_a_command_that_no_extension_has_is_refused_and_never_ignored(nous: OpenPeer, home: Home) -> None:
    async with nous() as peer:
        refusal = await peer.refused("extension_command", {"name": "x"})
        assert refusal == "command_rejected: no extension has the command 'x'"
        assert (await peer.ok("get_state"))["runs"] == []
        assert home.session_lines() == []
