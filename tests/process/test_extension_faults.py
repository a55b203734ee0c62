"""Extensions that hang, flood, die or leave something behind, under a real daemon: the run goes on or the call is
refused, as declared; the daemon answers meanwhile; nothing of them is left; the run replays without them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nous.extensions.process import CANCEL_GRACE_MS
from tests.support.extension_programs import write_extension
from tests.support.harness import Peer, check_replays, open_process
from tests.support.home import Home, Setup, Spawned
from tests.support.lines import Line, of_type
from tests.support.raw import until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]

LIMITS = {"hook_timeout_ms": 400, "tool_timeout_ms": 400, "cpu_seconds": 1, "memory_mb": 64, "max_processes": 8}
LONG = {**LIMITS, "hook_timeout_ms": 20_000, "tool_timeout_ms": 20_000}
"""For what has to be found out by another limit than time."""

TOUCH = [
    [{"tool_call": {"id": "c1", "name": "bash", "arguments": {"command": "touch ran"}}}],
    [{"text": "Done."}],
]


class Case(NamedTuple):
    body: str
    code: str
    reason: str
    limits: dict[str, int] = LIMITS


def dying(name: str) -> Case:
    body = f"signal.signal(signal.{name}, signal.SIG_DFL)" if name != "SIGKILL" else ""
    return Case(
        f"{body}\nfor call in calls(): os.kill(os.getpid(), signal.{name})",
        "extension_error",
        f"it died by {name}",
        LONG,
    )


TIMED_OUT = ("extension_timeout", "no answer within 400 ms")
FAILING = {
    "sleeps": Case("for call in calls(): time.sleep(1000)", *TIMED_OUT),
    "sleeps, deaf to TERM": Case(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nfor call in calls():\n    while True: time.sleep(1000)",
        *TIMED_OUT,
    ),
    "spins": Case("for call in calls():\n    while True: pass", "extension_error", "(cpu_seconds)", LONG),
    "spins, in time": Case("for call in calls():\n    while True: pass", *TIMED_OUT),
    "forks": Case(
        "for call in calls():\n    while True: subprocess.Popen(['sleep', '1000'])",
        "extension_error",
        "(max_processes)",
        LONG,
    ),
    "forks out of its group": Case(
        "for call in calls():\n    while True: subprocess.Popen(['setsid', 'sleep', '1000'])",
        "extension_error",
        "(max_processes)",
        LONG,
    ),
    "forks and lets go": Case(
        "for call in calls():\n    while True: subprocess.run(['sh', '-c', 'setsid sleep 1000 < /dev/null &'])",
        "extension_error",
        "(max_processes)",
        LONG,
    ),
    "allocates": Case(
        "kept = []\nfor call in calls():\n    while True: kept.append(b'x' * (1 << 20)); time.sleep(.001)",
        "extension_error",
        "(memory_mb)",
        LONG,
    ),
    "prints without end": Case(
        "for call in calls():\n    for _ in range(1 << 14): os.write(1, b'x' * 65536)",
        "extension_error",
        "a line of more than 1048576 bytes",
        LONG,
    ),
    "prints lines": Case(
        "for call in calls():\n    for _ in range(1 << 14): os.write(1, b'all work and no play\\n' * 3000)",
        "extension_error",
        "not JSON",
        LONG,
    ),
    "streams without end": Case(
        "for call in calls():\n    while True: send(type='progress', id=call['id'], text='x' * 4096)",
        "extension_error",
        "in answer to one call",
        LONG,
    ),
    "complains without end": Case(
        "for call in calls():\n    while True: os.write(2, b'all work and no play\\n' * 3000)", *TIMED_OUT
    ),
    "prints garbage": Case("for call in calls(): os.write(1, os.urandom(99) + b'\\n')", "extension_error", "protocol"),
    "answers nonsense": Case("for call in calls(): result(call, blok='no')", "extension_error", "does not fit", LONG),
    "answers with an error": Case(
        "for call in calls(): send(type='result', id=call['id'], error='no')", "extension_error", "an error: no", LONG
    ),
    "answers late": Case("for call in calls():\n    time.sleep(.6)\n    result(call, block='too late')", *TIMED_OUT),
    "closes its stdout": Case(
        "for call in calls(): os.close(1); time.sleep(1000)", "extension_error", "closed its stdout", LONG
    ),
    "exits": Case("for call in calls(): os._exit(3)", "extension_error", "exited with code 3", LONG),
    "does not read": Case("time.sleep(1000)", *TIMED_OUT),
    **{name: dying(name) for name in ("SIGTERM", "SIGKILL", "SIGSEGV", "SIGABRT", "SIGPIPE", "SIGHUP", "SIGBUS")},
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def install(home: Home, body: str, **manifest: Any) -> Path:
    """Write an extension into the user's own place, where it needs no trust."""
    return write_extension(home.root / ".config" / "nous" / "extensions", "one", body, **manifest)


def processes_in(directory: Path) -> Iterator[int]:
    """Yield the processes that stand in a directory: an extension and whatever it started."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                where = (entry / "cwd").readlink()
            except OSError:
                continue
            if where == directory:
                yield int(entry.name)


def open_descriptors(spawned: Spawned) -> int:
    return len(list(Path(f"/proc/{spawned.pid}/fd").iterdir()))


async def up(peer: Peer) -> None:
    """Wait until each extension is up or has failed: a command nobody has is refused then, not before."""
    assert (await peer.refused("extension_command", {"name": "nobody-has-it"})).startswith("command_rejected")


async def run_watched(peer: Peer) -> list[Line]:
    """Make a run, with a ping answered while its hook is asked."""
    run_id = await peer.start("go")
    await peer.events_until("message_end", stop_reason="tool_use")
    for _ in range(5):
        await peer.ok("ping")
    return await peer.run_events(run_id)


async def end(peer: Peer, spawned: Spawned) -> None:
    await peer.end()
    await peer.rest()
    peer.check_ended()
    assert await spawned.wait() == 0


@pytest.mark.parametrize("on_failure", ["warn", "block"])
@pytest.mark.parametrize("case", FAILING.values(), ids=FAILING.keys())
async def test_a_guard_that_fails(home: Home, case: Case, on_failure: str) -> None:
    directory = install(home, case.body, hooks=["tool_call"], on_failure={"tool_call": on_failure}, **case.limits)
    async with open_process(home, Setup(script=TOUCH)) as (peer, spawned):
        await up(peer)
        # The first sync of a daemon opens what the kernel tells of all of them by.
        await peer.ok("new_session")
        before = open_descriptors(spawned)
        run = await run_watched(peer)
        assert run[-1].payload["status"] == "completed"
        assert (home.workdir / "ran").exists() == (on_failure == "warn")
        [warning] = [w.payload for w in of_type(run, "warning") if w.payload["code"] == case.code]
        assert case.reason in warning["reason"]
        assert warning["extension"] == "one"
        assert warning["version"] == "1.0"
        assert warning["hook"] == "tool_call"
        assert warning["operation_id"].startswith(run[0].run_id)
        assert warning["timeout_ms"] == case.limits["hook_timeout_ms"]
        assert warning["consecutive_failures"] == 1
        [end_of_tool] = of_type(run, "tool_execution_end")
        assert end_of_tool.payload["is_error"] == (on_failure == "block")
        assert ("could not be asked" in end_of_tool.payload["result"]) == (on_failure == "block")
        [info] = (await peer.ok("get_state"))["extensions"]
        assert info["name"] == "one"
        assert case.reason in info["last_error"]
        await until(lambda: open_descriptors(spawned) <= before)
        await end(peer, spawned)
    assert not list(processes_in(directory))
    check_replays(home)


async def test_answering_twice_costs_nothing(home: Home) -> None:
    directory = install(home, "for call in calls(): result(call); result(call)", hooks=["tool_call"], **LONG)
    async with open_process(home, Setup(script=TOUCH * 3)) as (peer, spawned):
        for _ in range(3):
            run = await run_watched(peer)
            assert not of_type(run, "warning")
        assert (home.workdir / "ran").exists()
        [info] = (await peer.ok("get_state"))["extensions"]
        assert (info["state"], info["restarts"]) == ("up", 0)
        assert info["late_answers"] >= 2
        await end(peer, spawned)
    assert not list(processes_in(directory))
    check_replays(home)


async def test_three_failures_disable_a_guard_and_still_nothing_passes(home: Home) -> None:
    body = "for call in calls(): send(type='result', id=call['id'], error='no')"
    install(home, body, hooks=["tool_call"], **LONG)
    async with open_process(home, Setup(script=TOUCH * 5)) as (peer, spawned):
        codes = [[w.payload["code"] for w in of_type(await peer.run("go"), "warning")] for _ in range(5)]
        assert [[c for c in run if c.startswith("extension")] for run in codes] == [
            ["extension_error"],
            ["extension_error"],
            ["extension_error", "extension_disabled"],
            ["extension_disabled"],
            ["extension_disabled"],
        ]
        assert not (home.workdir / "ran").exists()
        [info] = (await peer.ok("get_state"))["extensions"]
        assert info["state"] == "disabled"
        await end(peer, spawned)
    check_replays(home)


async def test_a_guard_that_is_well_again_is_tried_and_told_of(home: Home) -> None:
    body = """
for n, call in enumerate(calls()):
    send(type="result", id=call["id"], **({"error": "no"} if n < 3 else {}))
"""
    install(home, body, hooks=["tool_call"], **{**LONG, "cooldown_ms": 1})
    async with open_process(home, Setup(script=TOUCH * 4)) as (peer, spawned):
        for _ in range(3):
            await peer.run("go")
        assert not (home.workdir / "ran").exists()
        await peer.run("go")
        assert (home.workdir / "ran").exists()
        tried = (await peer.events_until("status", code="extension_half_open"))[-1]
        well = (await peer.events_until("status", code="extension_recovered"))[-1]
        assert {tried.payload["extension"], well.payload["extension"]} == {"one"}
        [info] = (await peer.ok("get_state"))["extensions"]
        assert info["state"] == "up"
        await end(peer, spawned)
    check_replays(home)


async def test_a_slow_guard_keeps_no_other_session_waiting(home: Home) -> None:
    install(home, "for call in calls(): time.sleep(1000)", hooks=["tool_call"], **{**LONG, "hook_timeout_ms": 60_000})
    script: list[Any] = [{"match": {"text": "slow"}, "steps": TOUCH[0]}]
    async with open_process(home, Setup(script=script)) as (peer, spawned):
        slow = await peer.start("slow")
        await peer.events_until("message_end", stop_reason="tool_use")
        await peer.ok("new_session")
        for number in range(5):
            assert (await peer.run(f"{number}"))[-1].payload["status"] == "completed"
        await peer.ok("abort", {"run_id": slow})
        assert (await peer.run_events(slow))[-1].payload["status"] == "aborted"
        await end(peer, spawned)
    check_replays(home)


async def test_one_that_never_says_hello_costs_its_start_once(home: Home) -> None:
    directory = install(home, "", hooks=["input"], start_timeout_ms=300)
    (directory / "main.py").write_text("import time; time.sleep(1000)", encoding="utf-8")
    async with open_process(home) as (peer, spawned):
        await peer.ok("ping")
        assert (await peer.run("go"))[-1].payload["status"] == "completed"
        [info] = (await peer.ok("get_state"))["extensions"]
        assert "did not say hello within 300 ms" in info["last_error"]
        await end(peer, spawned)
    assert not list(processes_in(directory))


def test_the_grace_of_a_cancelled_call_is_less_than_a_test_waits() -> None:
    assert CANCEL_GRACE_MS <= 2_000
