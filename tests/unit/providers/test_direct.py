"""nous's own HTTP client: connections kept and dropped, requests written, and what is left to httpx."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from nous.errors import NousError
from nous.providers import direct
from nous.providers.adapter import HttpRequest
from nous.providers.direct import DirectClient, encode_head, target_of
from nous.providers.http import route_to
from nous.providers.proxied import ProxiedClient
from tests.support.home import SCALE
from tests.support.sse_server import Reply, Wire, serve, streams

pytestmark = pytest.mark.anyio

DEADLINE_S = int(20 * SCALE)


def make_client() -> DirectClient:
    return DirectClient(connect_timeout_s=DEADLINE_S, idle_timeout_s=DEADLINE_S, context=None)


def make_proxied() -> ProxiedClient:
    return ProxiedClient(connect_timeout_s=DEADLINE_S, idle_timeout_s=DEADLINE_S)


Make = Callable[[], DirectClient | ProxiedClient]


async def read(client: DirectClient | ProxiedClient, url: str) -> bytes:
    with anyio.fail_after(DEADLINE_S):
        answer = await client.open(HttpRequest(url, {}, (b"{}",)))
        out = b""
        while data := await answer.read():
            out += data
        await answer.aclose()
        return out


async def test_a_connection_that_the_server_closed_while_it_rested_is_replaced() -> None:
    async def reply(wire: Wire) -> None:
        await streams(b"x")(wire)
        await wire.close()

    async with serve(reply, streams(b"y")) as server:
        client = make_client()
        assert await read(client, server.url) == b"x"
        await anyio.wait_all_tasks_blocked()
        assert await read(client, server.url) == b"y"
        await client.aclose()
    assert server.connections == 2


async def test_a_connection_that_rested_for_too_long_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "KEEPALIVE_S", -1.0)
    async with serve(streams(b"x"), streams(b"y")) as server:
        client = make_client()
        assert [await read(client, server.url), await read(client, server.url)] == [b"x", b"y"]
        await client.aclose()
    assert server.connections == 2


async def test_servers_do_not_share_connections() -> None:
    async with serve(streams(b"a")) as one, serve(streams(b"b")) as other:
        client = make_client()
        assert [await read(client, one.url), await read(client, other.url)] == [b"a", b"b"]
        await client.aclose()
    assert (one.connections, other.connections) == (1, 1)


@pytest.mark.parametrize(
    ("url", "origin", "authority", "path"),
    [
        ("http://a.example", ("http", "a.example", 80), "a.example", "/"),
        ("https://A.example/v1/x", ("https", "a.example", 443), "a.example", "/v1/x"),
        ("https://a.example:8443/v1?alt=sse", ("https", "a.example", 8443), "a.example:8443", "/v1?alt=sse"),
        ("http://a.example:80/", ("http", "a.example", 80), "a.example", "/"),
        ("http://[::1]:8000/v1", ("http", "::1", 8000), "[::1]:8000", "/v1"),
        ("http://[::1]", ("http", "::1", 80), "[::1]", "/"),
    ],
)
def test_where_an_address_points(url: str, origin: tuple[str, str, int], authority: str, path: str) -> None:
    assert target_of(url) == (origin, authority, path)


def test_a_request_as_it_is_written() -> None:
    request = HttpRequest("http://h:1/p", {"x-key": "secret", "accept": "application/json"}, (b"12345",))
    lines = encode_head(request, target_of(request.url)).split(b"\r\n")
    assert lines[0] == b"POST /p HTTP/1.1"
    assert b"host: h:1" in lines
    assert b"content-length: 5" in lines
    assert b"x-key: secret" in lines
    assert [line for line in lines if line.startswith(b"accept:")] == [b"accept: application/json"]
    assert lines[-2:] == [b"", b""]
    asking = HttpRequest("http://h/p", {}, (), "GET")
    assert b"content-length" not in encode_head(asking, target_of(asking.url))


@pytest.mark.parametrize("value", ["a\r\nx-other: 1", "a\nb", "a\rb", "\xe4"])
def test_a_header_cannot_break_out_of_its_line(value: str) -> None:
    request = HttpRequest("http://h/p", {"x-key": value}, ())
    with pytest.raises(NousError, match="not valid HTTP") as caught:
        encode_head(request, target_of(request.url))
    assert caught.value.code == "provider_error"


@pytest.mark.parametrize(
    ("url", "is_direct"),
    [
        ("https://api.example.com/v1/models?limit=1000", True),
        ("http://[::1]:1/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", True),
        ("https://b\xfccher.example/v1", False),
        ("https://a.example/\xe4", False),
        ('https://a.example/"', False),
        ("http://[fe80::1%eth0]/", False),
        ("https://user@a.example/", False),
        ("https://a.example:/v1", False),
        ("https://a.example/v1\n", False),
    ],
)
def test_addresses_that_have_to_be_encoded_are_left_to_httpx(url: str, is_direct: bool) -> None:
    assert route_to(url, {}).is_direct is is_direct


@pytest.mark.parametrize(
    ("scheme", "variable"), [("http", "http_proxy"), ("https", "HTTPS_PROXY"), ("https", "all_proxy")]
)
def test_what_goes_through_a_proxy_is_left_to_httpx(scheme: str, variable: str) -> None:
    environ = {variable: "http://proxy.invalid:1"}
    assert not route_to(f"{scheme}://a.example/v1", environ).is_direct
    assert route_to("http://127.0.0.1:1/v1", environ).is_direct


def closes_as_it_reads(first: bytes) -> Reply:
    """Answer the first request, and close when the next one arrives on the same connection: the keep-alive race."""

    async def reply(wire: Wire) -> None:
        await streams(first)(wire)
        await wire.incoming.receive_exactly(1)
        await wire.reset()

    return reply


@pytest.mark.parametrize("make", [make_client, make_proxied], ids=["direct", "httpx"])
async def test_a_kept_connection_that_is_closed_as_the_request_arrives_is_replaced(make: Make) -> None:
    async with serve(closes_as_it_reads(b"x"), streams(b"y")) as server:
        client = make()
        assert [await read(client, server.url), await read(client, server.url)] == [b"x", b"y"]
        await client.aclose()
    assert server.connections == 2


@pytest.mark.parametrize("make", [make_client, make_proxied], ids=["direct", "httpx"])
async def test_a_request_is_sent_once_more_only_if_nothing_of_an_answer_came(make: Make) -> None:
    async def begins_and_closes(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\n")
        await wire.close()

    async def says_nothing(wire: Wire) -> None:
        await wire.close()

    async with serve(streams(b"x"), begins_and_closes) as server:
        client = make()
        assert await read(client, server.url) == b"x"
        if make is make_client:
            with pytest.raises(NousError, match="cut"):
                await read(client, server.url)
            assert server.connections == 1
        await client.aclose()
    # A new connection that is closed at once is a failure as any other.
    async with serve(says_nothing) as server:
        client = make()
        with pytest.raises(NousError, match="cut"):
            await read(client, server.url)
        await client.aclose()
        assert server.connections == 1
