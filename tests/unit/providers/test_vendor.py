"""A provider over real sockets: streams, faults, cancellation, back-pressure.

The adapter is OpenAI's; what is tested here holds for every adapter.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from nous.errors import NousError
from nous.ports.model import ContextMessage, Finish, ModelItem, ModelRequest, TextDelta, UsageReport
from nous.protocol.messages import Message, Usage
from nous.providers import http, vendor
from nous.providers.http import HttpRoom
from nous.providers.registry import build_adapter
from nous.providers.settings import ProviderSettings
from nous.providers.vendor import VendorProvider
from tests.support.home import SCALE
from tests.support.sse_server import (
    Framing,
    Reply,
    Server,
    Wire,
    answers,
    cuts,
    data_lines,
    floods,
    hangs,
    resets,
    sends,
    serve,
    streams,
    trickles,
)

pytestmark = pytest.mark.anyio

KEY = "sk-test-0123456789"
DEADLINE_S = int(20 * SCALE)
SHORT_MS = 60
NEVER_MS = 10_000 * DEADLINE_S


def delta(text: str) -> bytes:
    return data_lines(json.dumps({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}))


FINISH = data_lines('{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}')
USAGE = data_lines('{"choices":[],"usage":{"prompt_tokens":3}}')
DONE = data_lines("[DONE]")
END = FINISH + USAGE + DONE
HELLO = [delta("Hel"), delta("lo"), END]
HELLO_ITEMS = [TextDelta("Hel"), TextDelta("lo"), UsageReport(Usage(input_tokens=3)), Finish("stop")]


def ask(text: str = "hi") -> ModelRequest:
    message = Message(id="m", role="user", text=text, created_at="")
    return ModelRequest(run_id="r", session_id="s", call=1, system="", messages=[ContextMessage(message)], tools=[])


@asynccontextmanager
async def provider_for(server: Server, idle_ms: int = 10_000, stall_ms: int = 600_000) -> AsyncIterator[VendorProvider]:
    settings = ProviderSettings(model="m", api_base=server.url, api_key=KEY)
    room = HttpRoom(stream_idle_timeout_ms=idle_ms, stream_stall_timeout_ms=stall_ms)
    provider = VendorProvider(build_adapter("openai", settings), room)
    try:
        with anyio.fail_after(DEADLINE_S):
            yield provider
    finally:
        await provider.aclose()


async def collect(provider: VendorProvider, lists: list[list[ModelItem]]) -> None:
    async with provider.stream(ask()) as stream:
        async for items in stream:
            lists.append(items)


async def answer(provider: VendorProvider) -> list[ModelItem]:
    lists: list[list[ModelItem]] = []
    await collect(provider, lists)
    assert all(lists)
    return [item for items in lists for item in items]


async def outcome(*replies: Reply, idle_ms: int = 10_000, stall_ms: int = 600_000) -> tuple[list[ModelItem], NousError]:
    """Return what one failing call gave before it failed, and how it failed."""
    lists: list[list[ModelItem]] = []
    async with serve(*replies) as server, provider_for(server, idle_ms, stall_ms) as provider:
        with pytest.raises(NousError) as caught:
            await collect(provider, lists)
    assert KEY not in str(caught.value)
    return [item for items in lists for item in items], caught.value


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_an_answer_however_it_is_framed(framing: Framing) -> None:
    async with serve(streams(*HELLO, framing=framing)) as server, provider_for(server) as provider:
        assert await answer(provider) == HELLO_ITEMS


async def test_an_answer_one_byte_at_a_time() -> None:
    async with serve(trickles(b"".join(HELLO))) as server, provider_for(server) as provider:
        assert await answer(provider) == HELLO_ITEMS


async def test_an_answer_of_no_named_type_is_believed() -> None:
    async with serve(streams(*HELLO, content_type=None)) as server, provider_for(server) as provider:
        assert await answer(provider) == HELLO_ITEMS


@pytest.mark.parametrize("encoding", ["Identity", " IDENTITY ", ""])
async def test_an_answer_that_says_it_is_not_compressed(encoding: str) -> None:
    async def reply(wire: Wire) -> None:
        await wire.head(headers={"content-encoding": encoding})
        await wire.part(b"".join(HELLO))
        await wire.end()

    async with serve(reply) as server, provider_for(server) as provider:
        assert await answer(provider) == HELLO_ITEMS


async def test_what_one_write_delivers_comes_as_one_list() -> None:
    """However many HTTP chunks it is made of: a delta must not cost a list of its own."""

    async def reply(wire: Wire) -> None:
        await wire.head()
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [delta(str(n)) for n in range(100)])
        await wire.send(chunks)
        await wire.part(END)
        await wire.end()

    lists: list[list[ModelItem]] = []
    async with serve(reply) as server, provider_for(server) as provider:
        await collect(provider, lists)
    assert [item.text for items in lists for item in items if isinstance(item, TextDelta)] == [
        str(n) for n in range(100)
    ]
    assert max(map(len, lists)) >= 100


async def test_the_request_as_the_server_sees_it() -> None:
    async with serve(streams(*HELLO)) as server, provider_for(server) as provider:
        await answer(provider)
    (seen,) = server.exchanges
    assert seen.target == "/chat/completions"
    assert seen.headers["content-length"] == str(len(seen.body))
    assert "transfer-encoding" not in seen.headers
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["accept"] == "text/event-stream"
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["user-agent"].startswith("nous/")
    assert json.loads(seen.body)["messages"] == [{"role": "user", "content": "hi"}]


async def test_one_client_and_one_connection_for_all_calls() -> None:
    async with serve(*[streams(*HELLO)] * 3) as server, provider_for(server) as provider:
        assert provider.builds == 0
        for _ in range(3):
            assert await answer(provider) == HELLO_ITEMS
        assert provider.builds == 1
    assert server.connections == 1


async def test_warming_makes_the_client_and_connects_nothing() -> None:
    async with serve(streams(*HELLO)) as server, provider_for(server) as provider:
        await provider.warm()
        assert (provider.builds, server.connections) == (1, 0)
        await answer(provider)
        assert provider.builds == 1


async def test_first_calls_at_the_same_time_share_one_client() -> None:
    async with serve(*[streams(*HELLO)] * 3) as server, provider_for(server) as provider:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(answer, provider)
        assert provider.builds == 1


async def test_the_connection_is_kept_when_the_body_ends_a_little_after_done() -> None:
    over = anyio.Event()

    async def reply(wire: Wire) -> None:
        await wire.head()
        await wire.part(b"".join(HELLO))
        await over.wait()
        await wire.end()

    async with serve(reply, streams(*HELLO)) as server, provider_for(server) as provider:
        async with provider.stream(ask()) as stream:
            assert [item async for items in stream for item in items] == HELLO_ITEMS
            over.set()
        assert await answer(provider) == HELLO_ITEMS
    assert server.connections == 1


async def test_a_server_that_holds_the_line_after_done_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "DRAIN_MS", 10)
    async with serve(hangs(b"".join(HELLO)), streams(*HELLO)) as server, provider_for(server) as provider:
        assert await answer(provider) == HELLO_ITEMS
        assert await answer(provider) == HELLO_ITEMS
    assert server.connections == 2


async def test_a_server_that_holds_the_line_after_the_finish_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "TAIL_MS", 10)
    async with serve(hangs(delta("a"), FINISH + USAGE)) as server, provider_for(server) as provider:
        assert await answer(provider) == [TextDelta("a"), UsageReport(Usage(input_tokens=3)), Finish("stop")]


def trickles_for_ever(*first: bytes, piece: bytes = b": keep-alive\n\n", pause_s: float = 0.005) -> Reply:
    """Send ``first``, then ``piece`` over and over, until the client closes."""

    async def reply(wire: Wire) -> None:
        await wire.head()
        try:
            await wire.part(b"".join(first) or piece)
            while True:
                await anyio.sleep(pause_s)
                await wire.part(piece)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            wire.is_open = False

    return reply


BARREN = [b": keep-alive\n\n", data_lines('{"choices":[]}'), b"x"]


@pytest.mark.parametrize("piece", BARREN, ids=["comments", "no-choices", "one-line"])
async def test_the_end_of_a_finished_answer_is_bounded_in_all(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(vendor, "TAIL_MS", 50)
    reply = trickles_for_ever(delta("a"), FINISH + USAGE, piece=piece)
    async with serve(reply) as server, provider_for(server, NEVER_MS) as provider:
        assert await answer(provider) == [TextDelta("a"), UsageReport(Usage(input_tokens=3)), Finish("stop")]


@pytest.mark.parametrize("first", [[], [delta("a")]], ids=["from-the-start", "after-a-delta"])
@pytest.mark.parametrize("piece", BARREN, ids=["comments", "no-choices", "one-line"])
async def test_bytes_without_an_item_are_bounded_in_time(first: list[bytes], piece: bytes) -> None:
    items, error = await outcome(trickles_for_ever(*first, piece=piece), idle_ms=NEVER_MS, stall_ms=50)
    assert items == [TextDelta("a")] * len(first)
    assert (error.code, error.cause) == (
        "provider_unavailable",
        "idle: bytes came, but nothing of the answer in time",
    )


@pytest.mark.parametrize("piece", BARREN[:2], ids=["comments", "no-choices"])
async def test_bytes_without_an_item_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(vendor, "MAX_BARREN_BYTES", 1 << 20)
    items, error = await outcome(trickles_for_ever(delta("a"), piece=piece * 1000, pause_s=0))
    assert (items, error.code) == ([TextDelta("a")], "provider_error")
    assert "1048576 bytes came that hold nothing of an answer" in str(error)


async def test_keep_alives_between_items_are_no_stall() -> None:
    """Each pause is shorter than the bound; all of them together are longer."""

    async def reply(wire: Wire) -> None:
        await wire.head()
        for number in range(40):
            await wire.part(b": keep-alive\n\n")
            await anyio.sleep(0.02)
            await wire.part(delta(str(number)))
        await wire.part(END)
        await wire.end()

    async with serve(reply) as server, provider_for(server, NEVER_MS, 400) as provider:
        assert len(await answer(provider)) == 42


BROKEN = {"chunked": cuts, "length": lambda *parts: cuts(*parts, framing="length"), "reset": resets}


@pytest.mark.parametrize("breaks", BROKEN.values(), ids=BROKEN)
async def test_a_connection_that_breaks_after_a_finish_reason_is_a_cut(breaks: Callable[..., Reply]) -> None:
    """Whether more would have come is not known, because some servers send a reason with every event."""
    items, error = await outcome(breaks(delta("a"), FINISH))
    assert (items, error.code) == ([TextDelta("a")], "provider_unavailable")
    assert (error.cause or "").startswith("cut")


@pytest.mark.parametrize("end", [DONE, b""], ids=["done", "closed"])
async def test_an_end_that_the_server_chose_is_one(end: bytes) -> None:
    """Nothing is missing behind ``[DONE]``, and a body without a length ends with its connection."""
    reply = cuts(delta("a"), FINISH, end) if end else cuts(delta("a"), FINISH, framing="close")
    async with serve(reply) as server, provider_for(server) as provider:
        assert await answer(provider) == [TextDelta("a"), Finish("stop")]


async def test_silence_after_a_reason_beside_content_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends a reason with every event has not ended its answer by one of them."""
    monkeypatch.setattr(vendor, "TAIL_MS", 1)
    each = data_lines('{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}')
    empty = data_lines('{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}')
    for parts in ((each,), (each, empty)):
        items, error = await outcome(hangs(*parts), idle_ms=SHORT_MS)
        assert (items, error.code) == ([TextDelta("a")], "provider_unavailable")
        assert (error.cause or "").startswith("idle")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "provider_error"),
        (401, "provider_auth"),
        (403, "provider_auth"),
        (404, "provider_error"),
        (408, "provider_unavailable"),
        (429, "provider_unavailable"),
        (500, "provider_unavailable"),
        (503, "provider_unavailable"),
        (529, "provider_unavailable"),
    ],
)
async def test_refusals(status: int, code: str) -> None:
    body = json.dumps({"error": {"message": f"secret {KEY}", "code": "some_code"}}).encode()
    items, error = await outcome(answers(status, body))
    assert (items, error.code, error.cause) == ([], code, f"HTTP {status} some_code: secret [redacted]")


async def test_context_overflow() -> None:
    _, error = await outcome(answers(400, b'{"error":{"code":"context_length_exceeded"}}'))
    assert error.code == "context_overflow"


async def test_retry_after() -> None:
    _, error = await outcome(answers(429, headers={"retry-after": "2"}))
    assert error.retry_after_ms == 2000
    dates = {"retry-after": "Fri, 02 Jan 2026 03:04:12 GMT", "date": "Fri, 02 Jan 2026 03:04:05 GMT"}
    _, error = await outcome(answers(503, headers=dates))
    assert error.retry_after_ms == 7000
    for exact, wait_ms in (("1500", 1500), ("1500.25", 1501), ("0.4", 1), ("-1", 2000), ("9" * 12, 2000)):
        _, error = await outcome(answers(429, headers={"retry-after": "2", "retry-after-ms": exact}))
        assert error.retry_after_ms == wait_ms


async def test_a_refusal_whose_body_never_comes_is_still_the_refusal() -> None:
    async def reply(wire: Wire) -> None:
        await wire.head(401, "application/json", framing="length", length=1000)
        await wire.wait_closed()

    _, error = await outcome(reply, idle_ms=SHORT_MS)
    assert error.code == "provider_auth"


async def test_a_refusal_without_end_is_read_no_further_than_needed() -> None:
    _, error = await outcome(floods(500))
    assert error.code == "provider_unavailable"


async def test_the_connection_serves_again_after_a_refusal() -> None:
    async with serve(answers(429, b"{}"), streams(*HELLO)) as server, provider_for(server) as provider:
        with pytest.raises(NousError):
            await answer(provider)
        assert await answer(provider) == HELLO_ITEMS
    assert server.connections == 1


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (answers(200, b'{"choices":[{"message":{"content":"secret"}}]}'), "HTTP 200: application/json"),
        (answers(200, b"<html>", "text/html; charset=utf-8"), "HTTP 200: text/html"),
        (answers(200, b"\x1f\x8b", "text/event-stream", {"content-encoding": "gzip"}), "HTTP 200: text/event-stream"),
        (answers(204), "HTTP 204"),
        (answers(307, headers={"location": "https://example.com/secret"}), "HTTP 307: redirects are not followed"),
    ],
)
async def test_answers_that_are_no_event_stream(reply: Reply, cause: str) -> None:
    items, error = await outcome(reply)
    assert (items, error.code) == ([], "provider_error")
    assert (error.cause or "").startswith(cause)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    "reply",
    [
        cuts(delta("a")),
        cuts(delta("a"), framing="length"),
        cuts(delta("a"), framing="close"),
        cuts(delta("a") + b'data: {"choi', framing="close"),
        streams(delta("a")),
        streams(delta("a") + DONE),
    ],
    ids=["chunked", "length", "close", "within-an-event", "ended-early", "done-without-finish"],
)
async def test_a_cut_answer_gives_what_came_and_is_transient(reply: Reply) -> None:
    items, error = await outcome(reply)
    assert (items, error.code) == ([TextDelta("a")], "provider_unavailable")
    assert (error.cause or "").startswith("cut")


async def test_a_reset_connection_is_transient() -> None:
    _, error = await outcome(resets(delta("a")))
    assert error.code == "provider_unavailable"
    assert (error.cause or "").startswith("cut")


async def test_an_answer_that_ends_before_it_begins() -> None:
    _, error = await outcome(sends(b""))
    assert error.code == "provider_unavailable"


async def test_an_answer_that_is_not_http() -> None:
    _, error = await outcome(sends(b"\x00\x01secret garbage\r\n\r\n"))
    assert error.code == "provider_unavailable"
    assert "secret" not in str(error)


async def test_garbage_in_the_stream_comes_after_what_was_good() -> None:
    items, error = await outcome(streams(delta("a") + data_lines("secret garbage") + END))
    assert (items, error.code) == ([TextDelta("a")], "provider_error")
    assert "secret" not in str(error)


async def test_an_error_object_in_the_stream() -> None:
    items, error = await outcome(streams(delta("a") + data_lines('{"error":{"type":"server_error"}}')))
    assert (items, error.code) == ([TextDelta("a")], "provider_unavailable")


@pytest.mark.parametrize(
    ("reply", "items"),
    [(hangs(head=False), []), (hangs(), []), (hangs(delta("a")), [TextDelta("a")])],
    ids=["no-head", "no-body", "mid-stream"],
)
async def test_silence_is_idle(reply: Reply, items: list[ModelItem]) -> None:
    seen, error = await outcome(reply, idle_ms=SHORT_MS)
    assert (seen, error.code) == (items, "provider_unavailable")
    assert (error.cause or "").startswith("idle")


async def test_nobody_listens() -> None:
    async with serve() as server:
        pass
    async with provider_for(server) as provider:
        with pytest.raises(NousError) as caught:
            await answer(provider)
    assert caught.value.code == "provider_unavailable"
    assert (caught.value.cause or "").startswith("connect")


async def test_after_a_failure_the_next_call_works() -> None:
    replies = [cuts(delta("a")), answers(500), streams(data_lines("garbage")), streams(*HELLO)]
    async with serve(*replies) as server, provider_for(server) as provider:
        for _ in range(3):
            with pytest.raises(NousError):
                await answer(provider)
        assert await answer(provider) == HELLO_ITEMS
        assert provider.builds == 1


def watched(closed: anyio.Event) -> Reply:
    """Give one delta, then only watch for the client to go."""

    async def reply(wire: Wire) -> None:
        await wire.head()
        await wire.part(delta("a"))
        await wire.wait_closed()
        closed.set()

    return reply


async def test_leaving_the_context_closes_the_connection_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "DRAIN_MS", NEVER_MS)
    closed = anyio.Event()
    async with serve(watched(closed)) as server, provider_for(server, NEVER_MS) as provider:
        async with provider.stream(ask()) as stream:
            assert await anext(stream) == [TextDelta("a")]
            assert not closed.is_set()
        await closed.wait()


async def read_and_fail(provider: VendorProvider) -> None:
    async with provider.stream(ask()) as stream:
        await anext(stream)
        raise KeyError("mine")


async def test_an_error_of_the_reader_comes_out_as_it_is_and_closes_the_connection() -> None:
    closed = anyio.Event()
    async with serve(watched(closed)) as server, provider_for(server) as provider:
        with pytest.raises(KeyError, match="mine"):
            await read_and_fail(provider)
        await closed.wait()


async def test_cancelling_a_reader_that_waits_closes_the_connection() -> None:
    closed, reading = anyio.Event(), anyio.Event()

    async def read(provider: VendorProvider) -> None:
        async with provider.stream(ask()) as stream:
            await anext(stream)
            reading.set()
            await anext(stream)

    async with serve(watched(closed)) as server, provider_for(server) as provider:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, provider)
            await reading.wait()
            tasks.cancel_scope.cancel()
        await closed.wait()


async def test_cancelling_before_the_answer_closes_the_connection() -> None:
    asked, closed = anyio.Event(), anyio.Event()

    async def reply(wire: Wire) -> None:
        asked.set()
        await wire.wait_closed()
        closed.set()

    async with serve(reply) as server, provider_for(server) as provider:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer, provider)
            await asked.wait()
            tasks.cancel_scope.cancel()
        await closed.wait()


async def test_a_reader_that_does_not_ask_holds_the_server_back() -> None:
    part, total = delta("x" * 1000) * 60, 1000
    wires: list[Wire] = []

    async def reply(wire: Wire) -> None:
        wires.append(wire)
        await wire.head()
        for _ in range(total):
            await wire.part(part)
        await wire.part(END)
        await wire.end()

    async with serve(reply) as server, provider_for(server) as provider, provider.stream(ask()) as stream:
        count = len(await anext(stream))
        # Client and server share this loop: every turn is a chance for both to move on.
        for _ in range(2000):
            await checkpoint()
        assert wires[0].sent_bytes < len(part) * total / 4
        async for items in stream:
            count += sum(isinstance(item, TextDelta) for item in items)
    assert count == 60 * total


async def test_an_endless_event_is_refused() -> None:
    items, error = await outcome(floods(first=delta("a") + b"data: "))
    assert (items, error.code) == ([TextDelta("a")], "provider_error")
    assert "longer" in (error.cause or "")
