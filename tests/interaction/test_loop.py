"""The event loop is never blocked: not by big sessions, schemas, searches, edits or exports.

The figures of the watchdog are CPU time of the loop's thread, so these tests hold on a busy machine.
"""

from __future__ import annotations

import json
import os
from typing import Final

import pytest

from nous.store.session_format import FORMAT, ORIGIN, SessionHeader, encode_line
from tests.support.home import Home, Setup
from tests.support.loop_watchdog import open_watched
from tests.unit.store.helpers import NOW, message

pytestmark = pytest.mark.anyio

BIG_LINES: Final = 200_000
SESSION_MB: Final = int(os.environ.get("LOOP_SESSION_MB", "20"))
MESSAGES: Final = SESSION_MB * 800
KEPT_SESSIONS: Final = 32
TEXT_1_KB: Final = "All work and no play. " * 46


def call(name: str, **arguments: object) -> list[object]:
    return [{"tool_call": {"name": name, "arguments": arguments}}]


TEXT: Final = [{"text": "Done."}]


# -- the watchdog itself

BLOCKS: Final = {
    "python": "deadline = time.thread_time() + 0.2\n    while time.thread_time() < deadline: pass",
    # One call of C code that holds the interpreter's lock: the sampling thread sees nothing of it.
    "locked": "deadline = time.thread_time() + 0.2\n    while time.thread_time() < deadline: sum(range(10_000_000))",
    "asleep": "time.sleep(1.5)",
}


@pytest.mark.parametrize("how", BLOCKS)
async def test_the_watchdog_sees_a_loop_that_is_blocked(home: Home, how: str) -> None:
    program = f"""
import time
from nous.runtime.daemon import Daemon
create = Daemon.create_session
def create_slowly(daemon):
    {BLOCKS[how]}
    return create(daemon)
Daemon.create_session = create_slowly
"""
    with pytest.raises(AssertionError, match="the event loop was blocked") as caught:
        await make_session(home, program)
    if how != "locked":
        assert "create_slowly" in str(caught.value)


async def make_session(home: Home, program: str) -> None:
    async with open_watched(home, program=program) as watched:
        await watched.peer.ok("ping")
        watched.arm()
        await watched.peer.ok("new_session")


async def test_the_watchdog_does_not_count_what_came_before_it_was_armed(home: Home) -> None:
    program = """
import time
from nous.runtime.daemon import Daemon
create = Daemon.create_session
def create_slowly(daemon):
    sum(range(20_000_000))
    return create(daemon)
Daemon.create_session = create_slowly
"""
    async with open_watched(home, program=program) as watched:
        await watched.peer.ok("new_session")
        watched.arm()
        await watched.peer.ok("ping")


# -- what must not block


async def test_searches_and_edits_of_big_files(home: Home) -> None:
    path = home.workdir / "big.txt"
    path.write_text(("a line of hay\n" * 99 + "a line with a needle in it\n") * (BIG_LINES // 100), encoding="utf-8")
    script = [
        call("read", path="big.txt"),
        TEXT,
        call("grep", pattern="needle$|line", path="."),
        call("find", pattern="**/*.txt"),
        call("edit", path="big.txt", old_text="needle", new_text="thread", replace_all=True),
        call("read", path="big.txt"),
        TEXT,
    ]
    async with open_watched(home, Setup(script=script)) as watched:
        assert (await watched.peer.run("warm up"))[-1].payload["status"] == "completed"
        watched.arm()
        assert (await watched.peer.run("go"))[-1].payload["status"] == "completed"


async def test_checking_an_output_against_a_large_schema(home: Home) -> None:
    schema = {
        "type": "object",
        "properties": {f"p{n}": {"type": "array", "items": {"type": "integer"}} for n in range(300)},
    }
    answer = json.dumps({f"p{n}": list(range(100)) for n in range(300)})
    async with open_watched(home, Setup(script=[TEXT, [{"text": answer}]])) as watched:
        await watched.peer.run("warm up")
        await watched.peer.ok("get_state")
        watched.arm()
        run = await watched.peer.run("go", output_schema=schema)
        assert run[-1].payload["status"] == "completed"


async def test_an_export_and_lists_beside_it(home: Home) -> None:
    script = [[{"text_repeat": {"text": "abcdefgh" * 8, "count": 20_000}}]]
    async with open_watched(home, Setup(script=script)) as watched:
        await watched.peer.run("warm up")
        watched.arm()
        run = await watched.peer.run("go")
        await watched.peer.ok("export_trace", {"run_id": run[0].run_id})
        await watched.peer.ok("list_runs")
        await watched.peer.ok("list_sessions")
        await watched.peer.ok("get_events", {"run_id": run[0].run_id})


async def test_a_big_session(home: Home) -> None:
    """Loading it, its pages, a first run on it, a branch of it, and letting go of it."""
    session_id = "ses-big"
    setup = Setup(config={"engine": {"compact_at_tokens": 0}})
    async with open_watched(home, setup, seconds=300) as watched:
        peer = watched.peer
        await peer.run("warm up")
        await peer.ok("get_messages")
        await peer.ok("get_tree")
        await peer.ok("branch_session", {"session_id": (await peer.ok("get_state"))["session_id"]})
        write_session(home, session_id)
        watched.arm()
        named = {"session_id": session_id}
        await peer.ok("switch_session", named)
        await peer.ok("get_state", named)
        await peer.ok("list_sessions")
        page = await peer.ok("get_messages", named)
        await peer.ok("get_messages", {**named, "cursor": page["next_cursor"]})
        await peer.ok("get_tree", named)
        assert (await peer.run("go", **named))[-1].payload["status"] == "completed"
        await peer.ok("set_leaf", {**named, "leaf_id": "m1"})
        await peer.ok("branch_session", {**named, "leaf_id": f"m{MESSAGES - 1}"})
        for _ in range(KEPT_SESSIONS + 2):
            await peer.ok("new_session")


def write_session(home: Home, session_id: str) -> None:
    """Write a session of ``SESSION_MB`` megabytes."""
    line, link = encode_line(SessionHeader(format=FORMAT, id=session_id, created_at=NOW), ORIGIN)
    lines = [line]
    for number in range(MESSAGES):
        parent_id = f"m{number - 1}" if number else ""
        line, link = encode_line(message(f"m{number}", parent_id, TEXT_1_KB), link)
        lines.append(line)
    (home.state / "sessions" / f"{session_id}.ndjson").write_bytes(b"".join(lines))
