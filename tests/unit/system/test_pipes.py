"""The daemon's ends of pipes."""

from __future__ import annotations

import fcntl
import os

import anyio
import pytest

from nous.system.pipes import CHUNK_BYTES, PIPE_BYTES, ReadPipe, WritePipe, open_output_pipe
from tests.unit.system.processes import DEADLINE_S

pytestmark = pytest.mark.anyio


async def test_nothing_yet_then_bytes_then_the_end() -> None:
    reading, writing = os.pipe()
    pipe = ReadPipe(reading)
    assert pipe.receive_nowait() is None
    os.write(writing, b"abc")
    assert await pipe.receive() == b"abc"
    os.close(writing)
    assert await pipe.receive() == b""
    pipe.close()


async def test_one_receive_gives_one_chunk_at_most() -> None:
    reading, writing = open_output_pipe()
    os.write(writing, b"x" * (CHUNK_BYTES + 1))
    pipe = ReadPipe(reading)
    assert len(await pipe.receive()) == CHUNK_BYTES
    assert await pipe.receive() == b"x"
    os.close(writing)
    pipe.close()


async def test_receive_waits_for_the_writer() -> None:
    reading, writing = os.pipe()
    pipe = ReadPipe(reading)
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:

            async def write() -> None:
                os.write(writing, b"late")

            tasks.start_soon(write)
            assert await pipe.receive() == b"late"
    os.close(writing)
    pipe.close()


async def test_send_waits_for_the_reader_and_writes_everything() -> None:
    reading, writing = os.pipe()
    source, sink = WritePipe(writing), ReadPipe(reading)
    data = os.urandom(500_000)
    received = bytearray()

    async def send() -> None:
        await source.send(data)
        source.close()

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            while chunk := await sink.receive():
                received += chunk
    assert received == data
    sink.close()


async def test_send_to_nobody_is_an_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    pipe = WritePipe(writing)
    with pytest.raises(BrokenPipeError):
        await pipe.send(b"x")
    pipe.close()


def test_close_closes_once() -> None:
    reading, writing = os.pipe()
    pipes = (ReadPipe(reading), WritePipe(writing))
    for pipe in (*pipes, *pipes):
        pipe.close()
    for fd in (reading, writing):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_an_output_pipe_is_closed_on_exec_and_holds_what_it_should() -> None:
    ends = open_output_pipe()
    assert not any(map(os.get_inheritable, ends))
    assert fcntl.fcntl(ends[0], fcntl.F_GETPIPE_SZ) in (PIPE_BYTES, 65536)
    for fd in ends:
        os.close(fd)
