"""The stream contract: what every adapter promises, proved for each of them with the same tests.

Order, exactly one end, error classes, cuts, silence, cancellation; any cut of the bytes gives the same items.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.errors import NousError
from nous.ports.model import ContextMessage, Finish, ModelItem, ModelRequest, ToolSpec
from nous.protocol.messages import Message
from nous.providers import http
from nous.providers.http import HttpRoom
from nous.providers.presets import PRESETS
from nous.providers.sse import SseParser
from nous.providers.vendor import VendorProvider
from tests.support.home import SCALE
from tests.support.sse_server import Reply, Server, Wire, answers, cuts, data_lines, hangs, serve, streams, trickles
from tests.support.vendor_refusals import REFUSALS, Refusal
from tests.support.vendor_streams import (
    ANSWERS,
    FAILURES,
    FIXTURES,
    KEY,
    adapter_of,
    grammar_faults,
    play,
    recording,
)

pytestmark = pytest.mark.anyio

VENDORS = sorted(PRESETS)
ANSWER_NAMES = [(vendor, name) for vendor, found in ANSWERS.items() for name in found]
FAILURE_NAMES = [(vendor, name) for vendor, found in FAILURES.items() for name in found]
REFUSAL_NAMES = [(vendor, name) for vendor, found in REFUSALS.items() for name in found]
CLASSES = {"auth", "rate-limit", "overload", "overflow"}

DEADLINE_S = int(20 * SCALE)
SHORT_MS = 60
NEVER_MS = 10_000 * DEADLINE_S


def test_every_vendor_is_tested_and_every_recording() -> None:
    assert set(ANSWERS) == set(REFUSALS) == set(VENDORS)
    found = {(path.parent.name, path.stem) for path in FIXTURES.glob("*/*.sse")}
    assert found == {*ANSWER_NAMES, *FAILURE_NAMES}


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_class_of_refusal_is_tested(vendor: str) -> None:
    is_local = PRESETS[vendor].key_variable is None
    assert REFUSALS[vendor].keys() >= CLASSES | (set() if is_local else {"refusal"})


# -- bytes


@pytest.mark.parametrize(("vendor", "name"), ANSWER_NAMES)
def test_answers_cut_at_every_byte(vendor: str, name: str) -> None:
    body, adapter = recording(vendor, name), adapter_of(vendor)
    expected = (ANSWERS[vendor][name], None)
    assert play(adapter.parser(), [body]) == expected
    assert play(adapter.parser(), [bytes([byte]) for byte in body]) == expected
    for cut in range(1, len(body)):
        assert play(adapter.parser(), [body[:cut], body[cut:]]) == expected


@pytest.mark.parametrize(("vendor", "name"), FAILURE_NAMES)
def test_failures_cut_at_every_byte(vendor: str, name: str) -> None:
    body, adapter = recording(vendor, name), adapter_of(vendor)
    for cut in range(1, len(body)):
        items, failure = play(adapter.parser(), [body[:cut], body[cut:]])
        assert failure is not None
        assert (items, failure.code) == FAILURES[vendor][name]


@given(st.sampled_from(ANSWER_NAMES), st.data())
def test_answers_in_any_chunking(which: tuple[str, str], data: st.DataObject) -> None:
    vendor, name = which
    body = recording(vendor, name)
    cut_at = sorted(data.draw(st.sets(st.integers(1, len(body) - 1), max_size=20)))
    chunks = [body[a:b] for a, b in pairwise([0, *cut_at, len(body)])]
    assert play(adapter_of(vendor).parser(), chunks) == (ANSWERS[vendor][name], None)


@pytest.mark.parametrize(("vendor", "name"), ANSWER_NAMES)
def test_an_answer_that_ends_early_is_cut_or_complete(vendor: str, name: str) -> None:
    body, adapter = recording(vendor, name), adapter_of(vendor)
    for end in range(len(body)):
        items, failure = play(adapter.parser(), [body[:end]])
        finished = any(isinstance(item, Finish) for item in items)
        assert not [*grammar_faults(items, finished=finished)]
        assert finished == (failure is None)
        if failure is not None:
            assert failure.code == "provider_unavailable"
            assert (failure.cause or "").startswith("cut")


# -- order


@pytest.mark.parametrize(("vendor", "name"), ANSWER_NAMES)
def test_items_come_as_the_port_promises(vendor: str, name: str) -> None:
    assert not [*grammar_faults(ANSWERS[vendor][name], finished=True)]


@pytest.mark.parametrize("vendor", VENDORS)
def test_nothing_but_usage_follows_the_finish(vendor: str) -> None:
    """However often the stream begins anew."""
    for name in ANSWERS[vendor]:
        items, failure = play(adapter_of(vendor).parser(), [recording(vendor, name)] * 2)
        assert failure is None
        assert not [*grammar_faults(items, finished=True)]


@pytest.mark.parametrize(
    "event",
    ["garbage secret", '{"secret":', "null", "[]", '"secret"', "7", "[" * 100_000, '{"x":' + "9" * 5000 + "}"],
    ids=["text", "half", "null", "list", "string", "number", "deep", "huge-number"],
)
@pytest.mark.parametrize("vendor", VENDORS)
def test_malformed_events_fail_behind_what_was_good(vendor: str, event: str) -> None:
    begun, items = beginning(vendor)
    found, failure = play(adapter_of(vendor).parser(), [begun, data_lines(event), recording(vendor, "text")])
    if event.startswith('{"x":'):  # The number's field means nothing to anyone: it may be passed over.
        assert failure is None or (failure.cause or "").startswith("malformed")
        return
    assert found == items
    assert failure is not None
    assert (failure.code, (failure.cause or "").startswith("malformed")) == ("provider_error", True)
    assert "secret" not in str(failure)


@pytest.mark.parametrize("vendor", VENDORS)
def test_events_of_no_known_kind_are_passed_over(vendor: str) -> None:
    begun, _ = beginning(vendor)
    rest = recording(vendor, "text")[len(begun) :]
    news = data_lines('{"type":"brand.new","object":"brand.new","payload":{"a":[1,{"b":null}]}}', "{}")
    assert play(adapter_of(vendor).parser(), [begun, news, rest]) == (ANSWERS[vendor]["text"], None)


@given(st.sampled_from(VENDORS), st.binary(max_size=200))
def test_any_data_gives_items_or_one_named_error(vendor: str, data: bytes) -> None:
    _, failure = play(adapter_of(vendor).parser(), [b"data: " + data + b"\n\n"])
    assert failure is not None
    assert failure.code in ("provider_error", "provider_unavailable")


@given(st.sampled_from(VENDORS), st.data())
def test_any_event_gives_items_or_one_named_error(vendor: str, data: st.DataObject) -> None:
    """Values of events are exchanged for anything: nothing but a NousError may come of it."""
    events = SseParser().feed(recording(vendor, data.draw(st.sampled_from(sorted(ANSWERS[vendor])))))
    position = data.draw(st.integers(0, len(events) - 1))
    twisted = data.draw(twist(json.loads(events[position]))) if events[position] != b"[DONE]" else {}
    events[position] = json.dumps(twisted).encode()
    items, failure = play(adapter_of(vendor).parser(), [data_lines(*events)])
    finished = any(isinstance(item, Finish) for item in items)
    assert finished or failure is not None
    if failure is not None:
        assert failure.code in ("provider_error", "provider_unavailable", "content_refused", "context_overflow")


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 600), st.text(max_size=5), st.just([]), st.just({}), st.just([{"a": 1}])
)


def twist(value: object) -> st.SearchStrategy[object]:
    """Exchange a part of ``value``, at any depth."""
    if isinstance(value, dict) and value:
        return st.sampled_from(sorted(value)).flatmap(
            lambda key: st.one_of(ANYTHING, twist(value[key])).map(lambda new: {**value, key: new})
        )
    if isinstance(value, list) and value:
        return twist(value[0]).map(lambda new: [new, *value[1:]])
    return ANYTHING


# -- sockets


def beginning(vendor: str) -> tuple[bytes, list[ModelItem]]:
    """Return the first bytes of a recorded answer, up to the event that said something, and what it said."""
    body = recording(vendor, "text")
    ends = [at + len(end) for end in (b"\n\n", b"\r\n\r\n") for at in range(len(body)) if body.startswith(end, at)]
    for end in sorted(ends):
        items, _ = play(adapter_of(vendor).parser(), [body[:end]])
        if items:
            return body[:end], items
    raise AssertionError(vendor)


def ask() -> ModelRequest:
    message = Message(id="m", role="user", text="hi", created_at="")
    tools = [ToolSpec("read", "Read a file.", {"type": "object", "properties": {"path": {"type": "string"}}})]
    return ModelRequest(
        run_id="r", session_id="s", call=1, system="Be nous.", messages=[ContextMessage(message)], tools=tools
    )


@asynccontextmanager
async def provider_for(vendor: str, server: Server, idle_ms: int = 10_000) -> AsyncIterator[VendorProvider]:
    adapter = adapter_of(vendor, api_base=server.url)
    provider = VendorProvider(adapter, HttpRoom(stream_idle_timeout_ms=idle_ms))
    try:
        with anyio.fail_after(DEADLINE_S):
            yield provider
    finally:
        await provider.aclose()


async def collect(provider: VendorProvider, items: list[ModelItem]) -> None:
    async with provider.stream(ask()) as stream:
        async for batch in stream:
            assert batch
            items.extend(batch)


async def outcome(vendor: str, *replies: Reply, idle_ms: int = 10_000) -> tuple[list[ModelItem], NousError]:
    items: list[ModelItem] = []
    async with serve(*replies) as server, provider_for(vendor, server, idle_ms) as provider:
        with pytest.raises(NousError) as caught:
            await collect(provider, items)
    assert KEY not in str(caught.value)
    return items, caught.value


@pytest.mark.parametrize("vendor", VENDORS)
async def test_an_answer_over_a_socket_and_the_request_it_answers(vendor: str) -> None:
    items: list[ModelItem] = []
    replies = [streams(recording(vendor, "text")), trickles(recording(vendor, "text"), 7)]
    async with serve(*replies) as server, provider_for(vendor, server) as provider:
        await collect(provider, items)
        assert items == ANSWERS[vendor]["text"]
        items.clear()
        await collect(provider, items)
        assert items == ANSWERS[vendor]["text"]
    assert server.connections == 1
    for seen in server.exchanges:
        assert seen.headers["content-length"] == str(len(seen.body))
        assert "transfer-encoding" not in seen.headers
        assert isinstance(json.loads(seen.body), dict)
        assert KEY.encode() not in seen.body
        assert KEY not in seen.target
        assert [name for name, value in seen.headers.items() if KEY in value] in (
            ["authorization"],
            ["x-api-key"],
            ["x-goog-api-key"],
        )


@pytest.mark.parametrize(("vendor", "name"), REFUSAL_NAMES)
async def test_refusals(vendor: str, name: str) -> None:
    refusal: Refusal = REFUSALS[vendor][name]
    items, error = await outcome(vendor, refusal.reply())
    assert (items, error.code, error.retry_after_ms) == ([], refusal.code, refusal.retry_after_ms)
    assert "secret" not in str(error)
    assert error.retryable == (refusal.code == "provider_unavailable")


@pytest.mark.parametrize("vendor", VENDORS)
async def test_after_each_refusal_the_next_call_works(vendor: str) -> None:
    items: list[ModelItem] = []
    replies = [answers(429, b"{}"), answers(500, b"<html>", "text/html"), streams(recording(vendor, "text"))]
    async with serve(*replies) as server, provider_for(vendor, server) as provider:
        for _ in range(2):
            with pytest.raises(NousError, match="HTTP"):
                await collect(provider, items)
        await collect(provider, items)
    assert items == ANSWERS[vendor]["text"]


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_cut_answer_gives_what_came_and_is_transient(vendor: str) -> None:
    begun, said = beginning(vendor)
    for reply in (cuts(begun), cuts(begun, framing="length"), cuts(begun, framing="close"), streams(begun)):
        items, error = await outcome(vendor, reply)
        assert (items, error.code) == (said, "provider_unavailable")
        assert (error.cause or "").startswith("cut")


@pytest.mark.parametrize("vendor", VENDORS)
async def test_silence_is_idle(vendor: str) -> None:
    begun, said = beginning(vendor)
    for reply, expected in ((hangs(head=False), []), (hangs(begun), said)):
        items, error = await outcome(vendor, reply, idle_ms=SHORT_MS)
        assert (items, error.code) == (expected, "provider_unavailable")
        assert (error.cause or "").startswith("idle")


@pytest.mark.parametrize("vendor", VENDORS)
async def test_leaving_closes_the_connection_at_once(vendor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "DRAIN_MS", NEVER_MS)
    begun, said = beginning(vendor)
    closed = anyio.Event()
    async with serve(watched(begun, closed)) as server, provider_for(vendor, server, NEVER_MS) as provider:
        async with provider.stream(ask()) as stream:
            assert await anext(stream) == said
            assert not closed.is_set()
        await closed.wait()


@pytest.mark.parametrize("vendor", VENDORS)
async def test_cancelling_a_reader_that_waits_closes_the_connection_at_once(vendor: str) -> None:
    begun, _ = beginning(vendor)
    closed, waiting = anyio.Event(), anyio.Event()

    async def read(provider: VendorProvider) -> None:
        async with provider.stream(ask()) as stream:
            await anext(stream)
            waiting.set()
            await anext(stream)

    async with serve(watched(begun, closed)) as server, provider_for(vendor, server, NEVER_MS) as provider:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, provider)
            await waiting.wait()
            tasks.cancel_scope.cancel()
        await closed.wait()


def watched(begun: bytes, closed: anyio.Event) -> Reply:
    """Begin an answer, then only watch for the client to go."""

    async def reply(wire: Wire) -> None:
        await wire.head()
        await wire.part(begun)
        await wire.wait_closed()
        closed.set()

    return reply
