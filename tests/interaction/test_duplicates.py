"""The same id twice: the answer again, a conflict, or a wait; never a second effect."""

from __future__ import annotations

import anyio
import pytest

from tests.support.gates import chat_setup, gated
from tests.support.harness import OpenPeer
from tests.support.home import Home, Setup
from tests.support.sse_server import serve

pytestmark = pytest.mark.anyio

REMEMBERED = 1024


@pytest.mark.behaviour("P6.6")
async def test_the_same_command_again_gets_the_same_answer(nous: OpenPeer) -> None:
    async with nous() as peer:
        first = await peer.command("new_session", {}, "one")
        again = await peer.command("new_session", {}, "one")
        assert again.payload == {**first.payload, "duplicate": True}
        assert again.type == first.type
        assert "duplicate" not in first.payload
        assert (await peer.ok("get_state"))["session_id"] == first.payload["session_id"]


@pytest.mark.behaviour("P6.6")
async def test_a_prompt_sent_twice_runs_once(nous: OpenPeer) -> None:
    async with nous() as peer:
        prompt = {"text": "hello", "wait": False}
        first = await peer.command("prompt", prompt, "p")
        await peer.run_events(first.run_id)
        again = await peer.command("prompt", prompt, "p")
        assert again.payload == {**first.payload, "duplicate": True}
        assert len((await peer.ok("get_messages"))["messages"]) == 2


@pytest.mark.behaviour("P6.9")
async def test_the_events_of_a_repeated_result_are_read_from_disk(nous: OpenPeer, home: Home) -> None:
    async with nous() as peer:
        first = await peer.command("prompt", {"text": "hello"}, "p")
        again = await peer.command("prompt", {"text": "hello"}, "p")
        assert first.payload["events"]
        assert again.payload == {**first.payload, "duplicate": True}
        (home.state / "traces" / f"{first.run_id}.ndjson").unlink()
        gone = await peer.command("prompt", {"text": "hello"}, "p")
        assert gone.payload == {**first.payload, "events": [], "events_truncated": True, "duplicate": True}


@pytest.mark.behaviour("P6.7", "P8.16")
async def test_another_command_with_the_same_id_is_a_conflict(nous: OpenPeer) -> None:
    async with nous() as peer:
        first = await peer.command("set_steering_mode", {"mode": "all"}, "x")
        for kind, payload in (
            ("set_steering_mode", {"mode": "one-at-a-time"}),
            ("set_follow_up_mode", {"mode": "all"}),
        ):
            assert (await peer.command(kind, payload, "x")).code == "id_conflict"
        assert (await peer.ok("get_state"))["steering_mode"] == "all"
        assert (await peer.ok("get_state"))["follow_up_mode"] == "one-at-a-time"
        again = await peer.command("set_steering_mode", {"mode": "all"}, "x")
        assert again.payload == {**first.payload, "duplicate": True}


@pytest.mark.behaviour("P6.10")
async def test_reads_run_anew_whatever_their_id(nous: OpenPeer) -> None:
    async with nous() as peer:
        before = await peer.command("get_state", {}, "x")
        session = await peer.command("new_session", {}, "y")
        after = await peer.command("get_state", {}, "x")
        assert "duplicate" not in after.payload
        assert (before.payload["session_id"], after.payload["session_id"]) == ("", session.payload["session_id"])
        # The id of a change is no reason either, nor the other way round.
        assert (await peer.command("ping", {}, "y")).type == "pong"
        assert (await peer.command("new_session", {}, "x")).payload["session_id"] != session.payload["session_id"]


@pytest.mark.behaviour("P6.11")
async def test_a_refused_command_is_not_remembered(nous: OpenPeer) -> None:
    async with nous() as peer:
        assert (await peer.command("abort", {}, "x")).code == "command_rejected"
        assert (await peer.command("abort", {}, "x")).code == "command_rejected"
        assert (await peer.command("prompt", {"text": "a", "provider": "nobody"}, "x")).code == "invalid_payload"
        accepted = await peer.command("prompt", {"text": "a"}, "x")
        assert accepted.type == "result"
        assert "duplicate" not in accepted.payload


@pytest.mark.behaviour("P6.8")
async def test_a_duplicate_of_a_pending_command_waits_for_its_answer(nous: OpenPeer) -> None:
    release = anyio.Event()
    async with serve(gated(release, "Hello")) as server, nous(chat_setup(server.url)) as peer:
        for _ in range(3):
            await peer.ask("prompt", {"text": "hello"}, "p")
        await peer.events_until("message_update")
        assert (await peer.command("ping")).type == "pong"
        assert (await peer.command("prompt", {"text": "other"}, "p")).code == "id_conflict"
        release.set()
        answers = [await peer.answer("p") for _ in range(3)]
        assert [a.payload["output"] for a in answers] == ["Hello"] * 3
        assert ["duplicate" in a.payload for a in answers] == [False, True, True]
        assert len(server.exchanges) == 1


@pytest.mark.behaviour("P6.8", "P6.11")
async def test_a_duplicate_of_one_that_is_refused_asks_anew(nous: OpenPeer) -> None:
    script = [[{"text": "Half"}, {"delay_ms": 50}, {"error": {"code": "provider_error"}}], [{"text": "Whole"}]]
    async with nous(Setup(script=script)) as peer:
        await peer.ask("prompt", {"text": "hello"}, "p")
        await peer.ask("prompt", {"text": "hello"}, "p")
        first, second = await peer.answer("p"), await peer.answer("p")
        assert (first.code, second.type) == ("provider_error", "result")
        assert second.payload["output"] == "Whole"


@pytest.mark.behaviour("P6.6")
async def test_the_oldest_answer_is_forgotten_first(nous: OpenPeer) -> None:
    async with nous() as peer:
        command = {"mode": "all"}
        for number in range(REMEMBERED + 1):
            await peer.ask("set_steering_mode", command, f"m{number}")
        for number in range(REMEMBERED + 1):
            await peer.answer(f"m{number}")
        kept = await peer.command("set_steering_mode", command, "m1")
        assert kept.payload["duplicate"] is True
        forgotten = await peer.command("set_steering_mode", command, "m0")
        assert "duplicate" not in forgotten.payload


@pytest.mark.behaviour("P6.6")
async def test_answers_past_a_mebibyte_in_all_are_forgotten(nous: OpenPeer) -> None:
    script = [[{"text": "x" * 200_000}]] * 6
    async with nous(Setup(script=script)) as peer:
        for number in range(6):
            assert (await peer.command("prompt", {"text": "hello"}, f"p{number}")).type == "result"
        assert (await peer.command("prompt", {"text": "hello"}, "p5")).payload["duplicate"] is True
        again = await peer.command("prompt", {"text": "hello"}, "p0")
        assert "duplicate" not in again.payload
