"""Requests through a real forward proxy (tinyproxy), which asks for a password."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from nous.errors import NousError
from nous.providers.adapter import HttpRequest
from nous.providers.http import HttpRoom
from tests.support.sse_server import serve, streams

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("tinyproxy") is None, reason="tinyproxy is not installed"),
]

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY")


@contextmanager
def tinyproxy(place: Path, upstream_url: str) -> Iterator[str]:
    """Run the proxy; what it is asked for it asks of ``upstream_url``, itself a proxy.  Gives where it listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = place / "tinyproxy.conf"
    config.write_text(
        f"Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 60\nMaxClients 20\n"
        f"BasicAuth user s3cret\nConnectPort 443\n"
        f'Upstream http {upstream_url.removeprefix("http://")} "provider.invalid"\n',
        encoding="utf-8",
    )
    process = subprocess.Popen(
        ["tinyproxy", "-d", "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                continue
            break
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def ask(room: HttpRoom, url: str) -> bytes:
    request = HttpRequest(url, {"authorization": "Bearer sk-key"}, (b"{}",))
    body = b""
    async with room.post(request, lambda reply: NousError("provider_error", f"HTTP {reply.status}")) as stream:
        while data := await stream.read():
            body += data
    return body


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


async def test_a_stream_comes_through_it(tmp_path: Path, environ: pytest.MonkeyPatch) -> None:
    async with serve(streams(b"data: one\n\n", b"data: two\n\n"), streams(b"data: three\n\n")) as server:
        with tinyproxy(tmp_path, server.url) as place:
            environ.setenv("http_proxy", f"http://user:s3cret@{place}")
            room = HttpRoom()
            with anyio.fail_after(60):
                assert await ask(room, "http://provider.invalid/v1/chat") == b"data: one\n\ndata: two\n\n"
                assert await ask(room, "http://provider.invalid/v1/chat") == b"data: three\n\n"
            await room.aclose()
    first = server.exchanges[0]
    assert (first.target.replace(":80/", "/"), first.body) == ("http://provider.invalid/v1/chat", b"{}")
    assert first.headers["authorization"] == "Bearer sk-key"
    assert "proxy-authorization" not in first.headers


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://provider.invalid/v1", ("provider_error", "HTTP 401")),
        ("https://provider.invalid/v1", ("provider_unavailable", "connect: the proxy refused")),
    ],
)
async def test_a_password_it_does_not_take_is_a_named_error(
    tmp_path: Path, environ: pytest.MonkeyPatch, url: str, said: tuple[str, str]
) -> None:
    async with serve() as server:
        with tinyproxy(tmp_path, server.url) as place:
            for name in ("http_proxy", "https_proxy"):
                environ.setenv(name, f"http://user:wr0ng@{place}")
            room = HttpRoom()
            with anyio.fail_after(60), pytest.raises(NousError) as caught:
                await ask(room, url)
            await room.aclose()
    assert (caught.value.code, caught.value.cause) == said
    assert "wr0ng" not in str(caught.value)
    assert "sk-key" not in str(caught.value)
    assert server.exchanges == []
