"""Tools that hang, die, flood or leave something behind, under a real daemon: bounded, and nothing stays."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from nous.system.procfs import read_stat
from tests.support.harness import open_peer, open_process
from tests.support.home import Home, Setup, bounded
from tests.support.lines import of_type, types
from tests.support.raw import until

pytestmark = pytest.mark.anyio

MIB = 1 << 20


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def bash(command: str, **arguments: object) -> list[object]:
    return [{"tool_call": {"name": "bash", "arguments": {"command": command, **arguments}, "id": "c1"}}]


def is_gone(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is None or stat.is_dead


def pids_in(text: str) -> list[int]:
    return [int(word) for word in text.split() if word.isdecimal()]


@pytest.mark.behaviour("P4.39")
async def test_a_hanging_tool_is_ended_by_an_abort(home: Home) -> None:
    async with open_peer("stdio", home, Setup(script=[bash("sleep 1000 & echo $$ $!; wait")])) as peer:
        run_id = await peer.start("hang")
        [*_, update] = await peer.events_until("tool_execution_update")
        pids = pids_in(update.payload["delta"])
        assert len(pids) == 2
        assert not any(map(is_gone, pids))
        await peer.ok("abort")
        run = await peer.run_events(run_id)
        assert types(run)[-3:] == ["tool_execution_end", "turn_end", "agent_end"]
        assert run[-1].payload["status"] == "aborted"
        await until(lambda: all(map(is_gone, pids)))
        assert (await peer.run("next"))[-1].payload["status"] == "completed"


@pytest.mark.behaviour("P5.9")
async def test_a_hanging_tool_is_ended_by_its_own_time(home: Home) -> None:
    script = [bash("sleep 1000 & echo $$ $!; wait", timeout_ms=100), [{"text": "Too slow."}]]
    async with open_peer("stdio", home, Setup(script=script)) as peer:
        run = await peer.run("hang")
        [end] = of_type(run, "tool_execution_end")
        assert end.payload["is_error"] is True
        assert "100 ms" in end.payload["result"]
        assert all(map(is_gone, pids_in(of_type(run, "tool_execution_update")[0].payload["delta"])))
        assert run[-1].payload["status"] == "completed"


@pytest.mark.behaviour("P5.9")
async def test_a_tool_that_dies_by_a_signal(home: Home) -> None:
    names = ("TERM", "KILL", "SEGV")
    script = [entry for name in names for entry in (bash(f"echo dying; kill -{name} $$"), [{"text": "It died."}])]
    async with open_peer("stdio", home, Setup(script=script)) as peer:
        for name in names:
            run = await peer.run("die")
            [end] = of_type(run, "tool_execution_end")
            assert end.payload["is_error"] is True
            assert "dying" in end.payload["result"]
            assert f"SIG{name}" in end.payload["result"]
            assert run[-1].payload["status"] == "completed"


@pytest.mark.behaviour("P5.9")
async def test_what_a_tool_leaves_behind_ends_with_it(home: Home) -> None:
    command = """
        (sleep 1000 & echo $! >> pids)
        setsid sh -c 'echo $$ >> pids; exec sleep 1000' < /dev/null > /dev/null 2>&1 &
        nohup sh -c 'trap "" TERM HUP; echo $$ >> pids; while :; do sleep 1000; done' > /dev/null 2>&1 &
        until [ "$(wc -l < pids)" = 3 ]; do :; done
        echo done
    """
    async with open_peer("stdio", home, Setup(script=[bash(command), [{"text": "Done."}]])) as peer:
        run = await peer.run("leave")
        [end] = of_type(run, "tool_execution_end")
        assert "done" in end.payload["result"]
        pids = pids_in((home.workdir / "pids").read_text(encoding="utf-8"))
        assert len(pids) == 3
        assert all(map(is_gone, pids))


@pytest.mark.behaviour("P5.9", "P1.12")
@pytest.mark.parametrize("size", [100 * MIB, pytest.param(1000 * MIB, marks=pytest.mark.full)])
async def test_a_flood_of_output_is_bounded(home: Home, size: int) -> None:
    script = [bash(f"yes 'all work and no play' | head -c {size}; echo; echo THE END"), [{"text": "Much."}]]
    async with open_process(home, Setup(script=script), seconds=120) as (peer, spawned):
        await peer.ok("ping")
        before = spawned.memory_bytes("VmHWM")
        run = await peer.run("flood")
        assert run[-1].payload["status"] == "completed"
        [end] = of_type(run, "tool_execution_end")
        assert end.payload["truncated"] is True
        result = end.payload["result"]
        assert "THE END" in result
        assert len(result.encode()) < 60 * 1024
        streamed = sum(len(line.payload["delta"]) for line in of_type(run, "tool_execution_update"))
        assert streamed < 5 * MIB
        [kept] = (home.state / "outputs" / end.run_id).iterdir()
        assert kept.name in result
        assert kept.stat().st_size <= 64 * MIB
        assert spawned.memory_bytes("VmHWM") - before < 24 * MIB
        assert (home.state / "traces" / f"{end.run_id}.ndjson").stat().st_size < 16 * MIB


CLIENT = """
import json, subprocess, sys
command, prompt = json.loads(sys.argv[1]), sys.argv[2]
daemon = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
daemon.stdin.write(prompt.encode() + b"\\n")
daemon.stdin.flush()
for line in daemon.stdout:
    if b"tool_execution_update" in line:
        print(daemon.pid, *json.loads(line)["payload"]["delta"].split(), flush=True)
"""


@pytest.mark.behaviour("P3.23", "P3.24")
async def test_killing_the_client_leaves_no_orphan(home: Home) -> None:
    setup = Setup(script=[bash("trap '' TERM HUP; sleep 1000 & echo $$ $!; wait; wait; sleep 1000")])
    serve = [sys.executable, "-m", "nous", "serve", *home.arguments(setup)]
    prompt = json.dumps({"id": "p", "type": "prompt", "payload": {"text": "x"}})
    with bounded():
        async with await anyio.open_process(
            [sys.executable, "-c", CLIENT, json.dumps(serve), prompt],
            stderr=subprocess.DEVNULL,
            cwd=home.workdir,
            env=home.environ(setup),
        ) as client:
            assert client.stdout is not None
            pids = pids_in((await client.stdout.receive()).decode())
            assert len(pids) == 3
            assert not any(map(is_gone, pids))
            client.kill()
            await client.wait()
            await until(lambda: all(map(is_gone, pids)))


@pytest.mark.behaviour("P3.21")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_daemon_that_dies_takes_its_tools_along(home: Home, number: signal.Signals) -> None:
    setup = Setup(script=[bash("trap '' TERM; echo $$; while :; do read line < /dev/null; done")])
    async with open_process(home, setup) as (peer, spawned):
        await peer.start("hang")
        [*_, update] = await peer.events_until("tool_execution_update")
        [pid] = pids_in(update.payload["delta"])
        spawned.signal(number)
        spawned.signal(number)
        await spawned.wait()
        await until(lambda: is_gone(pid))


async def test_a_tool_does_not_get_the_keys(home: Home) -> None:
    environ = {"MY_API_KEY": "k-123456", "SOME_TOKEN": "t-123456", "PLAIN": "p-123456"}
    async with open_peer("stdio", home, Setup(script=[bash("env"), [{"text": "Ok."}]], environ=environ)) as peer:
        result = of_type(await peer.run("env"), "tool_execution_end")[0].payload["result"]
        assert "PLAIN=p-123456" in result
        assert "123456" not in result.replace("p-123456", "")


@pytest.mark.behaviour("P4.41")
async def test_a_busy_tool_keeps_no_other_session_waiting(home: Home) -> None:
    script: list[Any] = [{"match": {"text": "spin"}, "steps": bash("while :; do echo x; done")}]
    async with open_peer("stdio", home, Setup(script=script)) as peer:
        busy = await peer.start("spin")
        await peer.events_until("tool_execution_update")
        await peer.ok("new_session")
        for number in range(5):
            assert (await peer.run(f"{number}"))[-1].payload["status"] == "completed"
        await peer.ok("abort", {"run_id": busy})
        assert (await peer.run_events(busy))[-1].payload["status"] == "aborted"
