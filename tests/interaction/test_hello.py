"""``hello``: what a connection learns about the daemon, and what it may ask for."""

from __future__ import annotations

import pytest

from nous import __version__
from nous.protocol.commands import COMMANDS
from nous.protocol.schema import schema_digest
from tests.support.harness import OpenPeer
from tests.support.home import Setup
from tests.support.lines import joined_deltas, types

pytestmark = pytest.mark.anyio

THINKS_AND_CALLS = [
    {"thinking": {"text": ["Let me ", "see"]}},
    {"text": "Reading."},
    {"tool_call": {"name": "ls", "arguments": {"path": "."}, "id": "call-a", "fragments": 3}},
]
SCRIPT = [THINKS_AND_CALLS, [{"text": "Done."}]]


@pytest.mark.behaviour("P6.1")
async def test_what_hello_answers(nous: OpenPeer) -> None:
    async with nous(Setup(flags=("--max-line-bytes", "70000", "--command-timeout", "7s"))) as peer:
        client = {"name": "a test", "version": "1"}
        hello = await peer.ok("hello", {"client": client, "features": ["events", "telepathy", "thinking"]})
        assert (hello["server"], hello["version"], hello["protocol"]) == ("nous", __version__, "1")
        assert hello["features"] == ["events", "thinking"]
        # Every command of the protocol is carried out.
        assert hello["commands"] == sorted(COMMANDS)
        assert hello["limits"] == {
            "max_line_bytes": 70000,
            "max_event_bytes": 1 << 20,
            "max_message_bytes": 32 << 20,
            "max_runs": 64,
            "abort_grace_ms": 2000,
            "command_timeout_ms": 7000,
        }
        assert hello["schema_digest"] == schema_digest()
        assert hello["epoch"] == (await peer.ok("get_state"))["epoch"]


@pytest.mark.behaviour("P6.1")
async def test_hello_is_not_needed_and_may_be_empty(nous: OpenPeer) -> None:
    async with nous() as peer:
        assert (await peer.ok("hello"))["features"] == []


@pytest.mark.behaviour("P2.5")
@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b'{"id":"a","type":"ping","payload":{"loud":true}}', "loud"),
        (b'{"id":"a","type":"ping","mood":"good"}', "mood"),
    ],
)
async def test_strict_refuses_unknown_fields_by_name(nous: OpenPeer, line: bytes, name: str) -> None:
    async with nous() as peer:
        await peer.ok("hello", {"strict": True})
        await peer.send_line(line)
        answer = await peer.answer("a")
        assert answer.code == "invalid_payload"
        assert name in answer.cause
        await peer.send_line(b'{"v":"1","id":"b","type":"ping","payload":{},"ts":"now","meta":{}}')
        assert (await peer.answer("b")).type == "pong"


@pytest.mark.behaviour("P2.5")
async def test_strict_counts_from_the_line_after_hello_and_can_be_left_again(nous: OpenPeer) -> None:
    unknown = b'{"id":"%b","type":"ping","payload":{"loud":true}}\n'
    hello = b'{"id":"%b","type":"hello","payload":{"strict":%b}}\n'
    async with nous() as peer:
        # One write: what is decoded must not run ahead of what was asked for.
        await peer.send(unknown % b"1" + hello % (b"h", b"true") + unknown % b"2" + hello % (b"i", b"false"))
        await peer.send(unknown % b"3")
        assert [(await peer.answer(x)).code for x in ("1", "2", "3")] == ["", "invalid_payload", ""]


@pytest.mark.behaviour("P4.23")
async def test_hello_may_say_that_prompts_do_not_wait(nous: OpenPeer) -> None:
    async with nous() as peer:
        assert (await peer.command("prompt", {"text": "hi"})).type == "result"
        await peer.ok("hello", {"prompt_wait": False, "features": ["events"]})
        assert (await peer.command("prompt", {"text": "hi"})).type == "accepted"
        await peer.events_until("agent_end")
        await peer.events_until("agent_end")
        assert (await peer.command("prompt", {"text": "hi", "wait": True})).type == "result"


@pytest.mark.behaviour("P2.10", "P2.11", "P5.16")
async def test_feature_events_come_only_to_those_who_asked(nous: OpenPeer) -> None:
    async with nous(Setup(script=[*SCRIPT, *SCRIPT])) as peer:
        plain = await peer.run("look")
        assert not {"thinking_update", "tool_arguments_update"} & set(types(plain))
        await peer.ok("hello", {"features": ["events", "thinking", "tool_arguments"]})
        full = await peer.run("look")
        assert joined_deltas(full, "thinking_update") == "Let me see"
        assert joined_deltas(full, "tool_arguments_update") == '{"path":"."}'
        assert [line.data["seq"] for line in full if "seq" in line.data] == [line.data["seq"] for line in plain]


@pytest.mark.behaviour("P2.10", "P5.16")
async def test_feature_events_stand_after_a_seq_and_count_within_it(nous: OpenPeer) -> None:
    async with nous(Setup(script=SCRIPT)) as peer:
        await peer.ok("hello", {"features": ["events", "thinking", "tool_arguments"]})
        run = await peer.run("look")
        last_seq, k = 0, 0
        for line in run:
            if "seq" in line.data:
                last_seq, k = line.data["seq"], 0
            else:
                k += 1
                assert (line.data["after_seq"], line.id) == (last_seq, f"{line.run_id}.{last_seq}.{k}")
        arguments = [line for line in run if line.type == "tool_arguments_update"]
        assert {line.payload["tool_call_id"] for line in arguments} == {"call-a"}
        [message_id] = {line.payload["message_id"] for line in arguments}
        assert any(line.type == "message_end" and line.payload["message_id"] == message_id for line in run)


@pytest.mark.behaviour("P2.11", "P5.16")
async def test_one_feature_does_not_bring_the_other(nous: OpenPeer) -> None:
    async with nous(Setup(script=SCRIPT)) as peer:
        await peer.ok("hello", {"features": ["events", "tool_arguments"]})
        kinds = types(await peer.run("look"))
        assert "tool_arguments_update" in kinds
        assert "thinking_update" not in kinds
