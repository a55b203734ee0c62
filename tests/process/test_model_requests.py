"""What a model is asked with, as its server sees it: the path as real messages, the same however it was prompted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nous.providers.history import MISSING_RESULT_TEXT
from tests.support.gates import Gate, chat, chat_setup
from tests.support.harness import Peer, open_process
from tests.support.home import Home, Setup
from tests.support.sse_server import Server, data_lines, serve, streams
from tests.support.vendor_streams import recording

pytestmark = pytest.mark.anyio

TOOL_STOP = data_lines('{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}', "[DONE]")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    (home.workdir / "a.txt").write_text("what it says\n", encoding="utf-8")
    return home


def tool_calls(*calls: tuple[str, str, dict[str, Any]]) -> list[bytes]:
    """Return an answer that calls tools: (id, name, arguments) each."""
    fragments = [
        {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
        for index, (call_id, name, given) in enumerate(calls)
    ]
    delta = {"choices": [{"index": 0, "delta": {"tool_calls": fragments}, "finish_reason": None}]}
    return [data_lines(json.dumps(delta)), TOOL_STOP]


def messages_of(server: Server, number: int) -> list[dict[str, Any]]:
    """Return the messages of the n-th request, without the system prompt."""
    messages = json.loads(server.exchanges[number].body)["messages"]
    return [message for message in messages if message["role"] != "system"]


async def converse(home: Home, *, wait: bool) -> list[bytes]:
    """Have the same conversation, with a tool round and a branch, and return the bodies of all requests."""
    read = tool_calls(("call_1", "read", {"path": "a.txt"}))
    answers = [streams(*parts) for parts in (read, chat("It says so."), chat("Again."), chat("Elsewhere."))]
    async with serve(*answers) as server, open_process(home, chat_setup(server.url)) as (peer, _):
        await say(peer, "read it", wait=wait)
        leaf_id = (await peer.ok("get_tree"))["leaf_id"]
        await say(peer, "go on", wait=wait)
        await say(peer, "the other way", wait=wait, leaf_id=leaf_id)
        return [exchange.body for exchange in server.exchanges]


async def say(peer: Peer, text: str, *, wait: bool, **payload: object) -> None:
    if wait:
        assert (await peer.ok("prompt", {"text": text, "wait": True, **payload}))["output"]
    else:
        assert (await peer.run(text, **payload))[-1].payload["status"] == "completed"


async def test_sync_and_async_prompts_send_byte_equal_requests(home: Home, tmp_path: Path) -> None:
    sync = await converse(home, wait=True)
    place = tmp_path / "other"
    place.mkdir()
    other = Home(place)
    # The system prompt names the workdir: only the state differs.
    other.workdir.rmdir()
    other.workdir = home.workdir
    assert await converse(other, wait=False) == sync
    assert len(sync) == 4


async def test_the_path_goes_out_as_messages_with_calls_and_results(home: Home) -> None:
    calls = tool_calls(("call_1", "read", {"path": "a.txt"}), ("call_2", "read", {"path": "missing.txt"}))
    answers = (streams(*calls), streams(*chat("Done.")))
    async with serve(*answers) as server, open_process(home, chat_setup(server.url)) as (peer, _):
        await peer.run("read both")
        asked = messages_of(server, 1)
    assert [message["role"] for message in asked] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in asked[1]["tool_calls"]] == ["call_1", "call_2"]
    assert [message["tool_call_id"] for message in asked[2:]] == ["call_1", "call_2"]
    assert "what it says" in asked[2]["content"]


async def test_a_call_whose_tool_died_with_its_daemon_is_repaired_the_same_each_time(home: Home) -> None:
    """The session ends with a call; every request after it has a result for it, in the same bytes."""
    with Gate(home.workdir) as gate:
        begun = tool_calls(("call_1", "bash", {"command": gate.command}))
        async with serve(streams(*begun), streams(*chat("Well.")), streams(*chat("Well."))) as server:
            setup = chat_setup(server.url)
            async with open_process(home, setup) as (peer, process):
                await peer.start("wait")
                await peer.events_until("tool_execution_update")
                session_id = (await peer.ok("get_state"))["session_id"]
                process.process.kill()
                await process.process.wait()
            for _ in range(2):
                async with open_process(home, setup) as (peer, _):
                    tree = await peer.ok("get_tree", {"session_id": session_id})
                    called = [node["id"] for node in tree["nodes"]][1]
                    await peer.run("and now?", session_id=session_id, leaf_id=called)
            first, second = messages_of(server, 1), messages_of(server, 2)
    assert [message["role"] for message in first] == ["user", "assistant", "tool", "user"]
    assert first[2]["tool_call_id"] == "call_1"
    assert first[2]["content"] == MISSING_RESULT_TEXT
    assert first == second
    assert server.exchanges[1].body == server.exchanges[2].body


async def test_thinking_goes_back_to_its_model_in_the_order_it_came(home: Home) -> None:
    replies = [streams(recording("anthropic", name)) for name in ("interleaved", "text", "text")]
    async with serve(*replies) as server:
        setup = Setup(provider="anthropic", flags=("--model", "m", "--api-base", server.url))
        async with open_process(home, setup) as (peer, _):
            await say(peer, "think twice", wait=True)
            await say(peer, "and now?", wait=True)
            await say(peer, "and another?", wait=True, model="n")
        said = [body["messages"][1]["content"] for body in (json.loads(e.body) for e in server.exchanges[1:])]
    spoken = [{"type": "text", "text": "First."}, {"type": "text", "text": "Second."}]
    thought = [
        {"type": "thinking", "thinking": "One.", "signature": "c2lnMQ=="},
        {"type": "thinking", "thinking": "Two.", "signature": "c2lnMg=="},
    ]
    assert said == [[thought[0], spoken[0], thought[1], spoken[1]], spoken]
