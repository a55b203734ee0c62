"""Listening sockets: private from their first moment, in nobody's way, for our own user only."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import anyio
import pytest

from nous.errors import NousError
from nous.ports.endpoint import BrokenEndpointError
from nous.transport import socket_path as socket_path_module
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


def take_path(path: Path, start: Barrier, results: Queue[str], done: Event) -> None:
    """Take a path at the same time as others, and keep it until all have tried."""
    start.wait()
    try:
        listener = UnixListener(path)
    except NousError as error:
        results.put(error.code)
    else:
        results.put("taken")
        done.wait()
        assert listener is not None


@pytest.mark.behaviour("P7.6")
def test_of_many_that_take_a_dead_socket_at_once_exactly_one_gets_it(path: Path) -> None:
    for _ in range(40):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        context = multiprocessing.get_context("fork")
        start, results = context.Barrier(6), context.Queue()
        done = context.Event()
        children = [context.Process(target=take_path, args=(path, start, results, done)) for _ in range(6)]
        for child in children:
            child.start()
        found = sorted(results.get(timeout=30) for _ in children)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        done.set()
        for child in children:
            child.join()
        assert found == ["invalid_usage"] * 5 + ["taken"]
        path.unlink()


@pytest.mark.behaviour("P7.6")
@pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="only Linux tells")
@pytest.mark.parametrize("relative", [False, True])
def test_a_socket_that_a_living_process_has_bound_stays(
    path: Path, relative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name if relative else str(path))
        inode = path.stat().st_ino
        with pytest.raises(NousError, match="does not listen"):
            UnixListener(path)
        bound.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        assert path.stat().st_ino == inode
    UnixListener(path).close()


def test_a_directory_that_somebody_has_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_path_module, "LOCK_SECONDS", 0)
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(NousError, match="locked it") as caught:
            UnixListener(path)
        assert caught.value.code == "io_failure"
    finally:
        os.close(fd)
    UnixListener(path).close()


def test_a_socket_whose_backlog_is_full_is_answered(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as live, ExitStack() as clients:
        live.bind(str(path))
        live.listen(0)
        with suppress(BlockingIOError):
            while True:
                client = clients.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(NousError, match="answers"):
            UnixListener(path)
    path.unlink()


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
