"""Hooks through a whole daemon: what they may change, what they cost a run that has none, what is told of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from nous.ports.extensions import HOOKS, HookCall, HookName, HookOutcome, HookWarning
from nous.ports.tool import ToolContext, ToolResult
from nous.replay.engine_mode import replay_in_engine
from nous.transport.memory import memory_pair
from tests.support.extensions import RecordingExtensions
from tests.support.harness import Peer, make_server
from tests.support.home import Home, Setup, bounded
from tests.support.lines import Line
from tests.support.wires import MemoryWire

pytestmark = pytest.mark.anyio

WRITE = {"tool_call": {"name": "write", "arguments": {"path": "made.txt", "content": "by the model"}, "id": "call_w"}}
ROUND = [[WRITE], [{"text": "Done."}]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@asynccontextmanager
async def daemon_with(extensions: RecordingExtensions, home: Home, setup: Setup | None = None) -> AsyncIterator[Peer]:
    mine, theirs = memory_pair()
    with bounded():
        async with anyio.create_task_group() as tasks:
            with make_server(home, setup or Setup(), theirs) as (daemon, server):
                daemon.extensions = extensions
                peer = Peer(MemoryWire(mine))

                async def serve() -> None:
                    await server.serve()
                    await theirs.aclose()

                tasks.start_soon(peer.pump)
                tasks.start_soon(serve)
                yield peer
                daemon.stop.request("signal", abort=True)
                await peer.rest()
                peer.check_ended()
    for trace in (home.state / "traces").glob("*.ndjson"):
        assert replay_in_engine(trace).verdict == "identical"


def answering(**answers: HookOutcome) -> RecordingExtensions:
    """Return extensions that listen to these hooks and answer so."""
    names: dict[str, HookName] = {name: name for name in HOOKS}

    async def answer(call: HookCall) -> HookOutcome:
        return answers[call.hook]

    return RecordingExtensions([names[name] for name in answers], answer)


def ended(events: list[Line]) -> dict[str, Any]:
    return events[-1].payload


def payloads(events: list[Line], kind: str) -> list[dict[str, Any]]:
    return [event.payload for event in events if event.type == kind]


async def test_every_hook_of_a_run_is_asked_or_told_in_order(home: Home) -> None:
    extensions = RecordingExtensions(HOOKS)
    async with daemon_with(extensions, home, Setup(script=ROUND)) as peer:
        events = await peer.run("go")
    assert [call.hook for call in extensions.asked] == [
        "input",
        "before_agent_start",
        "run_start",
        "turn_start",
        "tool_call",
        "tool_result",
    ]
    assert [call.hook for call in extensions.told] == ["turn_end", "run_end"]
    assert len({call.operation_id for call in [*extensions.asked, *extensions.told]}) == 8
    assert {call.run_id for call in extensions.asked} == {events[0].payload["run_id"]}
    assert extensions.asked[4].payload == {
        "tool_call_id": "call_w",
        "tool_name": "write",
        "arguments": {"path": "made.txt", "content": "by the model"},
    }
    assert extensions.told[1].payload["status"] == "completed"
    assert ended(events)["status"] == "completed"


async def test_a_run_without_extensions_takes_no_note_of_them(home: Home) -> None:
    extensions = RecordingExtensions([])
    async with daemon_with(extensions, home, Setup(script=ROUND)) as peer:
        await peer.run("go")
        assert "extensions" not in await peer.ok("get_state")
    (trace,) = (home.state / "traces").glob("*.ndjson")
    assert b"hook" not in trace.read_bytes()
    assert extensions.asked == extensions.told == []


async def test_an_input_is_changed_before_anybody_sees_it(home: Home) -> None:
    async with daemon_with(answering(input=HookOutcome(text="HELLO")), home) as peer:
        events = await peer.run("hello")
        messages = (await peer.ok("get_messages"))["messages"]
    assert [message["text"] for message in messages] == ["HELLO", "mock response: HELLO"]
    assert payloads(events, "message_end")[0]["text"] == "HELLO"


async def test_an_input_that_was_handled_needs_no_model(home: Home) -> None:
    async with daemon_with(answering(input=HookOutcome(handled=True, text="It is noon.")), home) as peer:
        events = await peer.run("/time")
        assert (await peer.ok("get_messages"))["messages"] == []
    assert [event.type for event in events] == ["agent_start", "status", "agent_end"]
    assert (events[1].payload["code"], events[1].payload["message"]) == ("input_handled", "It is noon.")
    assert events[1].payload["reason"] == "prompt"
    assert events[1].payload["command_id"]
    assert ended(events)["status"] == "completed"


@pytest.mark.behaviour("P8.20")
@pytest.mark.parametrize("hook", ["input", "before_agent_start", "run_start", "turn_start"])
async def test_what_is_blocked_on_the_way_in_fails_the_run(home: Home, hook: str) -> None:
    async with daemon_with(answering(**{hook: HookOutcome(block="not on Sundays")}), home) as peer:
        events = await peer.run("hello")
        assert (await peer.ok("get_messages"))["messages"] == []
        sync = await peer.command("prompt", {"text": "hello", "wait": True})
    assert (events[-2].type, events[-2].payload["code"], events[-2].payload["cause"]) == (
        "error",
        "policy_blocked",
        "not on Sundays",
    )
    assert ended(events)["status"] == "failed"
    assert sync.code == "policy_blocked"


async def test_a_blocked_tool_call_does_not_run(home: Home) -> None:
    async with daemon_with(answering(tool_call=HookOutcome(block="no writing")), home, Setup(script=ROUND)) as peer:
        events = await peer.run("go")
    assert not (home.workdir / "made.txt").exists()
    (end,) = payloads(events, "tool_execution_end")
    assert (end["is_error"], end["result"]) == (True, "Blocked: no writing")
    assert [warning["code"] for warning in payloads(events, "warning")] == ["tool_blocked"]
    assert ended(events)["status"] == "completed"


async def test_a_tool_runs_with_the_arguments_it_was_left_with(home: Home) -> None:
    changed = HookOutcome(arguments={"path": "other.txt", "content": "by the extension"})
    async with daemon_with(answering(tool_call=changed), home, Setup(script=ROUND)) as peer:
        events = await peer.run("go")
    assert (home.workdir / "other.txt").read_text(encoding="utf-8") == "by the extension"
    assert not (home.workdir / "made.txt").exists()
    assert payloads(events, "tool_execution_start")[0]["arguments"] == changed.arguments


@pytest.mark.parametrize(
    ("outcome", "text", "is_error"),
    [
        (HookOutcome(text="Nothing to see."), "Nothing to see.", False),
        (HookOutcome(is_error=True), None, True),
        (HookOutcome(text="Secret", block="it holds a key"), "Withheld: it holds a key", True),
    ],
)
async def test_a_result_is_changed_before_the_model_reads_it(
    home: Home, outcome: HookOutcome, text: str | None, is_error: bool
) -> None:
    async with daemon_with(answering(tool_result=outcome), home, Setup(script=ROUND)) as peer:
        events = await peer.run("go")
        stored = (await peer.ok("get_messages"))["messages"][2]["blocks"][0]
    (end,) = payloads(events, "tool_execution_end")
    assert end["is_error"] is is_error
    assert stored["is_error"] is is_error
    assert text is None or (end["result"], stored["text"]) == (text, text)
    assert (home.workdir / "made.txt").exists()


@pytest.mark.behaviour("P8.27")
@pytest.mark.parametrize("code", ["extension_timeout", "extension_error", "extension_disabled"])
async def test_warnings_say_who_what_and_how_long(home: Home, code: Any) -> None:
    warning = HookWarning(
        code=code,
        message="The extension guard did not answer in time.",
        extension="guard",
        version="1.2",
        hook="tool_call",
        operation_id="op-1",
        timeout_ms=5000,
        elapsed_ms=5003,
        reason="no answer",
        consecutive_failures=2,
    )
    async with daemon_with(answering(tool_call=HookOutcome(warnings=(warning,))), home, Setup(script=ROUND)) as peer:
        events = await peer.run("go")
    (seen,) = [w for w in payloads(events, "warning") if w["code"] == code]
    assert {name: seen[name] for name in warning.__struct_fields__ if name != "tool"} == {
        name: getattr(warning, name) for name in warning.__struct_fields__ if name != "tool"
    }
    assert seen["turn_id"] == "1"


async def test_an_abort_does_not_wait_for_a_hook(home: Home) -> None:
    async def hang(call: HookCall) -> HookOutcome:
        await anyio.sleep_forever()
        raise AssertionError

    extensions = RecordingExtensions(["tool_call"], hang)
    async with daemon_with(extensions, home, Setup(script=ROUND)) as peer:
        run_id = await peer.start("go")
        await peer.events_until("message_end", role="assistant")
        await peer.ok("abort", {"run_id": run_id})
        events = await peer.run_events(run_id)
    assert ended(events)["status"] == "aborted"
    assert [call.hook for call in extensions.stopped] == ["tool_call"]
    assert not (home.workdir / "made.txt").exists()


async def test_a_slow_hook_keeps_no_other_session_waiting(home: Home) -> None:
    release = anyio.Event()

    async def wait_for_slow(call: HookCall) -> HookOutcome:
        if call.payload["text"] == "slow":
            await release.wait()
        return HookOutcome()

    async with daemon_with(RecordingExtensions(["input"], wait_for_slow), home) as peer:
        slow = await peer.start("slow")
        await peer.ok("new_session")
        assert ended(await peer.run("quick"))["status"] == "completed"
        release.set()
        assert ended(await peer.run_events(slow))["status"] == "completed"


@pytest.mark.parametrize("is_manual", [True, False])
async def test_a_compaction_can_be_cancelled(home: Home, is_manual: bool) -> None:
    small = {"compact_keep_tokens": 1, "compact_at_tokens": 0 if is_manual else 1}
    extensions = answering(before_compact=HookOutcome(block="keep it all"))
    async with daemon_with(extensions, home, Setup(config={"engine": small})) as peer:
        assert ended(await peer.run("hello"))["status"] == "completed"
        if is_manual:
            answer = await peer.command("compact_session")
            assert (answer.code, answer.cause) == ("policy_blocked", "keep it all")
    assert [call.payload["trigger"] for call in extensions.asked] == ["manual" if is_manual else "threshold"]
    assert not [line for line in home.session_lines() if b'"type":"compaction"' in line]


async def test_a_session_is_not_left_or_forked_against_an_extension(home: Home) -> None:
    warning = HookWarning(code="extension_error", message="It broke.", extension="other")
    no = HookOutcome(block="unsaved work", warnings=(warning,))
    extensions = answering(session_before_switch=no, session_before_fork=no)
    async with daemon_with(extensions, home) as peer:
        await peer.run("hello")
        session_id = (await peer.ok("get_state"))["session_id"]
        for kind, payload in (
            ("new_session", {}),
            ("switch_session", {"session_id": session_id}),
            ("branch_session", {"session_id": session_id}),
        ):
            answer = await peer.command(kind, payload)
            assert (answer.code, answer.cause) == ("policy_blocked", "unsaved work")
            await peer.events_until("warning", extension="other")
        assert (await peer.ok("get_state"))["session_id"] == session_id
    assert [call.payload.get("reason") for call in extensions.asked] == ["new", "switch", None]
    assert len(list((home.state / "sessions").glob("*.ndjson"))) == 1


@pytest.mark.behaviour("P4.18")
async def test_a_command_of_an_extension(home: Home) -> None:
    extensions = RecordingExtensions(["input"])
    extensions.commands["greet"] = lambda payload: {"said": f"hello {payload['name']}"}
    async with daemon_with(extensions, home) as peer:
        answer = await peer.ok("extension_command", {"name": "greet", "payload": {"name": "you"}})
        assert answer == {"said": "hello you", "result": {"said": "hello you"}}
        assert (await peer.command("extension_command", {"name": "unknown"})).code == "command_rejected"
        assert (await peer.ok("get_state"))["extensions"] == [
            {"name": "guard", "version": "1", "state": "up", "restarts": 0, "late_answers": 0}
        ]


class Echo:
    """A tool as an extension brings it."""

    name = "echo"
    description = "Says it again."
    source = "extension:guard"

    def __init__(self) -> None:
        self.schema: dict[str, Any] = {"type": "object"}

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        await context.progress("half ")
        return ToolResult(text=json.dumps(arguments))


async def test_tools_come_and_go_with_their_extension(home: Home) -> None:
    call = {"tool_call": {"name": "echo", "arguments": {"a": 1}}}
    extensions = RecordingExtensions(["input"])
    async with daemon_with(extensions, home, Setup(script=[[call], [{"text": "x"}], [call], [{"text": "y"}]])) as peer:
        await peer.ok("ping")
        assert extensions.listener is not None
        extensions.listener.tools_changed("guard", [Echo()])
        assert "echo" in (await peer.ok("get_state"))["active_tools"]
        (end,) = payloads(await peer.run("go"), "tool_execution_end")
        assert (end["is_error"], end["result"]) == (False, '{"a": 1}')
        extensions.listener.tools_changed("other", [Echo()])
        extensions.listener.tools_changed("guard", [])
        assert "echo" not in (await peer.ok("get_state"))["active_tools"]
        gone = (await peer.events_until("status", code="extension_tools_gone"))[-1].payload
        assert gone["message"] == "The extension has these tools no longer: echo."
        assert gone["extension"] == "guard"
        (end,) = payloads(await peer.run("go"), "tool_execution_end")
        assert end["is_error"] is True


async def test_a_run_waits_until_the_extensions_are_up(home: Home) -> None:
    extensions = RecordingExtensions(["input"])
    extensions.is_ready = anyio.Event()
    async with daemon_with(extensions, home) as peer:
        asked = await peer.ask("prompt", {"text": "hello", "wait": False})
        await peer.ok("ping")
        assert extensions.asked == []
        extensions.is_ready.set()
        assert (await peer.answer(asked)).payload["run_id"]
        await peer.events_until("agent_end")
    assert [call.hook for call in extensions.asked] == ["input"]


class Vanishing(Echo):
    """A tool whose extension comes back without it while the tool is being called."""

    name = "vanishing"

    def __init__(self, extensions: RecordingExtensions) -> None:
        super().__init__()
        self._extensions = extensions

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        assert self._extensions.listener is not None
        self._extensions.listener.tools_changed("guard", [])
        return ToolResult(text="gone")


async def test_a_run_goes_on_without_a_tool_that_its_extension_has_no_longer(home: Home) -> None:
    call = {"tool_call": {"name": "vanishing", "arguments": {}}}
    extensions = RecordingExtensions(["input"])
    async with daemon_with(extensions, home, Setup(script=[[call], [call], [{"text": "Done."}]])) as peer:
        await peer.ok("ping")
        assert extensions.listener is not None
        extensions.listener.tools_changed("guard", [Vanishing(extensions)])
        events = await peer.run("go")
    assert ended(events)["status"] == "completed"
    first, second = payloads(events, "tool_execution_end")
    assert (first["result"], first["is_error"]) == ("gone", False)
    assert (second["result"], second["is_error"]) == ("There is no tool named 'vanishing'.", True)
