"""A provider that fails in passing is asked again, by a real daemon over real sockets; a replay waits for nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from nous.replay.engine_mode import replay_in_engine
from tests.support.gates import chat, chat_delta, chat_setup
from tests.support.harness import Peer, open_peer
from tests.support.home import Home, Setup
from tests.support.lines import Line, of_type, types
from tests.support.sse_server import Reply, Wire, answers, cuts, hangs, resets, serve, streams

pytestmark = pytest.mark.anyio

IDLE_MS = 150
WHOLE = chat("Here ", "I am.")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def patient(url: str, **policy: int) -> Setup:
    config = {"retry": {"first_delay_ms": 5, **policy}, "provider": {"stream_idle_timeout_ms": IDLE_MS}}
    return replace(chat_setup(url), config=config)


def codes(run: list[Line]) -> list[str]:
    return [w.payload["code"] for w in of_type(run, "warning")]


async def closes(wire: Wire) -> None:
    """Close without a word."""
    await wire.close()


PASSING: list[tuple[str, Reply]] = [
    ("HTTP 429", answers(429)),
    ("HTTP 502", answers(502)),
    ("HTTP 503", answers(503)),
    ("HTTP 504", answers(504)),
    ("cut", resets()),
    ("cut", closes),
    ("idle", hangs(head=False)),
]


@pytest.mark.behaviour("P8.28")
@pytest.mark.parametrize(("cause", "fault"), PASSING, ids=lambda value: value if isinstance(value, str) else "")
async def test_a_provider_that_is_busy_is_asked_again(home: Home, cause: str, fault: Reply) -> None:
    async with (
        serve(fault, fault, streams(*WHOLE)) as server,
        open_peer("stdio", home, patient(server.url)) as peer,
    ):
        run = await peer.run("hello")
        assert codes(run) == ["provider_retry", "provider_retry"]
        assert all(cause in w.payload["cause"] for w in of_type(run, "warning"))
        assert types(run).count("message_start") == 2
        assert run[-1].payload["status"] == "completed"
        assert (await peer.ok("get_messages"))["messages"][-1]["text"] == "Here I am."
        first, *others = [e.body for e in server.exchanges]
        assert others == [first, first]


@pytest.mark.behaviour("P8.28")
async def test_a_provider_that_stays_away(home: Home) -> None:
    async with (
        serve(*[answers(503)] * 3) as server,
        open_peer("stdio", home, patient(server.url, max_retries=2)) as peer,
    ):
        run = await peer.run("hello")
        assert codes(run) == ["provider_retry", "provider_retry", "provider_retry_exhausted"]
        assert of_type(run, "error")[0].payload["code"] == "provider_unavailable"
        assert run[-1].payload["status"] == "failed"
        assert len(server.exchanges) == 3


async def test_what_the_provider_asks_for_is_waited_for(home: Home) -> None:
    async with (
        serve(answers(429, headers={"retry-after-ms": "80"}), streams(*WHOLE)) as server,
        open_peer("stdio", home, patient(server.url)) as peer,
    ):
        run = await peer.run("hello")
        [warning] = of_type(run, "warning")
        assert (warning.payload["delay_ms"], warning.payload["retry_after_ms"]) == (80, 80)
        assert run[-1].payload["duration_ms"] >= 80


@pytest.mark.parametrize("fault", [answers(429, headers={"retry-after": "3600"}), answers(503)])
async def test_a_wait_that_is_too_long_is_not_begun(home: Home, fault: Reply) -> None:
    setup = patient("", first_delay_ms=500, total_ms=100)
    async with serve(fault) as server, open_peer("stdio", home, replace(setup, flags=flags(server.url))) as peer:
        run = await peer.run("hello")
        assert codes(run) == ["provider_retry_exhausted"]
        assert run[-1].payload["status"] == "failed"


def flags(url: str) -> tuple[str, ...]:
    return chat_setup(url).flags


@pytest.mark.parametrize(
    "fault",
    [
        answers(401),
        answers(400),
        answers(429, b'{"error":{"code":"insufficient_quota"}}'),
        cuts(chat_delta("Half")),
        resets(chat_delta("Half")),
        hangs(chat_delta("Half")),
    ],
    ids=["key", "request", "quota", "cut", "reset", "idle"],
)
async def test_what_does_not_pass_or_was_shown_in_part_is_not_asked_again(home: Home, fault: Reply) -> None:
    async with serve(fault) as server, open_peer("stdio", home, patient(server.url)) as peer:
        run = await peer.run("hello")
        assert (codes(run), run[-1].payload["status"]) == ([], "failed")
        assert len(server.exchanges) == 1


async def abort_in_a_pause(peer: Peer) -> list[Line]:
    run_id = await peer.start("hello")
    await peer.events_until("warning", code="provider_retry")
    await peer.ok("abort")
    return await peer.run_events(run_id)


async def test_an_abort_ends_the_pause(home: Home) -> None:
    hour_ms = 3_600_000
    patience = {"first_delay_ms": hour_ms, "max_delay_ms": hour_ms, "total_ms": hour_ms}
    async with (
        serve(answers(503)) as server,
        open_peer("stdio", home, patient(server.url, **patience)) as peer,
    ):
        assert (await abort_in_a_pause(peer))[-1].payload["status"] == "aborted"
        assert len(server.exchanges) == 1


async def test_a_replay_waits_for_nothing_and_says_the_same(home: Home, tmp_path: Path) -> None:
    script = [[{"error": {"status": 429, "retry_after_ms": 14_000}}]]
    async with open_peer("stdio", home, Setup(script=script)) as peer:
        recorded = await abort_in_a_pause(peer)
    [trace] = (home.state / "traces").glob("*.ndjson")
    assert replay_in_engine(trace).verdict == "identical"
    again = tmp_path / "again"
    again.mkdir()
    setup = Setup(provider="replay", flags=("--replay-from", str(trace)))
    async with open_peer("stdio", Home(again), setup) as peer:
        # A second run takes another id: its pauses are those of the first.
        runs = [await peer.run("hello"), await peer.run("hello")]
    for run in runs:
        assert types(run) == types(recorded)
    delays = [[w.payload["delay_ms"] for w in of_type(run, "warning")] for run in (recorded, *runs)]
    assert all(one == other for one, other in pairwise(delays))
