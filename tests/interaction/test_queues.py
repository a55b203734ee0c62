"""``steer``, ``follow_up`` and ``abort``: what a user says while a run is busy, over every transport."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

from tests.support.gates import Gate, chat, chat_delta, chat_setup, gated
from tests.support.harness import OpenPeer
from tests.support.home import Home, Setup
from tests.support.lines import Line, of_type, types
from tests.support.sse_server import Wire, serve, streams

pytestmark = pytest.mark.anyio

HANGS = [{"text": "Hello"}, {"hang": True}]
SKIPPED = "Skipped due to queued user message."


@pytest.fixture
def gate(home: Home) -> Iterator[Gate]:
    with Gate(home.workdir) as gate:
        yield gate


def turns(run: list[Line]) -> list[tuple[str, str]]:
    """Return each turn's kind and the text that began it."""
    inputs = [line for line in of_type(run, "message_end") if line.payload["role"] == "user"]
    kinds = [line.payload["turn_kind"] for line in of_type(run, "turn_start")]
    return list(zip(kinds, [line.payload["text"] for line in inputs], strict=True))


@pytest.mark.behaviour("P4.33", "P8.4")
async def test_nothing_to_steer_follow_or_abort(nous: OpenPeer) -> None:
    async with nous() as peer:
        commands: list[tuple[str, dict[str, object]]] = [
            ("steer", {"text": "x"}),
            ("follow_up", {"text": "x"}),
            ("abort", {}),
        ]
        for kind, payload in commands:
            assert await peer.refused(kind, payload) == "command_rejected: no_active_run"
        ended = await peer.start("hello")
        await peer.run_events(ended)
        for kind, payload in commands:
            assert await peer.refused(kind, payload) == "command_rejected: no_active_run"
            assert await peer.refused(kind, {**payload, "run_id": ended}) == "command_rejected: no_active_run"


@pytest.mark.behaviour("P4.4", "P4.5", "P4.34", "P3.7")
async def test_steers_come_before_follow_ups_one_turn_each(nous: OpenPeer, gate: Gate) -> None:
    async with nous(Setup(script=[[gate.step()]])) as peer:
        run_id = await peer.start("begin")
        await peer.events_until("tool_execution_update")
        for kind, text in (("follow_up", "f1"), ("steer", "s1"), ("follow_up", "f2"), ("steer", "s2")):
            assert await peer.ok(kind, {"text": text}) == {"command": kind, "run_id": run_id}
        gate.open()
        run = await peer.run_events(run_id)
        assert turns(run) == [
            ("prompt", "begin"),
            ("steer", "s1"),
            ("steer", "s2"),
            ("follow_up", "f1"),
            ("follow_up", "f2"),
        ]
        assert [line.payload["turn_id"] for line in of_type(run, "turn_start")] == ["1", "2", "3", "4", "5"]
        assert types(run).count("agent_end") == 1


async def test_a_run_queues_a_bounded_number_of_inputs(nous: OpenPeer) -> None:
    async with nous(Setup(script=[HANGS])) as peer:
        run_id = await peer.start("begin")
        for _ in range(128):
            await peer.ok("steer", {"text": "s"})
            await peer.ok("follow_up", {"text": "f"})
        for kind in ("steer", "follow_up"):
            assert await peer.refused(kind, {"text": "x"}) == "command_rejected: queue_full"
        await peer.ok("abort")
        await peer.run_events(run_id)


async def test_a_run_queues_a_bounded_length_of_inputs(nous: OpenPeer) -> None:
    async with nous(Setup(script=[HANGS])) as peer:
        run_id = await peer.start("begin")
        for _ in range(5):
            await peer.ok("steer", {"text": "x" * (7 * 1024 * 1024)})
        for kind in ("steer", "follow_up"):
            assert await peer.refused(kind, {"text": "x"}) == "command_rejected: queue_full"
        await peer.ok("abort")
        await peer.run_events(run_id)


@pytest.mark.behaviour("P4.35", "P4.36")
async def test_of_two_steers_the_first_gets_no_answer_of_its_own(nous: OpenPeer, gate: Gate) -> None:
    async with nous(Setup(script=[[gate.step()]])) as peer:
        run_id = await peer.start("begin")
        await peer.events_until("tool_execution_update")
        await peer.ok("steer", {"text": "s1"})
        await peer.ok("steer", {"text": "s2"})
        gate.open()
        run = await peer.run_events(run_id)
        # The second was found before the first model call of the first one's turn, and ended that turn.
        roles = [(m.payload["turn_id"], m.payload["role"]) for m in of_type(run, "message_end")]
        assert roles == [("1", "user"), ("1", "assistant"), ("2", "user"), ("3", "user"), ("3", "assistant")]


@pytest.mark.behaviour("P4.35", "P4.38", "P8.26")
async def test_a_steer_skips_the_tools_that_are_left(nous: OpenPeer, gate: Gate, home: Home) -> None:
    late = [{"tool_call": {"name": "bash", "arguments": {"command": "touch late"}, "id": f"late{n}"}} for n in (1, 2)]
    async with nous(Setup(script=[[gate.step(), *late]])) as peer:
        run_id = await peer.start("begin")
        await peer.events_until("tool_execution_update")
        await peer.ok("steer", {"text": "never mind"})
        gate.open()
        run = await peer.run_events(run_id)
        results = of_type(run, "tool_execution_end")
        assert [r.payload["tool_call_id"] for r in results] == ["gated", "late1", "late2"]
        assert "after" in results[0].payload["result"]
        assert [r.payload["result"] for r in results[1:]] == [SKIPPED, SKIPPED]
        warnings = of_type(run, "warning")
        assert [w.payload["code"] for w in warnings] == ["tool_execution_skipped"] * 2
        assert [w.payload["tool_call_id"] for w in warnings] == ["late1", "late2"]
        assert turns(run) == [("prompt", "begin"), ("steer", "never mind")]
        assert not (home.workdir / "late").exists()
        messages = (await peer.ok("get_messages"))["messages"]
        assert [m["role"] for m in messages][:5] == ["user", "assistant", *["tool_result"] * 3]


@pytest.mark.behaviour("P4.35")
async def test_a_follow_up_skips_no_tool(nous: OpenPeer, gate: Gate) -> None:
    other = {"tool_call": {"name": "bash", "arguments": {"command": "echo ran"}, "id": "other"}}
    async with nous(Setup(script=[[gate.step(), other], [{"text": "Done."}]])) as peer:
        run_id = await peer.start("begin")
        await peer.events_until("tool_execution_update")
        await peer.ok("follow_up", {"text": "later"})
        gate.open()
        run = await peer.run_events(run_id)
        assert "ran" in of_type(run, "tool_execution_end")[1].payload["result"]
        ends = of_type(run, "turn_end", "message_end")
        done = next(index for index, line in enumerate(ends) if line.payload.get("text") == "Done.")
        assert ends[done + 1].type == "turn_end"
        assert turns(run) == [("prompt", "begin"), ("follow_up", "later")]


@pytest.mark.behaviour("P4.35")
async def test_a_steer_during_an_answer_is_the_next_turn(nous: OpenPeer) -> None:
    release = anyio.Event()
    async with (
        serve(gated(release, "Hello"), streams(*chat("Steered."))) as server,
        nous(chat_setup(server.url)) as peer,
    ):
        run_id = await peer.start("begin")
        await peer.events_until("message_update")
        await peer.ok("steer", {"text": "left"})
        release.set()
        run = await peer.run_events(run_id)
        assert turns(run) == [("prompt", "begin"), ("steer", "left")]
        assert [m.payload["text"] for m in of_type(run, "message_end")] == ["begin", "Hello", "left", "Steered."]
        assert len(server.exchanges) == 2


@pytest.mark.behaviour("P4.37", "P5.3")
async def test_mode_all_makes_everything_queued_one_turn(nous: OpenPeer, gate: Gate) -> None:
    async with nous(Setup(script=[[gate.step()]])) as peer:
        run_id = await peer.start("begin")
        await peer.events_until("tool_execution_update")
        await peer.ok("set_steering_mode", {"mode": "all"})
        ids = {kind: [await peer.ask(kind, {"text": f"{kind} {n}"}) for n in (1, 2)] for kind in ("steer", "follow_up")}
        for command_id in (*ids["steer"], *ids["follow_up"]):
            assert (await peer.answer(command_id)).type == "accepted"
        gate.open()
        run = await peer.run_events(run_id)
        assert turns(run) == [
            ("prompt", "begin"),
            ("steer", "steer 1\nsteer 2"),
            ("follow_up", "follow_up 1"),
            ("follow_up", "follow_up 2"),
        ]
        joined = of_type(run, "turn_start")[1].payload
        assert (joined["command_id"], joined["command_ids"]) == (ids["steer"][0], ids["steer"])


@pytest.mark.behaviour("P4.31", "P4.37")
async def test_a_mode_set_while_a_run_goes_on_counts_for_it(nous: OpenPeer, gate: Gate) -> None:
    async with nous(Setup(script=[[gate.step()]])) as peer:
        await peer.ok("set_follow_up_mode", {"mode": "all"})
        run_id = await peer.start("begin")
        await peer.events_until("tool_execution_update")
        await peer.ok("follow_up", {"text": "a"})
        await peer.ok("follow_up", {"text": "b"})
        await peer.ok("set_follow_up_mode", {"mode": "one-at-a-time"})
        gate.open()
        kinds = turns(await peer.run_events(run_id))
        assert kinds == [("prompt", "begin"), ("follow_up", "a"), ("follow_up", "b")]


@pytest.mark.behaviour("P4.31")
async def test_tools_set_while_a_run_goes_on_count_for_it(nous: OpenPeer, gate: Gate) -> None:
    script = [[gate.step()], [{"tool_call": {"name": "ls", "id": "c2"}}], [{"text": "Done."}]]
    async with nous(Setup(script=script)) as peer:
        run_id = await peer.start("begin")
        await peer.events_until("tool_execution_update")
        await peer.ok("set_active_tools", {"tools": ["read"]})
        gate.open()
        run = await peer.run_events(run_id)
        assert [w.payload["code"] for w in of_type(run, "warning")] == ["tool_not_active"]


@pytest.mark.behaviour("P4.30")
async def test_without_a_run_id_the_active_sessions_run_is_meant(nous: OpenPeer) -> None:
    async with nous(Setup(script=[HANGS, HANGS])) as peer:
        first = await peer.start("one")
        session = (await peer.ok("new_session"))["session_id"]
        second = await peer.start("two")
        for kind in ("steer", "follow_up"):
            assert (await peer.ok(kind, {"text": "x"}))["run_id"] == second
            assert (await peer.ok(kind, {"text": "x", "run_id": first}))["run_id"] == first
        assert (await peer.ok("abort"))["run_id"] == second
        await peer.run_events(second)
        state = await peer.ok("get_state")
        # It has none any more: the daemon's only one is meant.
        assert (state["session_id"], state["run_id"]) == (session, first)
        assert (await peer.ok("abort"))["run_id"] == first
        await peer.run_events(first)
        assert await peer.refused("abort") == "command_rejected: no_active_run"


@pytest.mark.behaviour("P4.6", "P4.39", "P3.11")
async def test_an_abort_while_the_model_answers(nous: OpenPeer, home: Home) -> None:
    async with nous(Setup(script=[HANGS])) as peer:
        run_id = await peer.start("begin")
        await peer.events_until("message_update")
        accepted = await peer.command("abort")
        assert accepted.payload == {"command": "abort", "run_id": run_id}
        run = await peer.run_events(run_id)
        assert types(run)[-4:] == ["warning", "message_end", "turn_end", "agent_end"]
        assert run[-4].payload["code"] == "provider_aborted"
        assert run[-3].payload["stop_reason"] == "aborted"
        assert (run[-1].payload["status"], run[-1].payload["stop_reason"]) == ("aborted", "aborted")
        assert peer.lines.index(accepted) < peer.lines.index(run[-4])
        assert [m["role"] for m in (await peer.ok("get_messages"))["messages"]] == ["user"]
        assert not any(b"Hello" in line for line in home.session_lines())
        assert (await peer.run("again"))[-1].payload["status"] == "completed"


@pytest.mark.behaviour("P4.6", "P4.39", "P3.11")
async def test_an_abort_while_a_tool_runs(nous: OpenPeer, gate: Gate) -> None:
    async with nous(Setup(script=[[gate.step()]])) as peer:
        run_id = await peer.start("begin")
        await peer.events_until("tool_execution_update")
        await peer.ok("abort")
        run = await peer.run_events(run_id)
        assert types(run)[-3:] == ["tool_execution_end", "turn_end", "agent_end"]
        assert run[-3].payload["is_error"] is True
        assert run[-1].payload["status"] == "aborted"
        assert (await peer.run("again"))[-1].payload["status"] == "completed"


@pytest.mark.behaviour("P4.39")
async def test_a_tool_that_ignores_its_end_does_not_hold_an_abort(nous: OpenPeer) -> None:
    command = "trap '' TERM; echo ready; while :; do read line < /dev/null; done"
    script = [[{"tool_call": {"name": "bash", "arguments": {"command": command}}}]]
    async with nous(Setup(script=script, config={"daemon": {"abort_grace_ms": 100}})) as peer:
        run_id = await peer.start("begin")
        await peer.events_until("tool_execution_update")
        await peer.ok("abort")
        run = await peer.run_events(run_id)
        assert types(run)[-3:] == ["tool_execution_end", "turn_end", "agent_end"]
        assert run[-1].payload["status"] == "aborted"
        # Far below the tool's own two seconds between TERM and KILL.
        assert run[-1].payload["duration_ms"] < 1900


@pytest.mark.behaviour("P4.40", "P5.2")
async def test_an_abort_hands_back_what_was_queued(nous: OpenPeer) -> None:
    async with nous(Setup(script=[HANGS])) as peer:
        run_id = await peer.start("begin")
        await peer.events_until("message_update")
        follow_up = await peer.ask("follow_up", {"text": "later"})
        steer = await peer.ask("steer", {"text": "left"})
        await peer.answer(steer)
        await peer.ok("abort")
        run = await peer.run_events(run_id)
        assert run[-1].payload["discarded"] == [
            {"command_id": steer, "kind": "steer", "text": "left"},
            {"command_id": follow_up, "kind": "follow_up", "text": "later"},
        ]
        assert len(of_type(run, "turn_start")) == 1


@pytest.mark.behaviour("P4.40")
async def test_a_failure_hands_back_what_was_queued(nous: OpenPeer) -> None:
    release = anyio.Event()

    async def cut_later(wire: Wire) -> None:
        await wire.head()
        await wire.part(chat_delta("Hello"))
        await release.wait()
        await wire.close()

    async with serve(cut_later) as server, nous(chat_setup(server.url)) as peer:
        run_id = await peer.start("begin")
        await peer.events_until("message_update")
        await peer.ok("follow_up", {"text": "later"})
        release.set()
        end = (await peer.run_events(run_id))[-1]
        assert (end.payload["status"], [d["text"] for d in end.payload["discarded"]]) == ("failed", ["later"])


@pytest.mark.behaviour("P4.10")
async def test_a_run_that_is_being_aborted_says_so(nous: OpenPeer) -> None:
    command = "trap '' TERM; echo ready; while :; do read line < /dev/null; done"
    script = [[{"tool_call": {"name": "bash", "arguments": {"command": command}}}]]
    async with nous(Setup(script=script)) as peer:
        run_id = await peer.start("begin")
        await peer.events_until("tool_execution_update")
        await peer.ok("abort")
        assert (await peer.ok("get_state"))["run_state"] == "aborting"
        assert (await peer.run_events(run_id))[-1].payload["status"] == "aborted"
        assert (await peer.ok("get_state"))["run_state"] == "idle"
