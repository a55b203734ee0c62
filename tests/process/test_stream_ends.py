"""A real daemon and answers that end badly, in every dialect: what is shown came, and ``completed`` means all of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.gates import chat_setup
from tests.support.harness import open_process
from tests.support.home import ONE_TRY, Home, Setup
from tests.support.lines import Line, of_type
from tests.support.sse_server import Reply, Wire, answers, cuts, resets, serve, streams, trickles
from tests.support.vendor_streams import recording, stream_of

pytestmark = pytest.mark.anyio

VENDORS = ["openai", "openai-responses", "anthropic", "gemini"]
TEXT = "Hello, \xfcber \U0001f600!"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def setup_of(vendor: str, url: str, **more: Any) -> Setup:
    key = {"anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}.get(vendor, "OPENAI_API_KEY")
    setup = chat_setup(url)
    environ = {**setup.environ, key: "sk-example-0123456789"}
    return replace(setup, provider=vendor, environ=environ, config={**ONE_TRY, **more})


def shown(run: list[Line]) -> str:
    return "".join(event.payload["delta"] for event in of_type(run, "message_update"))


@pytest.mark.parametrize("vendor", VENDORS)
async def test_only_a_whole_answer_is_complete(home: Home, vendor: str) -> None:
    """The same recorded answer: slow, cut, reset before and behind its reason, with garbage in it, and whole."""
    whole = recording(vendor, "text").replace(b"\r\n", b"\n")
    events = whole.split(b"\n\n")
    ends = sum(event != b"" for event in events)
    assert ends > 3
    half = b"\n\n".join(events[: ends // 2]) + b"\n\n"
    # Up to the event before the one that ends the answer, whose reason may stand there already.
    unmarked = b"\n\n".join(events[: ends - 1]) + b"\n\n"
    broken: dict[str, Reply] = {
        "ended early": streams(half),
        "cut": cuts(half),
        "within an event": cuts(half + events[ends // 2][:-4], framing="close"),
        "reset": resets(half),
        "reset before the mark of the end": resets(unmarked),
        "garbage": streams(half + b"data: \x00\xff{garbage\n\n" + whole[len(half) :]),
        "another answer": streams(b"<html>It works!</html>"),
        "nothing": streams(b""),
    }
    async with (
        serve(*broken.values(), trickles(whole, 1), streams(whole)) as server,
        open_process(home, setup_of(vendor, server.url)) as (peer, _),
    ):
        for name in broken:
            run = await peer.run("hello")
            assert run[-1].payload["status"] == "failed", name
            assert TEXT.startswith(shown(run)), name
            assert of_type(run, "error")[0].payload["code"] in ("provider_unavailable", "provider_error"), name
        for _ in range(2):
            run = await peer.run("hello")
            assert (run[-1].payload["status"], shown(run)) == ("completed", TEXT)
    assert len(server.exchanges) == len(broken) + 2


# -- a conversation with tool calls, and requests that offer no tools


def tool_call_of(vendor: str) -> bytes:
    """Return an answer that calls ``ls``."""
    if vendor == "anthropic":
        block = {"type": "tool_use", "id": "toolu_1", "name": "ls", "input": {"path": "."}}
        reason = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}
        start = {"type": "content_block_start", "index": 0, "content_block": block}
        return stream_of(start, {"type": "content_block_stop", "index": 0}, reason, {"type": "message_stop"})
    if vendor == "gemini":
        part = {"functionCall": {"name": "ls", "args": {"path": "."}}}
        return stream_of({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]})
    if vendor == "openai-responses":
        item = {"type": "function_call", "id": "fc", "call_id": "call_1", "name": "ls", "arguments": '{"path": "."}'}
        return stream_of(
            {"type": "response.output_item.done", "item": item}, {"type": "response.completed", "response": {}}
        )
    call = {"index": 0, "id": "call_1", "function": {"name": "ls", "arguments": '{"path": "."}'}}
    return stream_of({"choices": [{"delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}, "[DONE]")


REFUSED = b'{"error":{"message":"The toolConfig field must be defined when using toolUse and toolResult blocks."}}'
TOOL_BLOCKS = (b'"tool_use"', b'"tool_calls"', b'"functionCall"', b'"function_call"')


def strictly(data: bytes) -> Reply:
    """Answer with ``data``, or refuse as Amazon Bedrock does: tool calls in a request that offers no tools."""

    async def reply(wire: Wire) -> None:
        body = wire.exchange.body
        has_calls = any(word in body for word in TOOL_BLOCKS)
        refuses = has_calls and not json.loads(body).get("tools")
        await (answers(400, REFUSED) if refuses else streams(data))(wire)

    return reply


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_conversation_with_tool_calls_is_summed_up_where_no_tools_are_offered(home: Home, vendor: str) -> None:
    whole = strictly(recording(vendor, "text"))
    (home.workdir / "marked.txt").write_text("x")
    replies = [strictly(tool_call_of(vendor)), *[whole] * 4]
    engine = {"compact_keep_tokens": 1}
    async with (
        serve(*replies) as server,
        open_process(home, setup_of(vendor, server.url, engine=engine)) as (peer, _),
    ):
        for _ in range(2):
            assert (await peer.run("hello"))[-1].payload["status"] == "completed"
        assert (await peer.ok("compact_session"))["summary"] == TEXT
        await peer.ok("set_active_tools", {"tools": []})
        assert (await peer.run("hello"))[-1].payload["status"] == "completed"
    with_tools, summary = server.exchanges[2].body, server.exchanges[3].body
    assert any(word in with_tools for word in TOOL_BLOCKS)
    assert "tools" not in json.loads(summary)
    assert b"[tool call: ls {" in summary
    assert b"[result of ls]" in summary
    assert b"marked.txt" in summary
