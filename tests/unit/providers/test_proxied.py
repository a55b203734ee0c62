"""httpx as a client behaves as nous's own does: streams, cuts, silence, back-pressure, leaving.

The tests of the room and of the vendors run over nous's own client; what they say of answers holds here too.
"""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from nous.errors import NousError
from nous.providers.adapter import HttpRequest
from nous.providers.proxied import ProxiedAnswer, ProxiedClient
from tests.support.home import SCALE
from tests.support.sse_server import Framing, Reply, Wire, answers, cuts, hangs, resets, sends, serve, streams

pytestmark = pytest.mark.anyio

DEADLINE_S = int(20 * SCALE)
SHORT_S = 0.06


def make_client(idle_timeout_s: float = DEADLINE_S) -> ProxiedClient:
    return ProxiedClient(connect_timeout_s=DEADLINE_S, idle_timeout_s=idle_timeout_s)


async def read(client: ProxiedClient, url: str, out: bytearray) -> ProxiedAnswer:
    """Read one answer to its end into ``out``."""
    with anyio.fail_after(DEADLINE_S):
        answer = await client.open(HttpRequest(url, {"x-key": "secret"}, (b"body",)))
        try:
            while data := await answer.read():
                out += data
            assert await answer.read() == b""
        finally:
            await answer.aclose()
        return answer


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_an_answer_however_it_is_framed(framing: Framing) -> None:
    async with serve(streams(b"a", b"bc", framing=framing)) as server:
        client, out = make_client(), bytearray()
        answer = await read(client, server.url, out)
        await client.aclose()
    assert (answer.status, answer.headers["content-type"], bytes(out)) == (200, "text/event-stream", b"abc")
    (seen,) = server.exchanges
    assert (seen.headers["content-length"], seen.headers["accept"], seen.body) == ("4", "text/event-stream", b"body")


async def test_connections_are_used_again_and_cookies_are_not_kept() -> None:
    reply = answers(200, b"x", "text/event-stream", {"set-cookie": "id=1; Path=/"})
    async with serve(reply, streams(b"y")) as server:
        client = make_client()
        for expected in (b"x", b"y"):
            out = bytearray()
            await read(client, server.url, out)
            assert bytes(out) == expected
        await client.aclose()
    assert server.connections == 1
    assert "cookie" not in server.exchanges[1].headers


@pytest.mark.parametrize(
    ("reply", "before", "cause"),
    [
        (cuts(b"good"), b"good", "cut"),
        (resets(b"good"), None, "cut"),
        (sends(b"no http at all\r\n\r\n"), b"", "cut"),
        (hangs(b"good"), b"good", "idle"),
        (hangs(head=False), b"", "idle"),
    ],
    ids=["cut", "reset", "garbage", "silent", "silent-from-the-start"],
)
async def test_failures(reply: Reply, before: bytes | None, cause: str) -> None:
    async with serve(reply) as server:
        client, out = make_client(SHORT_S), bytearray()
        with pytest.raises(NousError) as caught:
            await read(client, server.url, out)
        await client.aclose()
    assert caught.value.code == "provider_unavailable"
    assert (caught.value.cause or "").startswith(cause)
    assert before is None or bytes(out) == before


async def test_nobody_listens() -> None:
    async with serve() as server:
        pass
    client = make_client()
    with pytest.raises(NousError, match="connect"):
        await read(client, server.url, bytearray())
    await client.aclose()


async def test_leaving_closes_the_connection_at_once() -> None:
    closed = anyio.Event()

    async def reply(wire: Wire) -> None:
        await wire.head()
        await wire.part(b"a")
        await wire.wait_closed()
        closed.set()

    async with serve(reply) as server:
        client = make_client()
        with anyio.fail_after(DEADLINE_S):
            answer = await client.open(HttpRequest(server.url, {}, ()))
            assert await answer.read() == b"a"
            await answer.aclose()
            await closed.wait()
        await client.aclose()


async def test_a_reader_that_does_not_ask_holds_the_server_back() -> None:
    part, total = b"x" * 60_000, 1000
    wires: list[Wire] = []

    async def reply(wire: Wire) -> None:
        wires.append(wire)
        await wire.head()
        for _ in range(total):
            await wire.part(part)
        await wire.end()

    async with serve(reply) as server:
        client = make_client()
        answer = await client.open(HttpRequest(server.url, {}, ()))
        size = len(await answer.read())
        # Client and server share this loop: every turn is a chance for both to move on.
        for _ in range(2000):
            await checkpoint()
        assert wires[0].sent_bytes < len(part) * total / 4
        while data := await answer.read():
            size += len(data)
        assert size == len(part) * total
        await answer.aclose()
        await client.aclose()
