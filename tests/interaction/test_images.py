"""Images: of prompts and of tool results, for models that see them; a refusal, or words, for those that do not."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.support.gates import chat, chat_setup
from tests.support.harness import OpenPeer
from tests.support.home import Home, Setup
from tests.support.pictures import png
from tests.support.sse_server import Server, data_lines, serve, streams

pytestmark = pytest.mark.anyio

PNG = base64.b64encode(png(3, 4)).decode()
IMAGE = {"mime_type": "image/png", "data": PNG}
SHOWN = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
READ = {"index": 0, "id": "c1", "function": {"name": "read", "arguments": '{"path":"a.png"}'}}
CALL = [
    data_lines(json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [READ]}, "finish_reason": "tool_calls"}]}))
]
BLIND = "deepseek-v4-pro"


def setup_for(server: Server, provider: str, model: str) -> Setup:
    return Setup(provider=provider, flags=("--model", model, "--api-base", server.url))


def messages_of(server: Server, number: int) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = json.loads(server.exchanges[number].body)["messages"]
    return messages[1:]


@pytest.mark.behaviour("P4.47")
async def test_an_image_goes_to_the_model_and_stays_in_the_conversation(nous: OpenPeer) -> None:
    async with serve(streams(*chat("a cat")), streams(*chat("black"))) as server, nous(chat_setup(server.url)) as peer:
        await peer.run("What is it?", images=[IMAGE])
        await peer.run("Which colour?")
        asked = {"role": "user", "content": [SHOWN, {"type": "text", "text": "What is it?"}]}
        assert messages_of(server, 0) == [asked]
        assert messages_of(server, 1)[0] == asked
        messages = (await peer.ok("get_messages"))["messages"]
        assert messages[0]["blocks"] == [{"type": "text", "text": "What is it?"}, {"type": "image", **IMAGE}]


@pytest.mark.behaviour("P4.47", "P8.19")
async def test_a_model_known_to_be_blind_refuses_before_anything_is_written(nous: OpenPeer, home: Home) -> None:
    async with serve() as server, nous(setup_for(server, "deepseek", BLIND)) as peer:
        refusal = f"capability_unavailable: images: the model {BLIND} takes none"
        assert await peer.refused("prompt", {"text": "What is it?", "images": [IMAGE]}) == refusal
        assert home.session_lines() == []
        assert [*(home.state / "traces").glob("*.ndjson")] == []


@pytest.mark.behaviour("P4.47")
async def test_a_conversation_with_images_is_refused_by_a_blind_model(nous: OpenPeer) -> None:
    async with nous(Setup(config={"providers": {"deepseek": {"api_base": "http://127.0.0.1:9"}}})) as peer:
        await peer.run("What is it?", images=[IMAGE])
        refusal = await peer.refused("prompt", {"text": "So?", "provider": "deepseek", "model": BLIND})
        assert (
            refusal == f"capability_unavailable: images: the conversation holds some, and the model {BLIND} takes none"
        )
        session_id = (await peer.ok("get_state"))["session_id"]
        assert len((await peer.ok("get_messages", {"session_id": session_id}))["messages"]) == 2


@pytest.mark.behaviour("P4.47")
async def test_what_is_no_image_is_refused(nous: OpenPeer, home: Home) -> None:
    async with nous() as peer:
        for image, cause in (
            ({"mime_type": "image/png", "data": "AAAA"}, "images[0]: data: not an image of the type image/png"),
            ({"mime_type": "text/html", "data": "AAAA"}, "images[0]: mime_type: only "),
        ):
            refusal = await peer.refused("prompt", {"text": "x", "images": [image]})
            assert refusal.startswith(f"invalid_payload: {cause}")
        assert home.session_lines() == []


@pytest.mark.behaviour("P4.47")
async def test_a_tools_image_is_shown_to_a_model_that_sees(nous: OpenPeer, home: Home) -> None:
    (home.workdir / "a.png").write_bytes(base64.b64decode(PNG))
    async with (
        serve(streams(*CALL), streams(*chat("a cat"))) as server,
        nous(setup_for(server, "openai", "gpt-5.4")) as peer,
    ):
        events = await peer.run("What is in a.png?")
        [result] = [line.payload["result"] for line in events if line.type == "tool_execution_end"]
        assert result == "[image/png, 3x4 pixels, 68 bytes]"
        *_, told, shown = messages_of(server, 1)
        assert (told["role"], told["content"]) == ("tool", result)
        assert SHOWN in shown["content"]


@pytest.mark.behaviour("P4.47")
async def test_a_tools_image_is_only_described_to_one_that_may_not(nous: OpenPeer, home: Home) -> None:
    (home.workdir / "a.png").write_bytes(base64.b64decode(PNG))
    for provider, model in (("deepseek", BLIND), ("openai", "unheard-of")):
        async with (
            serve(streams(*CALL), streams(*chat("no idea"))) as server,
            nous(setup_for(server, provider, model)) as peer,
        ):
            await peer.run("What is in a.png?")
            assert messages_of(server, 1)[-1]["content"] == "[image/png, 3x4 pixels, 68 bytes: an image, not shown]"


@pytest.mark.parametrize("kind", ["steer", "follow_up"])
async def test_only_a_prompt_carries_images(nous: OpenPeer, kind: str) -> None:
    async with nous(Setup(script=[[{"text": "Hello"}, {"hang": True}]])) as peer:
        await peer.start("hello")
        answer = await peer.command(kind, {"text": "look", "images": [IMAGE]})
        assert (answer.code, answer.cause) == ("invalid_payload", f"images: a {kind} carries none")
        await peer.ok("abort")
