"""An endpoint over real descriptors: it never blocks the loop, and never changes what others share."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from nous.ports.endpoint import BrokenEndpointError
from nous.transport.descriptors import DescriptorEndpoint
from tests.support.home import ROOT, SCALE, TEST_SECONDS, bounded

pytestmark = pytest.mark.anyio

BIG = os.urandom(1 << 20)


class Ends:
    """Descriptors by name; what is still open at the end is closed."""

    def __init__(self, **fds: int) -> None:
        self.fds = fds

    def __getattr__(self, name: str) -> int:
        return self.fds[name]

    def close(self, *names: str) -> None:
        for name in names or list(self.fds):
            os.close(self.fds.pop(name))


@contextmanager
def pipes() -> Iterator[tuple[DescriptorEndpoint, Ends]]:
    """An endpoint between two pipes, and what its client holds: ``out`` to write, ``in_`` to read."""
    read_fd, out = os.pipe()
    in_, write_fd = os.pipe()
    ends = Ends(out=out, in_=in_)
    with ExitStack() as stack:
        stack.callback(ends.close)
        stack.callback(os.close, read_fd)
        stack.callback(os.close, write_fd)
        yield DescriptorEndpoint(read_fd, write_fd), ends


async def read_all(fd: int, size: int) -> bytes:
    """Read this much in a thread of its own: also while the loop is busy, or blocked where it should not be."""

    def read() -> bytes:
        data = b""
        while len(data) < size:
            data += os.read(fd, size - len(data))
        return data

    return await anyio.to_thread.run_sync(read)


async def test_bytes_in_and_the_end() -> None:
    with bounded(), pipes() as (endpoint, ends):
        os.write(ends.out, b"hello")
        assert await endpoint.receive() == b"hello"
        ends.close("out")
        assert [await endpoint.receive() for _ in range(2)] == [b"", b""]


async def test_what_fits_leaves_at_once_and_the_rest_is_left_to_us() -> None:
    with bounded(), pipes() as (endpoint, ends):
        assert endpoint.send_nowait(b"hello") == 5
        assert os.read(ends.in_, 100) == b"hello"
        sent = endpoint.send_nowait(BIG)
        assert 0 < sent < len(BIG)
        assert endpoint.send_nowait(b"more") == 0
        assert await read_all(ends.in_, sent) == BIG[:sent]


async def test_sending_everything_waits_for_the_reader() -> None:
    with bounded(), pipes() as (endpoint, ends):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endpoint.send, BIG)
            assert await read_all(ends.in_, len(BIG)) == BIG


async def test_sending_can_be_given_up() -> None:
    with bounded(), pipes() as (endpoint, _):
        with anyio.move_on_after(0.05) as scope:
            await endpoint.send(BIG)
        assert scope.cancelled_caught


async def test_the_descriptors_stay_as_they_were() -> None:
    with bounded(), pipes() as (endpoint, ends):
        endpoint.send_nowait(BIG)
        assert all(os.get_blocking(fd) for fd in (endpoint._read_fd, endpoint._write_fd, ends.out, ends.in_))


async def test_a_descriptor_that_others_made_non_blocking_is_no_error() -> None:
    with bounded(), pipes() as (endpoint, ends):
        os.set_blocking(endpoint._write_fd, False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endpoint.send, BIG)
            assert await read_all(ends.in_, len(BIG)) == BIG


async def test_a_reader_that_is_gone() -> None:
    with bounded(), pipes() as (endpoint, ends):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endpoint.wait_closed)
            ends.close("in_")
        with pytest.raises(BrokenEndpointError):
            endpoint.send_nowait(b"x")
        with pytest.raises(BrokenEndpointError):
            await endpoint.send(b"x")


async def test_a_reader_that_goes_while_we_wait_for_it() -> None:
    with bounded(), pipes() as (endpoint, ends):
        endpoint.send_nowait(BIG)
        told: list[str] = []

        async def write() -> None:
            try:
                await endpoint.send(b"x")
            except BrokenEndpointError:
                told.append("broken")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await checkpoint()
            assert told == []
            ends.close("in_")
        assert told == ["broken"]


async def test_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"commands")
    with (tmp_path / "in").open("rb") as given, (tmp_path / "out").open("wb") as written:
        endpoint = DescriptorEndpoint(given.fileno(), written.fileno())
        with bounded():
            assert [await endpoint.receive() for _ in range(2)] == [b"commands", b""]
            assert endpoint.send_nowait(BIG) == len(BIG)
            await endpoint.send(b"more")
    assert (tmp_path / "out").read_bytes() == BIG + b"more"


async def test_nothing_at_all() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    endpoint = DescriptorEndpoint(null, null)
    with bounded():
        assert await endpoint.receive() == b""
        assert endpoint.send_nowait(BIG) == len(BIG)
        await endpoint.aclose()


async def test_a_terminal() -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    try:
        endpoint = DescriptorEndpoint(slave, slave)
        with bounded():
            os.write(master, b"typed")
            assert await endpoint.receive() == b"typed"
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(endpoint.send, b"x" * 100_000)
                assert await read_all(master, 100_000) == b"x" * 100_000
    finally:
        os.close(master)
        assert await endpoint.receive() == b""
        os.close(slave)


async def test_a_terminal_is_never_written_to_by_the_loop() -> None:
    # Poll may say that it takes some and the write still block: only a thread may wait for it.
    master, slave = os.openpty()
    try:
        assert DescriptorEndpoint(slave, slave).send_nowait(b"x") == 0
    finally:
        os.close(master)
        os.close(slave)


async def test_one_socket_for_both() -> None:
    mine, theirs = socket.socketpair()
    with mine, bounded():
        endpoint = DescriptorEndpoint(theirs.fileno(), theirs.detach())
        mine.sendall(b"hello")
        assert await endpoint.receive() == b"hello"
        assert endpoint.send_nowait(b"back") == 4
        assert mine.recv(100) == b"back"
        mine.close()
        await endpoint.wait_closed()
        await endpoint.aclose()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread writes")
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_write_never_blocks_although_others_write_to_the_same_stream(kind: str) -> None:
    """As stderr on the same pipe does: between the look and the write the room is gone."""
    program = f"""
import os, socket, threading
from nous.transport.descriptors import DescriptorEndpoint
if {kind!r} == "pipe":
    reader, writer = os.pipe()
    other = os.open(f"/proc/self/fd/{{writer}}", os.O_WRONLY | os.O_NONBLOCK)
    fill = lambda: os.write(other, b"o" * 4096)
else:
    left, right = socket.socketpair()
    reader, writer = left.fileno(), right.fileno()
    fill = lambda: right.send(b"o" * 4096, socket.MSG_DONTWAIT)
def others():
    while True:
        try:
            fill()
        except BlockingIOError:
            pass
endpoint = DescriptorEndpoint(os.open("/dev/null", os.O_RDONLY), writer)
threading.Thread(target=others, daemon=True).start()
for _ in range(20_000):
    endpoint.send_nowait(b"m" * 4096)
    os.read(reader, 4096)
os._exit(0)
"""
    limit = TEST_SECONDS * SCALE
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=limit, check=False).returncode == 0
