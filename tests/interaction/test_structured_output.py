"""Structured output: one call, one answer, checked; and what the run says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.gates import chat, chat_setup
from tests.support.harness import OpenPeer
from tests.support.home import Home, Setup
from tests.support.lines import Line
from tests.support.sse_server import serve, streams

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}},
    "required": ["sum"],
    "additionalProperties": False,
}


def last(events: list[Line], kind: str) -> dict[str, Any]:
    return [line.payload for line in events if line.type == kind][-1]


@pytest.mark.behaviour("P4.42")
async def test_the_value_stands_in_agent_end(nous: OpenPeer) -> None:
    async with nous(Setup(script=[[{"text": ['{"sum"', ":\n 4}"]}]])) as peer:
        events = await peer.run("2 + 2?", output_schema=SCHEMA)
        assert (events[-1].payload["status"], events[-1].payload["output"]) == ("completed", {"sum": 4})
        assert last(events, "message_end")["text"] == '{"sum":\n 4}'


@pytest.mark.behaviour("P4.42", "P8.14")
@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('```json\n{"sum": 4}\n```', "$: not JSON: Expecting value (character 0)"),
        ('{"sum": "four"}', '$.sum: breaks properties/sum/type ("integer") of the schema'),
    ],
)
async def test_what_does_not_fit_fails_after_one_call(nous: OpenPeer, text: str, cause: str) -> None:
    async with serve(streams(*chat(text))) as server, nous(chat_setup(server.url)) as peer:
        events = await peer.run("2 + 2?", output_schema=SCHEMA)
        error = last(events, "error")
        assert (error["code"], error["category"], error["cause"]) == ("output_invalid", "verification_failed", cause)
        assert (events[-1].payload["status"], "output" in events[-1].payload) == ("failed", False)
        assert len(server.exchanges) == 1


@pytest.mark.behaviour("P4.42")
async def test_a_waiting_prompt_is_told_what_does_not_fit(nous: OpenPeer) -> None:
    async with nous(Setup(script=[[{"text": "[]"}]])) as peer:
        answer = await peer.command("prompt", {"text": "2 + 2?", "output_schema": SCHEMA})
        assert (answer.code, answer.cause) == ("output_invalid", '$: breaks type ("object") of the schema')


@pytest.mark.behaviour("P4.45")
async def test_tools_are_off_and_asking_for_one_is_a_failure(nous: OpenPeer) -> None:
    call = [{"tool_call": {"name": "ls", "arguments": {}}}]
    async with nous(Setup(script=[call])) as peer:
        events = await peer.run("2 + 2?", output_schema=SCHEMA)
        assert last(events, "error")["cause"] == "$: the model called the tool 'ls', and tools are off"
        assert not [line for line in events if line.type.startswith("tool_execution")]


@pytest.mark.behaviour("P4.45")
async def test_the_model_is_offered_the_schema_and_no_tools(nous: OpenPeer) -> None:
    async with (
        serve(streams(*chat('{"sum": 4}')), streams(*chat("four"))) as server,
        nous(chat_setup(server.url)) as peer,
    ):
        await peer.run("2 + 2?", output_schema=SCHEMA)
        await peer.run("in words")
        asked, plain = (json.loads(exchange.body) for exchange in server.exchanges)
        assert asked["response_format"]["json_schema"]["schema"] == SCHEMA
        assert ("tools" in asked, "tools" in plain, "response_format" in plain) == (False, True, False)


@pytest.mark.behaviour("P4.45")
async def test_tools_where_the_capability_is_on_and_the_trace_says_so(nous: OpenPeer, home: Home) -> None:
    script = [[{"tool_call": {"name": "ls", "arguments": {}}}], [{"text": '{"sum": 4}'}], [{"text": "four"}]]
    async with nous(Setup(script=script, config={"engine": {"structured_output_tools": True}})) as peer:
        structured = await peer.run("2 + 2?", output_schema=SCHEMA)
        plain = await peer.run("in words")
        assert structured[-1].payload["output"] == {"sum": 4}
        assert "tool_execution_end" in [line.type for line in structured]
    for events, capabilities in ((structured, ["structured_output_tools"]), (plain, [])):
        path = home.state / "traces" / f"{events[0].payload['run_id']}.ndjson"
        assert json.loads(path.read_bytes().split(b"\n")[0])["capabilities"] == capabilities


@pytest.mark.behaviour("P4.45")
async def test_nothing_can_be_queued(nous: OpenPeer) -> None:
    async with nous(Setup(script=[[{"text": "{"}, {"hang": True}]])) as peer:
        run_id = await peer.start("2 + 2?", output_schema=SCHEMA)
        await peer.events_until("message_update")
        for kind in ("steer", "follow_up"):
            assert await peer.refused(kind, {"text": "wait"}) == "command_rejected: structured_output"
        await peer.ok("abort")
        assert (await peer.run_events(run_id))[-1].payload["status"] == "aborted"


@pytest.mark.behaviour("P4.46")
async def test_a_schema_that_is_none_is_refused_before_anything_is_written(nous: OpenPeer, home: Home) -> None:
    async with nous() as peer:
        for schema, cause in (
            ({"type": "thing"}, "invalid_payload: output_schema: $.type: breaks "),
            ({"$ref": "https://example.org/x"}, "invalid_payload: output_schema: $ref: "),
        ):
            assert (await peer.refused("prompt", {"text": "x", "output_schema": schema})).startswith(cause)
        assert home.session_lines() == []
        assert [*(home.state / "traces").glob("*.ndjson")] == []
