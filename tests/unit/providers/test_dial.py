"""Sockets to a provider: addresses, several of them, and TLS."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import pytest

from nous.errors import NousError
from nous.providers import dial as dialling
from nous.providers.adapter import HttpRequest
from nous.providers.dial import dial
from nous.providers.faults import fault_of_reply
from nous.providers.http import HttpRoom
from tests.support.home import ROOT, SCALE

pytestmark = pytest.mark.anyio

DEADLINE_S = int(20 * SCALE)
TLS = ROOT / "tests" / "fixtures" / "tls"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextmanager
def listening(backlog: int = 16) -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
        yield listener.getsockname()


def closed_port() -> tuple[str, int]:
    with listening() as address:
        return address


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let every name have these addresses: what a resolver says is not for a test to choose otherwise."""

    def getaddrinfo(host: object, port: object, *, flags: int = 0, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


async def test_an_address_that_refuses_makes_way_for_the_next_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "STAGGER_S", DEADLINE_S * 10)
    with listening() as good, anyio.fail_after(DEADLINE_S):
        resolves_to(monkeypatch, closed_port(), closed_port(), good)
        with await dial("two.invalid", 1) as sock:
            assert sock.getpeername() == good


async def test_an_address_that_is_silent_makes_way_for_the_next_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "STAGGER_S", 0.02)
    # What a full backlog does not take stays unanswered.
    with listening() as good, listening(backlog=0) as full, socket.create_connection(full), socket.socket() as waiting:
        waiting.setblocking(False)
        waiting.connect_ex(full)
        resolves_to(monkeypatch, full, good)
        with anyio.fail_after(DEADLINE_S):
            sock = await dial("two.invalid", 1)
        with sock:
            assert sock.getpeername() == good


async def test_the_first_failure_is_told_if_no_address_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves_to(monkeypatch, closed_port(), closed_port())
    with pytest.raises(ConnectionRefusedError) as caught, anyio.fail_after(DEADLINE_S):
        await dial("two.invalid", 1)
    assert caught.value.errno == errno.ECONNREFUSED


async def test_the_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    six, four = socket.AF_INET6, socket.AF_INET

    def getaddrinfo(host: object, port: object, *, flags: int = 0, **_: object) -> list[tuple[object, ...]]:
        return [(family, socket.SOCK_STREAM, 6, "", (str(n), 1)) for n, family in enumerate([six, six, six, four])]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert [address.family for address in await dialling._resolve("x.invalid", 1)] == [six, four, six, six]


async def test_a_name_that_does_not_resolve_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: object, port: object, *, flags: int = 0, **_: object) -> list[tuple[object, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "secret")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(NousError, match="connect: the provider cannot be reached"):
        await read("http://provider.invalid/")


async def read(url: str, connect_timeout_ms: int = DEADLINE_S * 1000) -> bytes:
    room = HttpRoom(connect_timeout_ms=connect_timeout_ms)
    try:
        with anyio.fail_after(DEADLINE_S):
            async with room.post(HttpRequest(url, {}, (b"body" * 100_000,)), fault_of_reply) as stream:
                out = b""
                while data := await stream.read():
                    out += data
                return out
    finally:
        await room.aclose()


async def test_connecting_takes_no_longer_than_allowed() -> None:
    # Nobody accepts, so nobody answers the handshake.
    with listening() as (_, port), pytest.raises(NousError, match="connect: no answer in time"):
        await read(f"https://127.0.0.1:{port}/", connect_timeout_ms=50)


@asynccontextmanager
async def tls_server(records: list[bytes]) -> AsyncIterator[int]:
    """Answer one request, each of the records on its own, and close."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plain, _ = listener.accept()
            try:
                with context.wrap_socket(plain, server_side=True) as sock:
                    asked = 0
                    while asked < 400_000:
                        asked += len(sock.recv(65536))
                    for record in records:
                        sock.sendall(record)
                    sock.unwrap()
            except (ssl.SSLError, OSError):
                return  # a client that does not trust us goes away
            finally:
                plain.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            await anyio.to_thread.run_sync(thread.join)


async def test_https_with_a_certificate_that_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "certificate.pem"))
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in (b"a" * 40_000, b"b", b"c" * 20_000)]
    async with tls_server([ANSWER, *chunks, b"0\r\n\r\n"]) as port:
        assert await read(f"https://localhost:{port}/v1") == b"a" * 40_000 + b"b" + b"c" * 20_000


async def test_a_certificate_nobody_vouches_for_is_refused_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    async with tls_server([]) as port:
        with pytest.raises(NousError, match="certificate is not accepted") as caught:
            await read(f"https://127.0.0.1:{port}/")
    assert caught.value.code == "provider_error"


async def test_a_certificate_for_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "certificate.pem"))
    async with tls_server([]) as port:
        resolves_to(monkeypatch, ("127.0.0.1", port))
        with pytest.raises(NousError, match="certificate is not accepted"):
            await read(f"https://other.localhost:{port}/")


async def test_certificates_that_cannot_be_read_are_a_named_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(NousError, match="SSL_CERT_FILE or SSL_CERT_DIR") as caught:
        await HttpRoom().warm("https://127.0.0.1:1/")
    assert caught.value.code == "provider_error"
