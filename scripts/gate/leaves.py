"""B1: a prompt from a leaf rebuilds the right path, and links deterministically."""

from __future__ import annotations

from typing import Any

from nous.client import Client, CommandError
from scripts.gate.checks import Place, Table, expect, stream


async def path_of(client: Client, **payload: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.call("get_messages", **payload))["messages"]
    return found


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return [message["text"] for message in messages]


async def path_is_rebuilt(place: Place) -> str:
    """A prompt on an older leaf is asked with the path to that leaf, and no more."""
    async with place.daemon() as client:
        for text in ("one", "two", "three"):
            await stream(client, text)
        whole = await path_of(client)
        leaf_id = whole[1]["id"]
        run_id = (await stream(client, "instead", leaf_id=leaf_id))[0].run_id
        branch = await path_of(client)
        old = await path_of(client, leaf_id=whole[-1]["id"])
    expect(texts(branch) == [*texts(whole[:2]), "instead", "mock response: instead"], texts(branch))
    expect(old == whole, "the old branch has changed")
    context = place.trace(run_id).read_bytes().split(b"\n", 1)[0]
    expect(b'"leaf_id":"%b"' % leaf_id.encode() in context, "the trace does not name the leaf")
    expect(b'"context":{"entries":2,' in context, f"the model was not asked with two messages: {context[-400:]!r}")
    return "asked with the two messages up to the leaf; the old branch stays"


async def links_are_deterministic(place: Place) -> str:
    """Parents are the leaf and then each message the one before, and a replay links the same ids."""
    async with place.daemon() as client:
        await stream(client, "one")
        first = await path_of(client)
        events = await stream(client, "again", leaf_id=first[0]["id"])
        nodes = {node["id"]: node["parent_id"] for node in (await client.call("get_tree"))["nodes"]}
    ids = [event.payload["message_id"] for event in events if event.type == "message_end"]
    expect([nodes[each] for each in ids] == [first[0]["id"], *ids[:-1]], f"parents {nodes}")
    run_id = events[0].run_id
    expect(all(each.startswith(run_id) for each in ids), f"ids {ids} do not follow the run's")
    done = place.nous("replay", place.trace(run_id))
    expect(done.returncode == 0, done.stdout.decode()[-300:] + done.stderr.decode()[-300:])
    return f"{len(ids)} messages linked, the replay the same"


async def unknown_leaf_is_refused(place: Place) -> str:
    """A leaf of nowhere, or of another session, is refused before anything is written."""
    async with place.daemon() as client:
        await stream(client, "one")
        other = (await path_of(client))[-1]["id"]
        session_id = (await client.call("new_session"))["session_id"]
        await stream(client, "two", session_id=session_id)
        before = {path: path.read_bytes() for path in (place.state / "sessions").glob("*.ndjson")}
        runs = len((await client.call("list_runs"))["runs"])
        for leaf_id in ("nowhere", other):
            try:
                await client.call("prompt", text="x", session_id=session_id, leaf_id=leaf_id)
            except CommandError as error:
                expect(error.code == "command_rejected", f"refused with {error.code}")
            else:
                expect(False, f"{leaf_id} was taken")
        after = {path: path.read_bytes() for path in (place.state / "sessions").glob("*.ndjson")}
        expect(after == before, "something was written")
        expect(len((await client.call("list_runs"))["runs"]) == runs, "a run was begun")
    return "refused, nothing written"


CHECKS: Table = {
    "B1.1": ("a prompt from a leaf is asked with the path to it", path_is_rebuilt),
    "B1.2": ("messages are linked deterministically", links_are_deterministic),
    "B1.3": ("an unknown leaf is refused before anything is written", unknown_leaf_is_refused),
}
