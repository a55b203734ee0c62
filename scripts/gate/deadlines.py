"""B2: tools and hooks have deadlines, and the runtime answers meanwhile."""

from __future__ import annotations

import os
from typing import Any, Final

import anyio

from nous.client import Event
from scripts.gate.checks import Place, Table, answered_within, expect, stream

PING_SECONDS: Final = 1.0
GONE_SECONDS: Final = 10.0
"""The daemon kills two seconds after it asked; the rest is for a busy machine."""


async def run_while_pinging(client: Any, text: str) -> tuple[list[Event], int]:
    """Run a prompt to its end while pings are answered; return its events and how many pings were."""
    done = anyio.Event()
    events: list[Event] = []
    counts: list[int] = []

    async def ping() -> None:
        counts.append(await answered_within(client, PING_SECONDS, done))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ping)
        events += await stream(client, text)
        done.set()
    return events, counts[0]


async def tool_deadline(place: Place) -> str:
    """A tool that never ends is ended at its deadline; the run goes on, and pings were answered."""
    sleeps = {"name": "bash", "arguments": {"command": "sleep 600 & echo $! > pid; wait", "timeout_ms": 700}}
    async with place.daemon([[{"tool_call": sleeps}], [{"text": "Well."}]]) as client:
        events, pings = await run_while_pinging(client, "go")
    (end,) = [event.payload for event in events if event.type == "tool_execution_end"]
    expect(end["is_error"] is True, end)
    expect(events[-1].payload["status"] == "completed", events[-1].payload)
    await expect_gone(place)
    return f"ended at its deadline, its child too; {pings} pings answered"


async def abort_ends_a_tool(place: Place) -> str:
    """An abort ends a tool that ignores SIGTERM, and the run says that it was aborted."""
    command = "trap '' TERM; echo $$ > pid; echo up; while :; do sleep 1; done"
    stubborn = {"name": "bash", "arguments": {"command": command}}
    async with place.daemon([[{"tool_call": stubborn}]]) as client:
        accepted = await client.call("prompt", text="go", wait=False)
        events = []
        async for event in client.events(accepted["run_id"]):
            events.append(event)
            if event.type == "tool_execution_update":
                await client.call("abort")
        expect(events[-1].type == "agent_end" and events[-1].payload["status"] == "aborted", events[-1].payload)
        await expect_gone(place)
    return "aborted in order, its process is gone"


GUARD = """
name: guard
command: ["{python}", guard.py]
hooks: [tool_call]
hook_timeout_ms: 700
on_failure: {tool_call: %s}
"""

SLEEPS = """
import time
from nous.extension import hook, run

@hook("tool_call")
def guard(call):
    time.sleep(600)

run("guard", "1.0")
"""


async def hook_deadline(place: Place, on_failure: str) -> list[Event]:
    """Run a tool that a hook holds up for ever, and return the run's events."""
    directory = place.workdir / ".nous" / "extensions" / "guard"
    directory.mkdir(parents=True)
    (directory / "extension.yaml").write_text(GUARD % on_failure, encoding="utf-8")
    (directory / "guard.py").write_text(SLEEPS, encoding="utf-8")
    state = ("--state-dir", place.state)
    place.nous("init", *state)
    trusted = place.nous("ext", "trust", directory, *state)
    expect(trusted.returncode == 0, trusted.stdout.decode() + trusted.stderr.decode())
    call = {"name": "write", "arguments": {"path": "made.txt", "content": "x"}}
    async with place.daemon([[{"tool_call": call}], [{"text": "Well."}]]) as client:
        events, pings = await run_while_pinging(client, "go")
    (warning,) = [e.payload for e in events if e.type == "warning" and e.payload["code"] == "extension_timeout"]
    expect((warning["extension"], warning["timeout_ms"]) == ("guard", 700), warning)
    expect(pings > 3, f"{pings} pings were answered")
    expect(events[-1].payload["status"] == "completed", events[-1].payload)
    return events


async def hook_that_warns(place: Place) -> str:
    """A hook that sleeps for ever costs its deadline and a warning; the run goes on without it."""
    await hook_deadline(place, "warn")
    expect((place.workdir / "made.txt").exists(), "the tool did not run")
    return "one warning, and the tool ran"


async def hook_that_blocks(place: Place) -> str:
    """One that is to block fails closed: the tool did not run."""
    events = await hook_deadline(place, "block")
    expect(not (place.workdir / "made.txt").exists(), "the tool ran")
    (end,) = [event.payload for event in events if event.type == "tool_execution_end"]
    expect(end["is_error"] is True, end)
    done = place.nous("replay", place.trace(events[0].run_id))
    expect(done.returncode == 0, done.stdout.decode()[-300:])
    return "one warning, the tool did not run, the trace replays"


async def expect_gone(place: Place) -> None:
    """Wait, not for long, until the process is gone whose id a tool wrote down."""
    pid = int((place.workdir / "pid").read_text(encoding="ascii"))
    with anyio.move_on_after(GONE_SECONDS):
        while True:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            await anyio.sleep(0.05)
    expect(False, f"process {pid} is still there")


CHECKS: Table = {
    "B2.1": ("a tool has a deadline, and the runtime answers meanwhile", tool_deadline),
    "B2.2": ("an abort ends a tool that does not want to end", abort_ends_a_tool),
    "B2.3": ("a hook that hangs costs its deadline and a warning", hook_that_warns),
    "B2.4": ("a guard that hangs fails closed", hook_that_blocks),
}
