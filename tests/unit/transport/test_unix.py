"""Listening sockets: private from their first moment, in nobody's way, for our own user only."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from nous.errors import NousError
from nous.ports.endpoint import BrokenEndpointError
from nous.transport.unix import SocketEndpoint, UnixListener, peer_credentials
from tests.support.harness import socket_path
from tests.support.home import bounded

pytestmark = pytest.mark.anyio


@pytest.fixture
def path() -> Iterator[Path]:
    with socket_path() as path:
        yield path


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[tuple[SocketEndpoint, socket.socket]]:
    listener = UnixListener(path)
    with bounded(), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        endpoint = await anext(listener.connections())
        try:
            yield endpoint, client
        finally:
            await endpoint.aclose()
            listener.close()


@pytest.mark.behaviour("P7.3")
def test_a_socket_is_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        listener = UnixListener(path)
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listener.close()
    assert not path.exists()


@pytest.mark.behaviour("P7.4")
async def test_a_peer_of_another_user_is_turned_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = UnixListener(path)
    uid = os.getuid()
    with bounded(), socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as own:
        other.connect(str(path))
        accepted: list[SocketEndpoint] = []
        monkeypatch.setattr(os, "getuid", lambda: uid + 1)

        async def accept() -> None:
            async for endpoint in listener.connections():
                accepted.append(endpoint)
                return

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(accept)
            assert await anyio.to_thread.run_sync(other.recv, 1) == b""
            assert accepted == []
            monkeypatch.undo()
            own.connect(str(path))
        assert len(accepted) == 1
        await accepted[0].aclose()
    listener.close()


async def test_who_is_at_the_other_end(path: Path) -> None:
    async with connected(path) as (endpoint, client):
        assert (endpoint.peer_pid, endpoint.peer_uid) == (os.getpid(), os.getuid())
        assert peer_credentials(client)[1] == os.getuid()


@pytest.mark.behaviour("P7.6")
def test_a_dead_socket_of_ours_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listener = UnixListener(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()


@pytest.mark.behaviour("P7.6")
def test_what_is_not_ours_to_remove_stays(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen()
        with pytest.raises(NousError, match="answers"):
            UnixListener(path)
    assert path.exists()
    path.unlink()
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(NousError, match="not a socket"):
        UnixListener(path)
    assert path.read_text(encoding="utf-8") == "precious"


@pytest.mark.behaviour("P7.6")
def test_a_dead_socket_of_another_user_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(NousError, match="another user"):
        UnixListener(path)
    assert path.exists()


def test_closing_leaves_a_path_that_somebody_else_took_over(path: Path) -> None:
    listener = UnixListener(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        listener.close()
        assert path.exists()
    path.unlink()
    UnixListener(path).close()


@pytest.mark.parametrize("name", ["x" * 120, "nowhere/s"])
def test_a_path_that_cannot_be(path: Path, name: str) -> None:
    with pytest.raises(NousError) as caught:
        UnixListener(path.parent / name)
    assert caught.value.code in ("io_failure", "invalid_usage")
    assert list(path.parent.iterdir()) == []


async def test_bytes_and_the_end(path: Path) -> None:
    async with connected(path) as (endpoint, client):
        client.sendall(b"hello")
        assert await endpoint.receive() == b"hello"
        assert endpoint.send_nowait(b"back") == 4
        assert client.recv(100) == b"back"
        client.shutdown(socket.SHUT_WR)
        assert await endpoint.receive() == b""


async def test_a_full_socket_takes_nothing_more_and_sending_waits(path: Path) -> None:
    data = os.urandom(1 << 20)
    async with connected(path) as (endpoint, client):
        sent = endpoint.send_nowait(data)
        assert sent < len(data)
        assert endpoint.send_nowait(b"x") == 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endpoint.send, data[sent:])
            heard = b""
            while len(heard) < len(data):
                heard += await anyio.to_thread.run_sync(client.recv, 65536)
        assert heard == data


async def test_a_peer_that_is_gone(path: Path) -> None:
    async with connected(path) as (endpoint, client):
        client.sendall(b"said before")
        client.close()
        await endpoint.wait_closed()
        with pytest.raises(BrokenEndpointError):
            endpoint.send_nowait(b"x")
        with pytest.raises(BrokenEndpointError):
            await endpoint.send(b"x")
        assert await endpoint.receive() == b""
