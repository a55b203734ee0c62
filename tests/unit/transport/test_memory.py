"""The pair of endpoints in memory behaves like a pair of bounded pipes."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from nous.ports.endpoint import BrokenEndpointError
from nous.transport.memory import MemoryEndpoint, memory_pair
from tests.support.home import bounded

pytestmark = pytest.mark.anyio


async def test_bytes_go_both_ways() -> None:
    mine, theirs = memory_pair()
    await mine.send(b"there")
    await theirs.send(b"back")
    assert (await theirs.receive(), await mine.receive()) == (b"there", b"back")


async def test_no_more_than_the_capacity_is_held() -> None:
    mine, theirs = memory_pair(10)
    assert mine.send_nowait(b"0123456") == 7
    assert mine.send_nowait(b"789abc") == 3
    assert mine.send_nowait(b"x") == 0
    assert await theirs.receive() == b"0123456789"
    assert mine.send_nowait(b"x") == 1


async def test_sending_waits_for_the_reader() -> None:
    mine, theirs = memory_pair(10)
    with bounded():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mine.send, b"x" * 35)
            heard = b""
            while len(heard) < 35:
                data = await theirs.receive()
                assert len(data) <= 10
                heard += data


async def test_what_was_sent_before_the_end_is_read_to_the_end() -> None:
    mine, theirs = memory_pair()
    await mine.send(b"last")
    mine.end()
    assert [await theirs.receive() for _ in range(3)] == [b"last", b"", b""]
    await theirs.send(b"still heard")
    assert await mine.receive() == b"still heard"
    with pytest.raises(BrokenEndpointError):
        mine.send_nowait(b"more")


async def test_a_reader_that_waits_hears_of_the_end() -> None:
    mine, theirs = memory_pair()
    with bounded():
        async with anyio.create_task_group() as tasks:
            heard: list[bytes] = []

            async def read(endpoint: MemoryEndpoint) -> None:
                heard.append(await endpoint.receive())

            tasks.start_soon(read, theirs)
            await checkpoint()
            mine.end()
    assert heard == [b""]


async def test_a_writer_hears_of_a_reader_that_is_gone() -> None:
    mine, theirs = memory_pair(10)
    with bounded():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mine.wait_closed)
            await checkpoint()
            await theirs.aclose()
        with pytest.raises(BrokenEndpointError):
            await mine.send(b"x")
    assert await mine.receive() == b""


async def test_a_writer_that_waits_is_told_too() -> None:
    mine, theirs = memory_pair(10)
    told: list[str] = []

    async def write() -> None:
        try:
            await mine.send(b"x" * 100)
        except BrokenEndpointError:
            told.append("broken")

    with bounded():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await checkpoint()
            await theirs.aclose()
    assert told == ["broken"]
