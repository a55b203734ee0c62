"""Write protocol/v1/examples anew: one story, told to a real daemon; every line is what was really said.

    python scripts/make_examples.py [DIRECTORY]

``commands.ndjson`` holds the lines a client sent, ``responses.ndjson`` the answers, ``events.ndjson`` the events, each
in the order they came.  Ids, times and pids are those of that one run, so a new run changes them all; run it after a
change of the protocol.  A test checks the examples against the schemas, and that no type is missing.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from nous.client import Client, Event, Response
from nous.client.lines import encode_command

EXAMPLES: Final = Path(__file__).resolve().parent.parent / "protocol" / "v1" / "examples"

DOT: Final = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"

SCRIPT: Final[list[Any]] = [
    # A turn with everything in it: thinking, text, a tool that succeeds, one that streams, one that does not exist.
    [
        {"thinking": {"text": ["The list ", "is in a file."]}},
        {"text": ["I will look ", "at the list."]},
        {"tool_call": {"name": "read", "arguments": {"path": "shopping.txt"}, "fragments": 2}},
        {"tool_call": {"name": "bash", "arguments": {"command": "wc -l < shopping.txt"}}},
        {"tool_call": {"name": "fly", "arguments": {}}},
        {"usage": {"input_tokens": 410, "output_tokens": 38, "reasoning_tokens": 9}},
    ],
    [{"text": ["Three things: ", "bread, milk and apples."]}, {"usage": {"input_tokens": 470, "output_tokens": 14}}],
    # One that is aborted, one that fails.
    [{"text": "Let me think"}, {"hang": True}],
    [{"text": "Half an"}, {"error": {"status": 401, "cause": "the key has expired"}}],
    # One whose answer has to fit a schema.
    [{"text": ['{"items": ["bread", ', '"milk", "apples"]}']}],
    # One with an image that is refused.
    [{"error": {"status": 400, "cause": "HTTP 400: Could not process image", "image_refused": True}}],
    [{"text": "I cannot see it."}],
    # One that is cut by the token limit, its call too; then one that ends for a reason that nous does not know.
    [
        {"text": "I will count"},
        {"tool_call": {"name": "read", "arguments": '{"path": "shop'}},
        {"usage": {"input_tokens": 520, "output_tokens": 16}},
        {"finish": "length"},
    ],
    [{"text": "Wait a moment."}, {"finish": {"other": "pause_turn"}}],
]


class Story:
    """Sends commands, and keeps every line of both directions."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.commands: list[bytes] = []
        self.responses: list[bytes] = []
        self.events: list[bytes] = []

    async def say(self, kind: str, **payload: Any) -> Response:
        pending = self._client.start(kind, payload)
        self.commands.append(encode_command(pending.id, kind, payload).rstrip(b"\n"))
        return self._keep(await pending.answer())

    async def say_wrongly(self, line: bytes) -> None:
        """Send what is no command; its answer is kept, the line itself is no example."""
        self._client.send_line(line + b"\n")
        self._keep(await self._client.unmatched())

    async def hear(self, *, until: str) -> Event:
        """Keep events up to the next one of a type."""
        async for event in self._client.events():
            self.events.append(event.line)
            if event.type == until:
                return event
        raise RuntimeError(f"the daemon ended before {until}")

    async def hear_the_end(self) -> None:
        async for event in self._client.events():
            self.events.append(event.line)

    def _keep(self, response: Response) -> Response:
        self.responses.append(response.line)
        return response

    def write(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("commands", "responses", "events"):
            lines: list[bytes] = getattr(self, name)
            (directory / f"{name}.ndjson").write_bytes(b"".join(line + b"\n" for line in lines))


async def tell(story: Story) -> None:
    await greet(story)
    session_id = await run_with_tools(story)
    await run_and_abort(story)
    await run_and_fail(story)
    await look_around(story, session_id)
    await ask_for_what_may_be_missing(story, session_id)
    await ask_wrongly(story)
    await story.say("shutdown")
    await story.hear_the_end()


async def greet(story: Story) -> None:
    await story.say(
        "hello",
        client={"name": "example", "version": "1.0"},
        features=["thinking", "tool_arguments"],
        prompt_wait=False,
    )
    await story.say("ping")
    await story.say("list_tools")
    await story.say("list_models", provider="anthropic")
    await story.say("set_active_tools", tools=["read", "bash"])
    await story.say("set_steering_mode", mode="one-at-a-time")
    await story.say("set_follow_up_mode", mode="all")


async def run_with_tools(story: Story) -> str:
    accepted = await story.say("prompt", text="What is on my shopping list?")
    await story.hear(until="agent_end")
    session_id: str = accepted.payload["session_id"]
    return session_id


async def run_and_abort(story: Story) -> None:
    await story.say("prompt", text="And what is missing?")
    await story.hear(until="message_update")
    await story.say("steer", text="Only what one can drink.")
    await story.say("follow_up", text="Write it down.")
    await story.say("get_state")
    await story.say("abort")
    await story.hear(until="agent_end")


async def run_and_fail(story: Story) -> None:
    await story.say("prompt", text="Once more?")
    await story.hear(until="agent_end")
    shape = {"type": "object", "properties": {"items": {"type": "array"}}, "required": ["items"]}
    await story.say("prompt", text="As a list, please.", output_schema=shape)
    await story.hear(until="agent_end")
    await story.say("prompt", text="What is this?", images=[{"mime_type": "image/gif", "data": DOT}])
    await story.hear(until="agent_end")
    await story.say("prompt", text="How many are they?")
    await story.hear(until="agent_end")
    # The last call of the script is used up: the mock provider echoes, and this prompt waits for its result.
    await story.say("prompt", text="Thank you.", wait=True)
    await story.hear(until="agent_end")


async def look_around(story: Story, session_id: str) -> None:
    messages = await story.say("get_messages", session_id=session_id)
    await story.say("get_tree")
    leaf_id: str = messages.payload["messages"][0]["id"]
    await story.say("new_session")
    await story.say("branch_session", session_id=session_id, leaf_id=leaf_id)
    await story.say("switch_session", session_id=session_id)
    await story.say("set_leaf", leaf_id=leaf_id)
    await story.say("list_sessions", limit=2)
    await story.say("set_model", model="mock-large", thinking="high")


async def ask_for_what_may_be_missing(story: Story, session_id: str) -> None:
    """Commands that not every daemon has: one without them answers ``capability_unavailable``."""
    await story.say("compact_session", session_id=session_id, instruction="Keep the list.")
    await story.say("extension_command", name="weather", payload={"city": "Oslo"})
    runs = await story.say("list_runs", session_id=session_id)
    run_id = runs.payload["runs"][0]["run_id"] if runs.ok else run_id_of_first_event(story)
    await story.say("get_events", run_id=run_id, after_seq=10, limit=2)
    await story.say("export_trace", run_id=run_id, format="events")


def run_id_of_first_event(story: Story) -> str:
    run_ids = (msgspec.json.decode(line)["payload"].get("run_id") for line in story.events)
    return next(str(run_id) for run_id in run_ids if run_id)


async def ask_wrongly(story: Story) -> None:
    await story.say("abort")
    await story.say("switch_session", session_id="nowhere")
    await story.say_wrongly(b'{"id":"w1","type":"prompt","payload":{"text":7}}')
    await story.say_wrongly(b'{"id":"w2","type":"fly"}')
    await story.say_wrongly(b"hello?")


async def main(directory: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="nous-examples-") as name:
        place = Path(name)
        (place / "work").mkdir()
        (place / "work" / "shopping.txt").write_text("bread\nmilk\nthree apples\n", encoding="utf-8")
        (place / "script.ndjson").write_bytes(b"".join(msgspec.json.encode(call) + b"\n" for call in SCRIPT))
        arguments = ["--provider", "mock", "--script", str(place / "script.ndjson"), "--bootstrap"]
        arguments += ["--state-dir", str(place / "state"), "--workdir", str(place / "work")]
        environ = {"PATH": os.environ["PATH"], "HOME": name}
        with anyio.fail_after(120):
            async with Client.spawn(arguments=arguments, env=environ) as client:
                story = Story(client)
                await tell(story)
    story.write(directory)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLES)
