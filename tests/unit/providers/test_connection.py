"""One HTTP/1.1 connection over a socket pair: what a peer may send, and what becomes of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import anyio
import anyio.to_thread
import pytest
from anyio import wait_all_tasks_blocked
from hypothesis import given
from hypothesis import strategies as st

from nous.errors import NousError
from nous.providers.connection import MAX_OVERHEAD_BYTES, MAX_PARTS, HttpConnection, Incoming
from tests.support.home import SCALE

pytestmark = pytest.mark.anyio

DEADLINE_S = int(20 * SCALE)
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


@pytest.fixture
def peer() -> Iterator[tuple[HttpConnection, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = HttpConnection(ours, 10)
    yield connection, theirs
    connection.close()
    theirs.close()


async def read_all(connection: HttpConnection) -> bytes:
    with anyio.fail_after(DEADLINE_S):
        await connection.receive_head()
        out = b""
        while data := await connection.read():
            out += data
        return out


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def test_an_exchange_and_another_one(peer: tuple[HttpConnection, socket.socket]) -> None:
    connection, theirs = peer
    for number in (b"1", b"2"):
        await connection.send(b"GET /", number)
        assert theirs.recv(100) == b"GET /" + number
        theirs.send(CHUNKED + chunk(b"a") + chunk(number) + b"0\r\n\r\n")
        assert await read_all(connection) == b"a" + number
        assert connection.is_reusable
        assert await connection.read() == b""


async def test_a_request_in_pieces_of_any_size_and_number(peer: tuple[HttpConnection, socket.socket]) -> None:
    """More than the system takes at once, in pieces and in bytes, to a peer that takes its time."""
    connection, theirs = peer
    parts = [b"%d;" % number * (number % 7) for number in range(3 * MAX_PARTS)]
    parts[MAX_PARTS] = b"x" * 1_000_000
    taken = bytearray()

    def take() -> None:
        while len(taken) < sum(map(len, parts)):
            taken.extend(theirs.recv(10_007))

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, take)
            await connection.send(*parts)
    assert taken == b"".join(parts)


@pytest.mark.parametrize(
    ("raw", "status", "body", "reusable"),
    [
        (SIZED + b"hello", 200, b"hello", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED + b"hello", 200, b"hello", True),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + SIZED + b"hello", 200, b"hello", True),
        (CHUNKED + chunk(b"hello") + b"0\r\nx-trailer: 1\r\n\r\n", 200, b"hello", True),
        (CHUNKED + b"5;name=value\r\nhello\r\n0\r\n\r\n", 200, b"hello", True),
        (SIZED + b"hello and more", 200, b"hello", False),
        (SIZED + b"hello" + SIZED + b"again", 200, b"hello", False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", False),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", 200, b"hello", False),
    ],
    ids=[
        "sized",
        "none",
        "100",
        "103",
        "trailer",
        "chunk-extension",
        "surplus",
        "second",
        "close",
        "old",
        "to-the-end",
    ],
)
async def test_answers(
    peer: tuple[HttpConnection, socket.socket], raw: bytes, status: int, body: bytes, reusable: bool
) -> None:
    connection, theirs = peer
    theirs.send(raw)
    theirs.shutdown(socket.SHUT_WR)
    assert await read_all(connection) == body
    assert (connection.status, connection.is_reusable) == (status, reusable)
    assert "x-trailer" not in connection.headers
    assert "link" not in connection.headers


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200",
        b"SSH-2.0-server\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nwhatever",
        CHUNKED + b"zz\r\n",
        CHUNKED + chunk(b"hello"),
        SIZED + b"hell",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * (MAX_OVERHEAD_BYTES + 1),
        CHUNKED + b"5;" + b"y" * (MAX_OVERHEAD_BYTES + 1),
    ],
    ids=[
        "nothing",
        "cut-head",
        "other",
        "two-sizes",
        "negative",
        "upgrade",
        "bad-chunk",
        "cut-chunks",
        "cut",
        "head",
        "ext",
    ],
)
async def test_what_is_no_answer_or_only_a_part_of_one(peer: tuple[HttpConnection, socket.socket], raw: bytes) -> None:
    connection, theirs = peer

    def send() -> None:
        theirs.sendall(raw)
        theirs.shutdown(socket.SHUT_WR)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, send)
        if b" 101 " in raw:
            assert await read_all(connection) == b""
            assert connection.status == 101
        else:
            with pytest.raises(NousError) as caught:
                await read_all(connection)
            assert caught.value.code == "provider_unavailable"
            assert (caught.value.cause or "").startswith("cut")
    assert not connection.is_reusable


async def test_what_was_good_comes_before_the_failure(peer: tuple[HttpConnection, socket.socket]) -> None:
    connection, theirs = peer
    theirs.send(CHUNKED + chunk(b"good") + b"not a chunk\r\n")
    await connection.receive_head()
    assert await connection.read() == b"good"
    for _ in range(2):
        with pytest.raises(NousError, match="cut"):
            await connection.read()


async def test_a_request_that_is_not_taken_is_answered_all_the_same(peer: tuple[HttpConnection, socket.socket]) -> None:
    """A server may refuse a body that is too long before it has read it all."""
    connection, theirs = peer
    theirs.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    theirs.shutdown(socket.SHUT_RD)
    await connection.send(b"x" * 10_000_000)
    assert await read_all(connection) == b""
    assert connection.status == 413


async def test_a_peer_that_takes_no_request_is_waited_for_no_longer_than_allowed() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        connection = HttpConnection(ours, 0.05)
        with pytest.raises(NousError, match="idle: the request was not taken"):
            await connection.send(b"x" * 10_000_000)
        connection.close()


async def test_a_resting_connection_is_not_used_when_it_is_closed_or_has_something_to_say(
    peer: tuple[HttpConnection, socket.socket],
) -> None:
    connection, theirs = peer
    connection.rest()
    assert connection.is_alive(connection.idle_since, 1)
    assert not connection.is_alive(connection.idle_since + 1.1, 1)
    theirs.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert not connection.is_alive(connection.idle_since, 1)
    theirs.close()
    assert not connection.is_alive(connection.idle_since, 1)


def parse(pieces: list[bytes]) -> tuple[int, dict[str, str], bytes, bool, bool, str]:
    incoming = Incoming()
    for piece in pieces:
        if incoming.failure is None and not incoming.is_complete:
            incoming.feed(piece)
    incoming.end() if not incoming.is_complete else None
    failure = incoming.failure.code if incoming.failure is not None and not incoming.is_complete else ""
    return (
        incoming.status,
        incoming.headers,
        b"".join(incoming.body),
        incoming.is_complete,
        incoming.keeps_alive,
        failure,
    )


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.data())
def test_an_answer_cut_anywhere_is_the_same_answer(chunks: list[bytes], data: st.DataObject) -> None:
    raw = b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED + b"".join(map(chunk, chunks)) + b"0\r\nx: y\r\n\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True) if a < b]
    status, headers, body, complete, keeps_alive, failure = parse(pieces)
    assert (status, body, complete, keeps_alive, failure) == (200, b"".join(chunks), True, True, "")
    assert headers == {"content-type": "text/event-stream", "transfer-encoding": "chunked"}


REPEATED = (
    b"Content-Length: 5\r\nContent-Length: 5",
    b"content-length:5\r\nx-other: 1\r\nCONTENT-LENGTH: 5 \r\nContent-Length: 5, 5",
    b"Content-Length: 5, 5",
)


@pytest.mark.parametrize("raw", REPEATED)
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_length_that_is_repeated_counts_once_wherever_it_is_cut(raw: bytes, before: bytes) -> None:
    """RFC 9112, section 6.3: identical lengths may be taken as one; the connection is not used again."""
    whole = before + b"HTTP/1.1 200 OK\r\nx-first: 1\r\n" + raw + b"\r\nx-last: 2\r\n\r\nhello"
    for cut in range(1, len(whole)):
        status, headers, body, complete, keeps_alive, failure = parse([whole[:cut], whole[cut:]])
        assert (status, body, complete, keeps_alive, failure) == (200, b"hello", True, False, ""), cut
        assert (headers["x-first"], headers["content-length"], headers["x-last"]) == ("1", "5", "2")
    assert parse([whole[at : at + 1] for at in range(len(whole))])[2] == b"hello"


@pytest.mark.parametrize(
    "raw", [b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: 5, 6", b"Content-Length: ,"]
)
def test_lengths_that_disagree_are_a_failure(raw: bytes) -> None:
    whole = b"HTTP/1.1 200 OK\r\n" + raw + b"\r\n\r\nhello"
    for cut in range(1, len(whole)):
        assert parse([whole[:cut], whole[cut:]])[5] == "provider_unavailable"


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_named_failure(raw: bytes) -> None:
    for prefix in (b"", CHUNKED, SIZED):
        _, _, _, complete, _, failure = parse([prefix + raw])
        assert complete or failure == "provider_unavailable"


@pytest.mark.parametrize(
    "raw",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 999",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: Chunked",
    ],
)
async def test_a_transfer_coding_wins_over_a_length(peer: tuple[HttpConnection, socket.socket], raw: bytes) -> None:
    """RFC 9112, section 6.3: and the connection is not used again where both were named."""
    connection, theirs = peer
    theirs.send(b"HTTP/1.1 200 OK\r\n" + raw + b"\r\n\r\n" + chunk(b"hello") + b"0\r\n\r\n")
    assert await read_all(connection) == b"hello"
    assert connection.is_reusable is (raw.lower().count(b":") == 1)


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"chunked, gzip", b"gzip"])
async def test_a_transfer_coding_that_nobody_asked_for_fails(
    peer: tuple[HttpConnection, socket.socket], coding: bytes
) -> None:
    connection, theirs = peer
    theirs.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + coding + b"\r\n\r\n" + chunk(b"\x1f\x8b") + b"0\r\n\r\n")
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(NousError) as caught:
        await read_all(connection)
    assert (caught.value.code, caught.value.cause) == ("provider_error", "the answer cannot be decompressed")


async def test_an_answer_that_comes_before_the_request_is_taken_is_read(
    peer: tuple[HttpConnection, socket.socket],
) -> None:
    connection, theirs = peer
    theirs.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    with anyio.fail_after(DEADLINE_S):
        await connection.send(b"x" * 50_000_000)
        assert await read_all(connection) == b"no"
    assert connection.status == 413
    assert not connection.is_reusable


async def test_a_peer_that_neither_takes_nor_sends_is_given_up(peer: tuple[HttpConnection, socket.socket]) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = HttpConnection(ours, 0.05)
    with pytest.raises(NousError, match="not taken in time"), anyio.fail_after(DEADLINE_S):
        await connection.send(b"x" * 50_000_000)
    connection.close()
    theirs.close()


async def test_a_peer_that_always_has_more_lets_others_run(peer: tuple[HttpConnection, socket.socket]) -> None:
    """Reads that never wait: other tasks run all the same, and a deadline is kept."""
    connection, theirs = peer
    theirs.send(CHUNKED)
    is_over = False

    def flood() -> None:
        piece = chunk(b": keep-alive\n\n" * 4000)
        while not is_over:
            try:
                theirs.sendall(piece)
            except OSError:
                return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, flood)
        await connection.receive_head()
        with anyio.move_on_after(0.2) as scope:
            while await connection.read():
                pass
        is_over = True
        connection.close()
    assert scope.cancelled_caught


async def test_a_head_that_trickles_is_bounded_in_all() -> None:
    """Each byte comes in time, the whole head does not."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = HttpConnection(ours, DEADLINE_S, 0.1)

    async def trickle() -> None:
        for byte in CHUNKED[:-4] * 1000:
            theirs.send(bytes([byte]))
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(trickle)
        with pytest.raises(NousError, match="idle"), anyio.fail_after(DEADLINE_S):
            await connection.receive_head()
        tasks.cancel_scope.cancel()
    connection.close()
    theirs.close()


async def test_what_arrived_while_the_loop_stood_still_is_read(peer: tuple[HttpConnection, socket.socket]) -> None:
    """The process was stopped for longer than the timeout; the answer lies in the socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = HttpConnection(ours, 0.5)
    theirs.send(CHUNKED)
    await connection.receive_head()

    async def stand_still() -> None:
        await wait_all_tasks_blocked()
        theirs.send(chunk(b"hello") + b"0\r\n\r\n")
        time.sleep(0.8)  # noqa: ASYNC251 - the loop stands still, as in a process that is stopped

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stand_still)
        assert await connection.read() == b"hello"
    connection.close()
    theirs.close()
