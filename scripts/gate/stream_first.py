"""A1: the stream is the interface; a sync prompt is the same run with its end waited for."""

from __future__ import annotations

from typing import Any

from nous.client import CommandError
from scripts.gate.checks import Place, Table, expect, stream

ROUND = [
    [{"text": "I will look. "}, {"tool_call": {"name": "read", "arguments": {"path": "a.txt"}, "id": "call_a"}}],
    [{"text": ["It says ", "hello."]}],
]


def run_shape(events: list[dict[str, Any]], run_id: str) -> list[dict[str, Any]]:
    """Return events without what differs from run to run: times, and ids, which begin with the run's."""
    return [without_names(event, run_id) for event in events]


def without_names(value: Any, run_id: str) -> Any:
    if isinstance(value, dict):
        skipped = ("ts", "command_id", "session_id", "created_at", "leaf_id", "parent_id", "duration_ms")
        return {key: without_names(item, run_id) for key, item in value.items() if key not in skipped}
    if isinstance(value, list):
        return [without_names(item, run_id) for item in value]
    return value.replace(run_id, "RUN") if isinstance(value, str) else value


def flat(event: Any) -> dict[str, Any]:
    return {"type": event.type, "seq": event.seq, **event.payload}


async def answer_is_the_stream(place: Place) -> str:
    """Everything in a sync answer stands in the events; nothing happens only there."""
    (place.workdir / "a.txt").write_text("hello\n", encoding="utf-8")
    async with place.daemon(ROUND) as client:
        pending = client.start("prompt", {"text": "go", "wait": True})
        events = []
        async for event in client.events():
            events.append(event)
            if event.type == "agent_end":
                break
        answer = (await pending.answer()).payload
    streamed = [event for event in events if event.run_id == answer["run_id"] and event.seq is not None]
    kinds = [event["type"] for event in answer["events"]]
    expect(kinds == [event.type for event in streamed], f"the answer's events are {kinds}")
    ends = [event for event in streamed if event.type == "message_end" and event.payload.get("role") == "assistant"]
    expect(
        answer["output"] in {ends[-1].payload.get("text"), "".join(deltas(streamed))}, f"output {answer['output']!r}"
    )
    expect(answer["leaf_id"] == streamed[-1].payload["leaf_id"], "leaf_id is not that of agent_end")
    return f"{len(kinds)} events, the same in both; output and leaf_id stand in them"


def deltas(events: list[Any]) -> list[str]:
    """Return the text deltas of the last message."""
    starts = [n for n, event in enumerate(events) if event.type == "message_start"]
    return [e.payload["delta"] for e in events[starts[-1] :] if e.type == "message_update"]


async def sync_and_stream_run_alike(place: Place) -> str:
    """The same prompt, waited for and not: the same run, event for event, and the same session."""
    (place.workdir / "a.txt").write_text("hello\n", encoding="utf-8")
    async with place.daemon([*ROUND, *ROUND]) as client:
        waited = await client.call("prompt", text="go", wait=True)
        told = await client.call("get_events", run_id=waited["run_id"])
        await client.call("new_session")
        streamed = await stream(client, "go")
    one = run_shape([{"type": e["type"], "seq": e["seq"], **e["payload"]} for e in told["events"]], waited["run_id"])
    two = run_shape([flat(event) for event in streamed], streamed[0].run_id)
    difference = next((pair for pair in zip(one, two, strict=False) if pair[0] != pair[1]), None)
    expect(len(one) == len(two) and difference is None, f"{len(one)} and {len(two)} events; first {difference}")
    return f"{len(one)} events alike"


async def failure_is_streamed(place: Place) -> str:
    """A run that fails says so on the stream, with the code that a sync answer has."""
    broken = [{"text": "Half"}, {"error": {"status": 401}}]
    async with place.daemon([broken, broken]) as client:
        streamed = await stream(client, "go")
        code = ""
        try:
            await client.call("prompt", text="go", wait=True)
        except CommandError as error:
            code = error.code
    said = [event.payload["code"] for event in streamed if event.type == "error"]
    expect(said == [code] and code == "provider_auth", f"streamed {said}, answered {code!r}")
    expect(streamed[-1].payload["status"] == "failed", streamed[-1].payload)
    return f"{code} in both"


CHECKS: Table = {
    "A1.1": ("everything in a sync answer stands in the stream", answer_is_the_stream),
    "A1.2": ("sync and async prompts are the same run", sync_and_stream_run_alike),
    "A1.3": ("a failure is told on the stream", failure_is_streamed),
}
