"""A real daemon and a provider that refuses an image: what is asked after that, over restarts, and in a replay."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from nous.replay.run_many import replay_one
from nous.store.left_out import ONE_LEFT_OUT
from nous.system.threads import run_in_thread
from tests.support.gates import chat, chat_setup
from tests.support.harness import open_process
from tests.support.home import Home
from tests.support.lines import of_type
from tests.support.pictures import png
from tests.support.sse_server import Server, answers, serve, streams

pytestmark = pytest.mark.anyio

IMAGE = {"mime_type": "image/png", "data": base64.b64encode(png(3, 4)).decode()}
OTHER = {"mime_type": "image/png", "data": base64.b64encode(png(5, 6)).decode()}
REFUSED = answers(
    400,
    json.dumps({"error": {"message": "You uploaded an unsupported image.", "code": "invalid_image_format"}}).encode(),
)


def asked(server: Server, number: int) -> list[Any]:
    """Return what the users of request ``number`` said: texts, and the data of images."""
    said: list[Any] = []
    for message in json.loads(server.exchanges[number].body)["messages"]:
        if message["role"] == "user":
            content = message["content"]
            parts: list[Any] = [{"text": content}] if isinstance(content, str) else content
            said += [part.get("text") or part["image_url"]["url"].rpartition(",")[2] for part in parts]
    return said


async def test_a_refused_image_is_left_out_from_then_on(tmp_path: Any) -> None:
    home = Home(tmp_path)
    look = f"look\n{ONE_LEFT_OUT}"
    replies = (REFUSED, *(streams(*chat(text)) for text in ("none here", "still none", "I see", "bye")))
    async with serve(*replies) as server:
        async with open_process(home, chat_setup(server.url)) as (peer, _):
            run = await peer.run("look", images=[IMAGE])
            [warning] = of_type(run, "warning")
            session_id = (await peer.ok("get_state"))["session_id"]
            [question, answer] = (await peer.ok("get_messages"))["messages"]
            assert (warning.payload["code"], warning.payload["message_ids"]) == ("images_left_out", [question["id"]])
            assert "unsupported image" in warning.payload["cause"]
            assert run[-1].payload["status"] == "completed"
            assert answer["images_left_out"] == [question["id"]]
            assert question["blocks"][1] == {"type": "image", **IMAGE}
            assert [asked(server, n) for n in (0, 1)] == [[IMAGE["data"], "look"], [look]]
            await peer.run("are you there?")
            assert asked(server, 2) == [look, "are you there?"]
        async with open_process(home, chat_setup(server.url)) as (peer, _):
            again = {"session_id": session_id, "wait": True}
            await peer.ok("prompt", {"text": "and this?", "images": [OTHER], **again})
            assert asked(server, 3) == [look, "are you there?", OTHER["data"], "and this?"]
            await peer.ok("prompt", {"text": "bye", **again})
            assert asked(server, 4) == [look, "are you there?", OTHER["data"], "and this?", "bye"]
        assert len(server.exchanges) == 5
    traces = sorted((home.state / "traces").glob("*.ndjson"))
    assert [replay_one(path, "engine").verdict for path in traces] == ["identical"] * 4
    refused = [path for path in traces if b'"refused_images"' in path.read_bytes()]
    assert len(refused) == 1
    assert (await run_in_thread(replay_one, refused[0], "daemon")).verdict == "identical"


async def test_a_provider_that_refuses_every_image_is_asked_at_most_three_times(tmp_path: Any) -> None:
    home = Home(tmp_path)
    async with (
        serve(streams(*chat("I see")), REFUSED, REFUSED, REFUSED) as server,
        open_process(home, chat_setup(server.url)) as (peer, _),
    ):
        await peer.run("look", images=[IMAGE])
        run = await peer.run("and this?", images=[OTHER])
        assert [w.payload["code"] for w in of_type(run, "warning")] == ["images_left_out"] * 2
        assert of_type(run, "error")[0].payload["code"] == "provider_error"
        assert run[-1].payload["status"] == "failed"
        assert asked(server, 2) == [IMAGE["data"], "look", f"and this?\n{ONE_LEFT_OUT}"]
        assert asked(server, 3) == [f"look\n{ONE_LEFT_OUT}", f"and this?\n{ONE_LEFT_OUT}"]
