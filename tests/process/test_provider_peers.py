"""A real daemon and providers that misbehave on the wire: what one of them sends holds nobody else up."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from tests.support.gates import CHAT_END, chat_delta, chat_setup
from tests.support.harness import open_process
from tests.support.home import ONE_TRY, Home
from tests.support.lines import of_type
from tests.support.sse_server import Reply, Wire, data_lines, serve

pytestmark = pytest.mark.anyio

FLOODS = {
    "comments": b": keep-alive\n\n" * 5000,
    "no choices": data_lines('{"choices":[]}') * 2000,
    "one line": b"x" * 65536,
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def floods(begun: anyio.Event, data: bytes) -> Reply:
    async def reply(wire: Wire) -> None:
        await wire.head()
        await wire.part(chat_delta("Half an ans"))
        begun.set()
        try:
            while True:
                await wire.part(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            wire.is_open = False

    return reply


@pytest.mark.parametrize("data", FLOODS.values(), ids=FLOODS)
async def test_a_provider_that_floods_holds_no_command_up(home: Home, data: bytes) -> None:
    """Bytes without end and without an item: the daemon answers, aborts, and fails the run if nobody does."""
    begun = anyio.Event()
    async with serve(floods(begun, data), floods(begun, data)) as server:
        setup = replace(chat_setup(server.url), config=ONE_TRY)
        async with open_process(home, setup) as (peer, _):
            run_id = await peer.start("hello")
            await begun.wait()
            for _ in range(5):
                await peer.ok("ping")
            await peer.ok("abort")
            assert (await peer.run_events(run_id))[-1].payload["status"] in ("aborted", "failed")
            failed = await peer.run("hello")
            assert failed[-1].payload["status"] == "failed"
            assert of_type(failed, "error")[0].payload["code"] == "provider_error"


async def test_an_answer_that_came_while_the_daemon_was_stopped_is_read(home: Home) -> None:
    """SIGSTOP for longer than the idle timeout: the time does not count, and the answer in the socket is whole."""
    begun, goes_on, is_sent = anyio.Event(), anyio.Event(), anyio.Event()

    async def reply(wire: Wire) -> None:
        await wire.head()
        await wire.part(chat_delta("One, "))
        begun.set()
        await goes_on.wait()
        await wire.part(chat_delta("two.") + CHAT_END)
        await wire.end()
        is_sent.set()

    config = {**ONE_TRY, "provider": {"stream_idle_timeout_ms": 2_000}}
    async with (
        serve(reply) as server,
        open_process(home, replace(chat_setup(server.url), config=config)) as (peer, spawned),
    ):
        run_id = await peer.start("hello")
        await peer.events_until("message_update")
        await begun.wait()
        spawned.signal(signal.SIGSTOP)
        goes_on.set()
        await is_sent.wait()
        await anyio.sleep(2.5)  # what is measured: longer than the idle timeout
        spawned.signal(signal.SIGCONT)
        run = await peer.run_events(run_id)
        assert run[-1].payload["status"] == "completed", run[-2:]
        assert of_type(run, "message_end")[-1].payload["text"] == "One, two."
