"""What was said before: ``get_events`` and ``list_runs`` read it from disk, over every transport."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from tests.support.harness import OpenPeer, Peer
from tests.support.home import Home, Setup
from tests.support.lines import Line

pytestmark = pytest.mark.anyio

HANGS = [{"text": "Hello"}, {"hang": True}]


class _Page(msgspec.Struct):
    events: list[msgspec.Raw]


class _Answer(msgspec.Struct):
    payload: _Page


async def page(peer: Peer, run_id: str, **payload: object) -> tuple[list[bytes], dict[str, Any]]:
    """Return the events of one page, byte for byte, and the answer's payload."""
    answer = await peer.command("get_events", {"run_id": run_id, **payload})
    assert not answer.code, answer
    return [bytes(raw) for raw in msgspec.json.decode(answer.raw, type=_Answer).payload.events], answer.payload


def raw(lines: list[Line]) -> list[bytes]:
    return [line.raw for line in lines]


@pytest.mark.behaviour("P6.12")
async def test_events_are_told_again_byte_for_byte(nous: OpenPeer) -> None:
    async with nous() as peer:
        run = await peer.run("hello")
        events, answer = await page(peer, run[0].run_id)
        assert events == raw(run)
        assert (answer["done"], answer["run_id"]) == (True, run[0].run_id)
        assert "next_after_seq" not in answer


@pytest.mark.behaviour("P6.12", "P1.16")
async def test_events_come_in_pages(nous: OpenPeer) -> None:
    script = [[{"text_repeat": {"text": "x" * 100, "count": 5000}}]]
    async with nous(Setup(script=script)) as peer:
        run = await peer.run("hello")
        run_id = run[0].run_id
        found, answer = await page(peer, run_id)
        pages = 1
        while not answer["done"]:
            more, answer = await page(peer, run_id, after_seq=answer["next_after_seq"])
            found, pages = found + more, pages + 1
        assert found == raw(run)
        assert pages > 1
        three, answer = await page(peer, run_id, after_seq=10, limit=3)
        assert three == raw(run[10:13])
        assert (answer["done"], answer["next_after_seq"]) == (False, 13)
        last, answer = await page(peer, run_id, after_seq=len(run))
        assert (last, answer["done"]) == ([], True)


@pytest.mark.behaviour("P6.12", "P2.11")
async def test_feature_events_are_told_to_who_asks(nous: OpenPeer) -> None:
    async with nous(Setup(script=[[{"thinking": "hm"}, {"text": "Hi."}]])) as peer:
        run = await peer.run("hello")
        full, _ = await page(peer, run[0].run_id, features=["thinking"])
        extra = [line for line in full if line not in raw(run)]
        assert [line for line in full if line in raw(run)] == raw(run)
        assert len(extra) == 1
        assert b'"thinking_update"' in extra[0]


@pytest.mark.behaviour("P6.12")
async def test_events_of_a_run_that_goes_on(nous: OpenPeer) -> None:
    async with nous(Setup(script=[HANGS])) as peer:
        run_id = await peer.start("hello")
        seen = await peer.events_until("message_update", run_id=run_id)
        events, answer = await page(peer, run_id)
        assert events == raw([line for line in seen if line.run_id == run_id])
        assert (answer["done"], answer["next_after_seq"]) == (False, len(events))
        await peer.ok("abort")
        run = await peer.run_events(run_id)
        rest, answer = await page(peer, run_id, after_seq=len(events))
        assert events + rest == raw(run)
        assert answer["done"] is True


@pytest.mark.behaviour("P6.12")
async def test_events_survive_the_daemon(nous: OpenPeer) -> None:
    async with nous() as peer:
        run = await peer.run("hello")
    async with nous() as peer:
        events, answer = await page(peer, run[0].run_id)
        assert events == raw(run)
        assert answer["done"] is True


@pytest.mark.behaviour("P6.3")
async def test_runs_are_listed_newest_first(nous: OpenPeer) -> None:
    async with nous(Setup(script=[[{"text": "One."}], [{"text": "Tw"}, {"cut": True}], HANGS])) as peer:
        first = await peer.run("one")
        second = await peer.run("two")
        session = (await peer.ok("new_session"))["session_id"]
        third = await peer.start("three")
        await peer.events_until("message_update", run_id=third)
        runs = (await peer.ok("list_runs"))["runs"]
        assert [run["run_id"] for run in runs] == [third, second[0].run_id, first[0].run_id]
        assert [run["status"] for run in runs] == ["running", "failed", "completed"]
        assert ["ended_at" in run for run in runs] == [False, True, True]
        assert [run["events"] for run in runs[1:]] == [len(second), len(first)]
        assert all(run["started_at"] for run in runs)
        of_session = await peer.ok("list_runs", {"session_id": session})
        assert [run["run_id"] for run in of_session["runs"]] == [third]


@pytest.mark.behaviour("P6.3")
async def test_runs_are_listed_in_pages(nous: OpenPeer) -> None:
    async with nous() as peer:
        ids = [(await peer.run("hello"))[0].run_id for _ in range(5)]
        found: list[str] = []
        payload: dict[str, object] = {"limit": 2}
        while True:
            answer = await peer.ok("list_runs", payload)
            found += [run["run_id"] for run in answer["runs"]]
            if "next_cursor" not in answer:
                break
            payload["cursor"] = answer["next_cursor"]
        assert found == ids[::-1]
        assert (await peer.command("list_runs", {"cursor": "../x"})).code == "invalid_payload"


async def test_one_bad_trace_never_breaks_the_list(nous: OpenPeer, home: Home) -> None:
    async with nous() as peer:
        run = await peer.run("hello")
        traces = home.state / "traces"
        whole = set(traces.iterdir())
        (traces / "run-deep.ndjson").write_bytes(b'{"type":"trace.header","x":' + b"[" * 100_000 + b"\n")
        (traces / "run-empty.ndjson").touch()
        (traces / "run-linked.ndjson").symlink_to("/dev/zero")
        os.mkfifo(traces / "run-fifo.ndjson")
        (traces / "run-directory.ndjson").mkdir()
        bad = set(traces.iterdir()) - whole
        assert len(bad) == 5
        assert [each["run_id"] for each in (await peer.ok("list_runs"))["runs"]] == [run[0].run_id]
        for path in bad:  # what is left is replayed
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()


@pytest.mark.behaviour("P6.14")
@pytest.mark.parametrize("form", ["fixture", "events", None])
async def test_a_run_is_exported_to_a_file_of_the_daemon(nous: OpenPeer, home: Home, form: str | None) -> None:
    async with nous(Setup(script=[[{"text": "One."}], HANGS])) as peer:
        run = await peer.run("hello")
        payload = {"run_id": run[0].run_id} if form is None else {"run_id": run[0].run_id, "format": form}
        answer = await peer.ok("export_trace", payload)
        exported = (home.state / answer["path"]).read_bytes()
        if form == "events":
            assert exported.split(b"\n")[:-1] == raw(run)
        else:
            assert exported.startswith(b'{"type":"trace.header"')
            assert all(line in exported.split(b"\n") for line in raw(run))
        assert (await peer.command("export_trace", {"run_id": "run-none"})).code == "run_not_found"
        active = await peer.start("two")
        assert (await peer.command("export_trace", {"run_id": active})).code == "command_rejected"


async def test_an_event_that_is_longer_than_a_line_is_cut_and_the_next_page_goes_on(home: Home, nous: OpenPeer) -> None:
    """A daemon with a larger ``max_event_bytes`` may have written it."""
    async with nous() as peer:
        run = await peer.run("hello")
        path = home.state / "traces" / f"{run[0].run_id}.ndjson"
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b'"delta":"mock', b'"delta":"' + b"x" * (3 << 20) + b"mock", 1))
        seqs: list[int] = []
        cut: list[dict[str, Any]] = []
        payload: dict[str, object] = {"run_id": run[0].run_id}
        while True:
            answer = await peer.ok("get_events", payload)
            seqs += [event["seq"] for event in answer["events"]]
            cut += [event["payload"] for event in answer["events"] if "truncated_fields" in event["payload"]]
            if answer["done"]:
                break
            payload |= {"after_seq": answer["next_after_seq"]}
        assert seqs == [line.data["seq"] for line in run]
        assert [event["truncated_fields"] for event in cut] == [["delta"]]
        path.write_bytes(whole)
