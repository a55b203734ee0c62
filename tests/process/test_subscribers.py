"""Subscribers of events: those that come late, and those that are slow (section 7)."""

from __future__ import annotations

import json
import os
import random
import socket
from pathlib import Path

import anyio
import msgspec
import pytest

from nous.runtime.connection import MAX_PENDING
from tests.support.harness import Peer, command_line, connect, events_path, open_process, serve_socket, socket_path
from tests.support.home import Home, Setup, bounded
from tests.support.lines import joined_deltas, read_line
from tests.support.raw import RawWire, until_still

pytestmark = pytest.mark.anyio

HANGS = [{"text": "Hello"}, {"hang": True}]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# -- subscribers that come late


@pytest.mark.behaviour("P7.10", "P7.9")
async def test_late_subscribers_miss_nothing_and_hear_nothing_twice(home: Home) -> None:
    count, source = 50_000, random.Random(11)
    moments = sorted(source.sample(range(1, count), 6))
    script = [[{"text_repeat": {"text": "0123456789", "count": count, "chunk": 7}}]]
    setup = Setup(script=script, config={"daemon": {"subscriber_buffer_bytes": 64 << 20}})
    with socket_path() as path:
        setup = Setup(script=setup.script, config=setup.config, flags=("--stdio", "--socket", str(path)))
        async with open_process(home, setup, seconds=90) as (peer, _), anyio.create_task_group() as tasks:
            runs: list[list[bytes]] = []

            async def subscribe() -> None:
                runs.append(await read_run(events_path(path)))

            run_id = await peer.start("hello")
            for moment in moments:
                # Stdio paces the run: it is still going on while we come to each moment.
                await peer.seq_reached(run_id, moment)
                tasks.start_soon(subscribe)
            run = [line.raw for line in await peer.run_events(run_id)]
        assert len(run) == count + 8
        assert len(runs) == len(moments)
        for heard in runs:
            assert heard == run


@pytest.mark.behaviour("P7.10")
async def test_subscribers_to_a_run_that_nobody_slows_down(home: Home) -> None:
    bursts = [{"text_repeat": {"text": "0123456789", "count": 500}}, {"delay_ms": 5}]
    setup = Setup(script=[bursts * 40], config={"daemon": {"subscriber_buffer_bytes": 64 << 20}})
    with bounded(90):
        async with serve_socket(home, setup) as (path, _), connect(path) as peer:
            runs: list[list[bytes]] = []

            async def subscribe() -> None:
                runs.append(await read_run(events_path(path)))

            run_id = await peer.start("hello")
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(subscribe)
                    # A round trip between two of them, while the run goes on.
                    assert (await peer.ok("get_state"))["run_id"] == run_id
            lengths = {len(heard) for heard in runs}
            assert lengths == {20_000 + 8}
            assert all(heard == runs[0] for heard in runs)


async def read_run(path: Path) -> list[bytes]:
    """Subscribe and return the lines up to a run's end, unchecked, because they are many."""
    async with await anyio.connect_unix(path) as stream:
        data = b""
        parts: list[bytes] = []
        while b'"type":"agent_end"' not in data[-2000:] or not data.endswith(b"\n"):
            data = await stream.receive()
            parts.append(data)
            data = b"".join(parts[-2:])
        return b"".join(parts)[:-1].split(b"\n")


@pytest.mark.behaviour("P7.10")
async def test_a_subscriber_hears_each_active_run_from_its_start(home: Home) -> None:
    with bounded():
        async with serve_socket(home, Setup(script=[HANGS, HANGS])) as (path, _), connect(path) as peer:
            await peer.ok("hello", {"features": ["events"]})
            first = await peer.start("one")
            await peer.ok("new_session")
            second = await peer.start("two")
            for _ in (first, second):
                await peer.events_until("message_update")
            async with connect(events_path(path)) as subscriber:
                for run_id in (first, second):
                    await peer.ok("abort", {"run_id": run_id})
                    assert await subscriber.run_events(run_id) == await peer.run_events(run_id)


@pytest.mark.behaviour("P7.10")
async def test_a_run_that_just_ended_is_shown_to_the_process_that_asked_for_it(home: Home) -> None:
    with bounded():
        async with serve_socket(home) as (path, _), connect(path) as peer:
            older = await peer.start("older")
            newest = await peer.start("newest", session_id=await other(peer))
            await idle(peer)
            async with connect(events_path(path)) as subscriber:
                assert joined_deltas(await subscriber.run_events(newest)) == "mock response: newest"
                assert {line.run_id for line in subscriber.lines} == {newest} != {older}


async def other(peer: Peer) -> str:
    return str((await peer.ok("new_session"))["session_id"])


async def idle(peer: Peer) -> None:
    """Wait until no run is active."""
    while (await peer.ok("get_state"))["runs"]:
        pass


@pytest.mark.behaviour("P7.10")
@pytest.mark.parametrize("how", ["events", "answer"])
async def test_a_run_that_just_ended_is_not_shown_to_a_process_that_saw_its_end(home: Home, how: str) -> None:
    with bounded():
        async with serve_socket(home) as (path, _), connect(path) as peer:
            if how == "events":
                async with connect(events_path(path)) as subscriber:
                    await subscriber.run_events(await peer.start("seen"))
            else:
                await peer.ok("prompt", {"text": "seen"})
            async with connect(events_path(path)) as again:
                new = (await peer.ok("prompt", {"text": "new"}))["run_id"]
                await again.run_events(new)
                assert {line.run_id for line in again.lines} == {new}


# -- subscribers that are slow


@pytest.mark.behaviour("P7.8", "P7.9", "P6.13")
async def test_a_slow_subscriber_is_disconnected_and_the_others_go_on(home: Home) -> None:
    bound, count = 256 * 1024, 20_000
    script = [[{"text_repeat": {"text": "0123456789", "count": count, "chunk": 16}}]]
    with socket_path() as path:
        setup = Setup(
            script=script,
            config={"daemon": {"subscriber_buffer_bytes": bound}},
            flags=("--stdio", "--socket", str(path)),
        )
        async with open_process(home, setup) as (peer, spawned):
            await peer.next_line()
            async with await anyio.connect_unix(events_path(path)) as slow:
                run = await peer.run("hello")
                assert run[-1].payload["status"] == "completed"
                heard = b""
                try:
                    while data := await slow.receive():
                        heard += data
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    pass
            lines = heard.split(b"\n")[:-1]
            assert lines == [line.raw for line in run[: len(lines)]]
            assert 0 < len(lines) < len(run)
            [dropped] = [record for record in spawned.log() if record["event"] == "event_subscriber_dropped"]
            assert (dropped["level"], dropped["peer_pid"]) == ("warning", os.getpid())
            missed = await read_events(peer, run[0].run_id, after_seq=read_line(lines[-1]).data["seq"])
            assert lines + missed == [line.raw for line in run]


async def read_events(peer: Peer, run_id: str, after_seq: int) -> list[bytes]:
    """Return what a run said after ``after_seq``, as ``get_events`` tells it."""
    out: list[bytes] = []
    done = False
    while not done:
        answer = await peer.command("get_events", {"run_id": run_id, "after_seq": after_seq})
        events = answer.payload["events"]
        out += raw_items(answer.raw)
        assert events
        done, after_seq = answer.payload["done"], events[-1]["seq"]
    return out


class EventsPayload(msgspec.Struct):
    events: list[msgspec.Raw]


class EventsAnswer(msgspec.Struct):
    payload: EventsPayload


def raw_items(raw: bytes) -> list[bytes]:
    """Return the events of an answer as they stand in it."""
    return [bytes(item) for item in msgspec.json.decode(raw, type=EventsAnswer).payload.events]


@pytest.mark.behaviour("P7.8")
async def test_a_subscriber_that_never_reads_holds_nobody_up(home: Home) -> None:
    script = [[{"text_repeat": {"text": "0123456789", "count": 50_000}}]]
    with bounded():
        async with serve_socket(home, Setup(script=script)) as (path, spawned), connect(path) as peer:
            before = spawned.memory_bytes("VmHWM")
            async with await anyio.connect_unix(events_path(path)):
                result = await peer.command("prompt", {"text": "hello"})
                assert result.type == "result"
            # Its buffer, and the run's own answer.
            assert spawned.memory_bytes("VmHWM") - before < 48 << 20


@pytest.mark.behaviour("P3.27")
async def test_a_connection_that_reads_no_answers_holds_nobody_up(home: Home) -> None:
    line = command_line("list_tools", {"ignored": "x" * 20_000}, "a") + b"\n"
    with bounded(), socket.socket(socket.AF_UNIX) as sock:
        async with serve_socket(home) as (path, spawned), anyio.create_task_group() as tasks:
            async with connect(path) as peer:
                answer_bytes = len(json.dumps(await peer.ok("list_tools")))
            sock.connect(str(path))
            stubborn = RawWire(sock.fileno(), sock.fileno())

            async def ask() -> None:
                while True:
                    await stubborn.send(line)

            tasks.start_soon(ask)
            # Read are as many commands as may wait, and as answers fit what is kept for a reader, what is being
            # written (1 MiB each) and the socket.
            commands = MAX_PENDING + (9 << 18) / answer_bytes
            assert await until_still(lambda: stubborn.sent_bytes) < commands * 20_000 + (1 << 20)
            async with connect(path) as peer:
                await peer.ok("ping")
            assert spawned.memory_bytes() < 80 << 20
            tasks.cancel_scope.cancel()
