"""The HTTP room: proxies, cookies, environment, and what it imports when."""

from __future__ import annotations

import subprocess
import sys

import anyio
import pytest

from nous.errors import NousError
from nous.providers.adapter import HttpRequest
from nous.providers.faults import ErrorReply, fault_of_reply
from nous.providers.http import HttpRoom
from tests.support.home import SCALE
from tests.support.sse_server import answers, serve, streams

pytestmark = pytest.mark.anyio

DEADLINE_S = int(20 * SCALE)
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


async def read(room: HttpRoom, url: str) -> bytes:
    with anyio.fail_after(DEADLINE_S):
        async with room.post(HttpRequest(url, {"x-key": "secret"}, (b"body",)), fault_of_reply) as stream:
            out = b""
            while data := await stream.read():
                out += data
            return out


async def test_no_proxy_is_used_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with serve(streams(b"direct")) as server, serve() as proxy:
        for name in PROXY_VARIABLES:
            monkeypatch.setenv(name, proxy.url)
        room = HttpRoom()
        assert await read(room, server.url) == b"direct"
        await room.aclose()
    assert proxy.connections == 0


async def test_other_machines_are_reached_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(streams(b"proxied")) as proxy:
        for name in PROXY_VARIABLES:
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        room = HttpRoom()
        assert await read(room, "http://provider.invalid/v1") == b"proxied"
        await room.aclose()
    assert proxy.exchanges[0].target == "http://provider.invalid/v1"


async def test_a_proxy_that_cannot_be_used_is_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.setenv(name, "gopher://user:secret@127.0.0.1:1")
    with pytest.raises(NousError, match="proxy") as caught:
        await HttpRoom().warm("https://provider.invalid")
    assert caught.value.code == "provider_error"
    assert "secret" not in str(caught.value)


async def test_this_machine_and_the_others_have_a_client_each() -> None:
    room = HttpRoom()
    for url in ["http://127.0.0.1:1", "http://localhost:2", "https://a.invalid", "https://b.invalid"]:
        await room.warm(url)
    assert room.builds == 2
    await room.aclose()


async def test_cookies_are_not_kept() -> None:
    reply = answers(200, b"x", "text/event-stream", {"set-cookie": "id=1; Path=/"})
    async with serve(reply, streams(b"y")) as server:
        room = HttpRoom()
        assert [await read(room, server.url), await read(room, server.url)] == [b"x", b"y"]
        await room.aclose()
    assert [("cookie" in exchange.headers) for exchange in server.exchanges] == [False, False]


async def test_a_closed_room_opens_again() -> None:
    async with serve(streams(b"x"), streams(b"y")) as server:
        room = HttpRoom()
        assert await read(room, server.url) == b"x"
        await room.aclose()
        assert await read(room, server.url) == b"y"
        assert room.builds == 2
        await room.aclose()


async def test_the_end_stays_the_end() -> None:
    async with serve(streams(b"x")) as server:
        room = HttpRoom()
        async with room.post(HttpRequest(server.url, {}, ()), fault_of_reply) as stream:
            assert [await stream.read() for _ in range(3)] == [b"x", b"", b""]
        await room.aclose()


async def test_the_fault_is_told_what_was_answered() -> None:
    seen: list[ErrorReply] = []

    def fault(reply: ErrorReply) -> NousError:
        seen.append(reply)
        return NousError("provider_error")

    async with serve(answers(418, b"tea", "Text/Plain; charset=x", {"retry-after": "1"})) as server:
        room = HttpRoom()
        with pytest.raises(NousError):
            async with room.post(HttpRequest(server.url, {}, ()), fault):
                pass
        await room.aclose()
    assert seen == [ErrorReply(418, "text/plain", b"tea", 1000)]


def test_building_a_provider_imports_neither_httpx_nor_yaml() -> None:
    code = (
        "import sys\n"
        "from nous.providers.registry import build_provider\n"
        "from nous.providers.settings import ProviderSettings\n"
        "build_provider('mock', ProviderSettings())\n"
        "build_provider('openai', ProviderSettings(model='m', api_key='k'))\n"
        "print(sorted({'httpx2', 'httpcore2', 'yaml', 'structlog'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
