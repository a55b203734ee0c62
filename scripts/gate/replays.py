"""A2: what happened is exported as one file, and that file replays."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from nous.client import Client
from scripts.gate.checks import ROOT, Place, Table, expect, stream
from scripts.gate.stream_first import ROUND


async def fixtures_replay(place: Place) -> str:
    """Every recorded run, in both modes."""
    traces = sorted((ROOT / "fixtures" / "runs").glob("*.ndjson"))
    expect(len(traces) >= 12, f"only {len(traces)} fixtures")
    for mode in ("engine", "daemon"):
        done = place.nous("replay", "--mode", mode, *traces)
        expect(done.returncode == 0, f"{mode}: {done.stdout.decode()[-500:]}{done.stderr.decode()[-500:]}")
    return f"{len(traces)} recorded runs, both modes: identical"


async def run_is_exported_and_replays(place: Place) -> str:
    """A run of just now: exported over the wire, validated, replayed; with one byte changed it is caught."""
    (place.workdir / "a.txt").write_text("hello\n", encoding="utf-8")
    async with place.daemon(ROUND) as client:
        run_id = (await stream(client, "go"))[0].run_id
        exported = place.state / (await client.call("export_trace", run_id=run_id))["path"]
    for command in (["trace", "validate"], ["replay"]):
        done = place.nous(*command, exported)
        expect(done.returncode == 0, f"nous {' '.join(command)}: {done.stdout.decode()[-300:]}")
    tampered = exported.with_name("tampered.trace.ndjson")
    tampered.write_bytes(exported.read_bytes().replace(b"It says ", b"It said ", 1))
    expect(tampered.read_bytes() != exported.read_bytes(), "nothing to change was found")
    done = place.nous("replay", tampered)
    expect(done.returncode in (2, 5), f"one changed byte: nous replay exits {done.returncode}")
    return f"identical; with one byte changed exit {done.returncode}"


async def events_are_told_again(place: Place) -> str:
    """What was streamed is read from disk, byte for byte, also by the next daemon."""
    async with place.daemon() as client:
        streamed = [event.line for event in await stream(client, "hello there")]
    run_id = ""
    async with place.daemon() as client:
        run_id = (await client.call("list_runs"))["runs"][0]["run_id"]
        told = [line async for line in pages_of(client, run_id)]
    expect(told == streamed, f"{len(told)} lines told, {len(streamed)} streamed, not the same")
    return f"{len(streamed)} lines, byte for byte, page by page"


class _Page(msgspec.Struct):
    events: list[msgspec.Raw]
    next_after_seq: int | None = None


class _Answer(msgspec.Struct):
    payload: _Page


async def pages_of(client: Client, run_id: str) -> AsyncIterator[bytes]:
    """Yield a run's events as they are told again, five at a time."""
    after: int | None = 0
    while after is not None:
        answer = await client.send("get_events", run_id=run_id, after_seq=after, limit=5)
        page = msgspec.json.decode(answer.line, type=_Answer).payload
        for event in page.events:
            yield bytes(event)
        after = page.next_after_seq


CHECKS: Table = {
    "A2.1": ("recorded runs replay in both modes", fixtures_replay),
    "A2.2": ("a run is exported, validates, replays, and a changed byte is caught", run_is_exported_and_replays),
    "A2.3": ("events are told again byte for byte", events_are_told_again),
}
