"""``prompt``: accepted before its run's first event, or waited for; and what the answers say."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from tests.support.gates import Gate, chat, chat_setup, gated
from tests.support.harness import OpenPeer, command_line
from tests.support.home import Home, Setup
from tests.support.lines import Line, normal, types
from tests.support.sse_server import serve, streams

pytestmark = pytest.mark.anyio

HANGS = [{"text": "Hello"}, {"hang": True}]
ECHO = [
    "agent_start",
    "turn_start",
    "message_start",
    "message_end",
    "message_start",
    "message_update",
    "message_update",
    "message_update",
    "message_end",
    "turn_end",
    "agent_end",
]


@pytest.mark.behaviour("P4.2", "P3.4", "P3.6")
async def test_a_prompt_is_accepted_and_then_streams(nous: OpenPeer) -> None:
    async with nous() as peer:
        accepted = await peer.command("prompt", {"text": "hello", "wait": False})
        assert accepted.type == "accepted"
        assert set(accepted.payload) == {"command", "run_id", "session_id"}
        assert accepted.payload["command"] == "prompt"
        run = await peer.run_events(accepted.run_id)
        assert types(run) == ECHO
        first = peer.lines.index(run[0])
        assert peer.lines.index(accepted) < first


@pytest.mark.behaviour("P4.2", "P4.22")
async def test_accepted_names_the_leaf_the_run_starts_from(nous: OpenPeer) -> None:
    async with nous() as peer:
        first = await peer.run("one")
        accepted = await peer.ok("prompt", {"text": "two", "wait": False})
        assert accepted["leaf_id"] == first[-1].payload["leaf_id"]
        second = await peer.run_events(accepted["run_id"])
        assert second[0].payload["leaf_id"] == accepted["leaf_id"]


@pytest.mark.behaviour("P4.3", "P4.22", "P4.23", "P4.28")
async def test_a_prompt_waits_if_wait_is_left_out(nous: OpenPeer) -> None:
    async with nous() as peer:
        result = await peer.command("prompt", {"text": "hello"})
        assert result.type == "result"
        assert result.payload["output"] == "mock response: hello"
        run = await peer.run_events(result.run_id)
        assert result.payload["session_id"] == run[0].payload["session_id"]
        assert result.payload["leaf_id"] == run[-1].payload["leaf_id"] == run[-3].payload["message_id"]


@pytest.mark.behaviour("P4.24")
async def test_a_waiting_prompt_streams_what_any_prompt_streams(nous: OpenPeer) -> None:
    async with nous() as peer:
        result = await peer.command("prompt", {"text": "hello", "wait": True})
        waited = await peer.run_events(result.run_id)
        assert peer.lines.index(waited[-1]) < peer.lines.index(result)
        assert normal(waited) == normal(await peer.run("hello"))


@pytest.mark.behaviour("P4.26")
async def test_a_result_holds_the_runs_events_flattened(nous: OpenPeer) -> None:
    async with nous() as peer:
        result = await peer.command("prompt", {"text": "hello"})
        run = await peer.run_events(result.run_id)
        assert "events_truncated" not in result.payload
        assert result.payload["events"] == [flat(line) for line in run]
        assert [event["turn"] for event in result.payload["events"]] == [0, *[1] * (len(run) - 2), 0]


@pytest.mark.behaviour("P4.26")
async def test_a_result_holds_no_feature_events(nous: OpenPeer) -> None:
    async with nous(Setup(script=[[{"thinking": "hm"}, {"text": "Hi."}]])) as peer:
        await peer.ok("hello", {"features": ["events", "thinking"]})
        result = await peer.command("prompt", {"text": "hello"})
        assert "thinking_update" in types(await peer.run_events(result.run_id))
        assert "thinking_update" not in [event["type"] for event in result.payload["events"]]


@pytest.mark.behaviour("P4.27", "P1.12")
async def test_a_result_too_long_for_a_line_says_so(nous: OpenPeer) -> None:
    script = [[{"text_repeat": {"text": "x" * 100, "count": 4000}}]]
    async with nous(Setup(script=script)) as peer:
        result = await peer.command("prompt", {"text": "hello"})
        assert result.payload["events_truncated"] is True
        assert len(result.raw) < 1 << 20
        run = await peer.run_events(result.run_id)
        kept = result.payload["events"]
        assert len(kept) > 1000
        assert kept == [flat(line) for line in run[: len(kept)]]


@pytest.mark.behaviour("P4.28")
async def test_the_output_is_the_last_assistant_message(nous: OpenPeer, home: Home) -> None:
    script = [[{"text": "First a look."}, {"tool_call": {"name": "ls"}}], [{"text": "Then this."}]]
    async with nous(Setup(script=script)) as peer:
        assert (await peer.ok("prompt", {"text": "hello"}))["output"] == "Then this."


@pytest.mark.behaviour("P4.25", "P8.15")
async def test_a_prompt_that_takes_too_long_is_answered_and_its_run_goes_on(nous: OpenPeer) -> None:
    release = anyio.Event()
    slow = gated(release, "Still ", "here")
    async with serve(slow) as server, nous(chat_setup(server.url, "--command-timeout", "50ms")) as peer:
        answer = await peer.command("prompt", {"text": "hello"})
        assert answer.code == "timeout"
        assert answer.data["error"]["hint"]
        assert (await peer.ok("get_state"))["run_id"] == answer.payload["run_id"]
        release.set()
        run = await peer.run_events(answer.payload["run_id"])
        assert run[-1].payload["status"] == "completed"


@pytest.mark.behaviour("P3.2", "P3.3")
async def test_a_waiting_prompt_blocks_nothing(nous: OpenPeer) -> None:
    release = anyio.Event()
    async with serve(gated(release, "Hello")) as server, nous(chat_setup(server.url)) as peer:
        waiting = await peer.ask("prompt", {"text": "hello"})
        await peer.events_until("message_update")
        assert (await peer.command("ping")).type == "pong"
        assert (await peer.ok("get_state"))["run_state"] == "running"
        assert (await peer.ok("new_session"))["active"] is True
        assert (await peer.ok("set_steering_mode", {"mode": "all"}))["mode"] == "all"
        release.set()
        assert (await peer.answer(waiting)).payload["output"] == "Hello"


@pytest.mark.behaviour("P3.1", "P3.3", "P3.4")
@pytest.mark.parametrize("wait", [True, False])
async def test_a_steer_in_the_same_write_as_its_prompt_finds_the_run(nous: OpenPeer, wait: bool) -> None:
    async with nous() as peer:
        await peer.send(
            command_line("prompt", {"text": "hello", "wait": wait}, "p")
            + b"\n"
            + command_line("steer", {"text": "and more"}, "s")
            + b"\n"
            + command_line("abort", None, "a")
            + b"\n"
        )
        steered, aborted = await peer.answer("s"), await peer.answer("a")
        assert (steered.type, steered.payload["command"]) == ("accepted", "steer")
        assert (aborted.type, aborted.payload["command"]) == ("accepted", "abort")
        assert steered.run_id == aborted.run_id
        run = await peer.run_events(steered.run_id)
        assert run[-1].payload["status"] == "aborted"
        if not wait:
            assert (await peer.answer("p")).run_id == steered.run_id


@pytest.mark.behaviour("P3.1", "P3.3")
async def test_an_abort_of_a_prompt_that_is_refused_says_that_there_is_no_run(nous: OpenPeer) -> None:
    async with nous() as peer:
        await peer.send(
            command_line("new_session", None, "n")
            + b"\n"
            + command_line("prompt", {"text": "hello", "leaf_id": "nowhere", "wait": False}, "p")
            + b"\n"
            + command_line("abort", None, "a")
            + b"\n"
        )
        assert (await peer.answer("p")).code == "command_rejected"
        answer = await peer.answer("a")
        assert (answer.code, answer.cause) == ("command_rejected", "no_active_run")
        assert (await peer.run("hello"))[-1].payload["status"] == "completed"


@pytest.mark.behaviour("P3.1", "P3.3")
async def test_an_abort_reaches_the_next_prompt_if_the_first_is_refused(nous: OpenPeer) -> None:
    async with nous(Setup(script=[HANGS])) as peer:
        await peer.send(
            command_line("prompt", {"text": "hello", "leaf_id": "nowhere", "wait": False}, "p")
            + b"\n"
            + command_line("prompt", {"text": "hello", "wait": False}, "q")
            + b"\n"
            + command_line("abort", None, "a")
            + b"\n"
        )
        assert (await peer.answer("p")).code == "command_rejected"
        run_id = (await peer.answer("q")).run_id
        assert (await peer.answer("a")).run_id == run_id
        assert (await peer.run_events(run_id))[-1].payload["status"] == "aborted"


@pytest.mark.behaviour("P3.1")
async def test_changes_take_effect_in_the_order_they_arrive(nous: OpenPeer) -> None:
    async with nous() as peer:
        await peer.send(
            b"".join(
                command_line(kind, payload, str(number)) + b"\n"
                for number, (kind, payload) in enumerate(
                    [
                        ("new_session", None),
                        ("prompt", {"text": "one", "wait": False}),
                        ("new_session", None),
                        ("prompt", {"text": "two", "wait": False}),
                        ("new_session", None),
                    ]
                )
            )
        )
        answers = [await peer.answer(str(number)) for number in range(5)]
        assert [answer.type for answer in answers] == ["session", "accepted", "session", "accepted", "session"]
        sessions = [answer.payload["session_id"] for answer in answers]
        assert sessions[0] == sessions[1]
        assert sessions[2] == sessions[3]
        assert len(set(sessions)) == 3
        assert (await peer.ok("get_state"))["session_id"] == sessions[4]


@pytest.mark.behaviour("P4.32", "P8.4")
async def test_a_second_prompt_on_a_busy_session_is_rejected(nous: OpenPeer, home: Home) -> None:
    async with nous(Setup(script=[HANGS])) as peer:
        first = await peer.start("hello")
        assert await peer.refused("prompt", {"text": "again"}) == "command_rejected: run_in_progress"
        assert await peer.refused("prompt", {"text": "again", "wait": False}) == "command_rejected: run_in_progress"
        await peer.ok("abort")
        await peer.run_events(first)
        assert (await peer.ok("prompt", {"text": "now"}))["output"] == "mock response: now"
        assert not any(b"again" in line for line in home.session_lines())


@pytest.mark.behaviour("P4.41")
async def test_runs_of_different_sessions_go_on_side_by_side(nous: OpenPeer) -> None:
    async with nous(Setup(script=[HANGS, HANGS])) as peer:
        first = await peer.start("one")
        await peer.ok("new_session")
        second = await peer.start("two")
        await peer.events_until("message_update", run_id=second)
        state = await peer.ok("get_state")
        assert {run["run_id"] for run in state["runs"]} == {first, second}
        await peer.ok("new_session")
        assert (await peer.run("three"))[-1].payload["status"] == "completed"
        for run_id in (second, first):
            await peer.ok("abort", {"run_id": run_id})
            assert (await peer.run_events(run_id))[-1].payload["status"] == "aborted"


@pytest.mark.behaviour("P8.22")
async def test_more_runs_than_max_runs_are_refused(nous: OpenPeer) -> None:
    setup = Setup(script=[HANGS, HANGS], config={"daemon": {"max_runs": 2}})
    async with nous(setup) as peer:
        await peer.start("one")
        await peer.ok("new_session")
        second = await peer.start("two")
        third = await peer.ok("new_session")
        answer = await peer.command("prompt", {"text": "three", "wait": False})
        assert (answer.code, answer.data["error"]["retryable"]) == ("overloaded", True)
        await peer.ok("abort", {"run_id": second})
        await peer.run_events(second)
        assert (await peer.ok("prompt", {"text": "three"}))["session_id"] == third["session_id"]


@pytest.mark.behaviour("P4.29")
async def test_a_prompt_for_a_named_session_leaves_the_active_one(nous: OpenPeer) -> None:
    async with nous() as peer:
        other = (await peer.ok("new_session"))["session_id"]
        active = (await peer.ok("new_session"))["session_id"]
        run = await peer.run("hello", session_id=other)
        assert run[0].payload["session_id"] == other
        assert (await peer.ok("get_state"))["session_id"] == active
        assert (await peer.command("prompt", {"text": "x", "session_id": "nobody"})).code == "session_not_found"


@pytest.mark.behaviour("P4.29")
async def test_a_prompt_without_any_session_makes_one(nous: OpenPeer) -> None:
    async with nous() as peer:
        assert (await peer.ok("get_state"))["session_id"] == ""
        first = await peer.ok("prompt", {"text": "hello"})
        assert (await peer.ok("get_state"))["session_id"] == first["session_id"]
        assert (await peer.ok("prompt", {"text": "again"}))["session_id"] == first["session_id"]


@pytest.mark.behaviour("P3.5")
async def test_the_prompt_stands_in_the_trace_before_it_is_answered(nous: OpenPeer, home: Home) -> None:
    async with nous(Setup(script=[HANGS])) as peer:
        run_id = await peer.start("remember me")
        trace = (home.state / "traces" / f"{run_id}.ndjson").read_bytes()
        assert b"remember me" in trace


@pytest.mark.behaviour("P8.10")
async def test_a_failed_run_is_an_error_to_who_waits(nous: OpenPeer) -> None:
    async with nous(Setup(script=[[{"text": "Half"}, {"error": {"code": "provider_error", "cause": "bad"}}]])) as peer:
        answer = await peer.command("prompt", {"text": "hello"})
        assert (answer.code, answer.cause) == ("provider_error", "bad")
        run = await peer.run_events(answer.payload["run_id"])
        assert run[-1].payload["status"] == "failed"


async def test_an_aborted_run_is_a_result_to_who_waits(nous: OpenPeer, home: Home) -> None:
    with Gate(home.workdir) as gate:
        async with nous(Setup(script=[[{"text": "Look."}, gate.step()]])) as peer:
            waiting = await peer.ask("prompt", {"text": "hello"})
            await peer.events_until("tool_execution_update")
            await peer.ok("abort")
            result = await peer.answer(waiting)
            assert (result.type, result.payload["output"]) == ("result", "Look.")
            assert result.payload["events"][-1]["status"] == "aborted"


async def test_one_provider_serves_all_prompts(nous: OpenPeer) -> None:
    async with serve(streams(*chat("one")), streams(*chat("two"))) as server, nous(chat_setup(server.url)) as peer:
        assert (await peer.ok("prompt", {"text": "hello"}))["output"] == "one"
        assert (await peer.ok("prompt", {"text": "hello"}))["output"] == "two"
        assert (await peer.ok("get_state"))["provider_builds"] == 1
        assert server.connections == 1


def flat(line: Line) -> dict[str, Any]:
    """Return an event as ``result`` holds it."""
    payload = dict(line.payload)
    turn = int(payload.get("turn_id", "0"))
    return {"type": line.type, "ts": line.data["ts"], "turn": turn, **payload}
