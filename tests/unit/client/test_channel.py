from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked

from nous.client import channel as channel_module
from nous.client.beside import run_beside
from nous.client.channel import ANSWER_BUFFER_BYTES, EVENT_BUFFER_BYTES, Channel
from nous.client.errors import ClientClosedError, DaemonGoneError, EventsUnreadError, NotTheProtocolError
from nous.client.inbox import EventStream, Inbox
from nous.client.pending import Pending, PendingCommands
from nous.errors import NousError
from tests.unit.client.links import MemoryLink, event_line, response_line

pytestmark = pytest.mark.anyio

CHUNK_EVENTS = 100
DELTA = "x" * 1000


class Bench:
    """A channel over a link in memory, with its tasks running."""

    def __init__(self, *, keep_events: bool = True) -> None:
        self.link = MemoryLink()
        self.inbox = Inbox()
        self.pending = PendingCommands()
        self.channel = Channel(self.link, self.inbox, self.pending, self.explain, keep_events=keep_events)

    async def explain(self, violation: NotTheProtocolError | None) -> NousError | None:
        return violation

    def ask(self, command_id: str, data: bytes = b"a command\n") -> Pending:
        pending = Pending(command_id, len(data))
        self.channel.put(data)
        self.pending.add(pending)
        return pending

    def say_events(self, chunks: int) -> int:
        """Queue reads of many events each; return how many bytes one holds."""
        for chunk in range(chunks):
            first = chunk * CHUNK_EVENTS + 1
            lines = [event_line("r", seq, delta=DELTA) for seq in range(first, first + CHUNK_EVENTS)]
            self.link.say(b"".join(lines))
        return len(b"".join(lines))


@asynccontextmanager
async def running(*, keep_events: bool = True) -> AsyncIterator[Bench]:
    bench = Bench(keep_events=keep_events)
    with anyio.fail_after(60):
        async with run_beside(bench.channel.read, bench.channel.write):
            yield bench


async def test_answers_find_their_commands_in_any_order() -> None:
    async with running() as bench:
        first, second = bench.ask("a"), bench.ask("b")
        bench.link.say(response_line("b") + response_line("a"))
        assert (await second.answer()).id == "b"
        assert (await first.answer()).id == "a"


async def test_the_same_id_twice_is_answered_in_order() -> None:
    async with running() as bench:
        first, second = bench.ask("a"), bench.ask("a")
        bench.link.say(response_line("a", "one") + response_line("a", "two"))
        assert [(await first.answer()).type, (await second.answer()).type] == ["one", "two"]


async def test_an_answer_to_nothing_is_kept_apart() -> None:
    async with running() as bench:
        bench.link.say(response_line("", "error", error={"code": "invalid_command"}))
        response = await bench.pending.unmatched()
        assert response.error is not None
        assert response.error.code == "invalid_command"


async def test_a_line_that_was_too_long_is_the_longest_that_waits() -> None:
    async with running() as bench:
        short, long = bench.ask("a", b"1\n"), bench.ask("b", b"12345\n")
        bench.link.say(response_line("", "error", error={"code": "line_too_long"}))
        response = await long.answer()
        assert response.error is not None
        assert response.error.code == "line_too_long"
        assert not short.is_answered


async def test_a_raw_line_that_was_too_long_is_nobodys() -> None:
    async with running() as bench:
        waiting = bench.ask("a", b"1\n")
        bench.pending.note_raw(100)
        bench.link.say(response_line("", "error", error={"code": "line_too_long"}))
        await bench.pending.unmatched()
        assert not waiting.is_answered


async def test_lines_may_be_cut_anywhere() -> None:
    async with running() as bench:
        waiting = bench.ask("a")
        for byte in event_line("r", 1, delta="\u2028") + response_line("a"):
            bench.link.say(bytes([byte]))
        await waiting.answer()
        event = bench.inbox.take("r")
        assert event is not None
        assert event.payload["delta"] == "\u2028"


async def test_reading_stops_while_nobody_takes_the_events_and_none_is_lost() -> None:
    async with running() as bench:
        chunk_bytes = bench.say_events(chunks=30)
        await wait_all_tasks_blocked()
        assert EVENT_BUFFER_BYTES < bench.inbox.queued_bytes <= EVENT_BUFFER_BYTES + chunk_bytes
        assert bench.link.reads < 30
        bench.link.hang_up()
        assert [event.seq async for event in EventStream(bench.inbox, None)] == list(range(1, 30 * CHUNK_EVENTS + 1))
        assert bench.inbox.queued_bytes == 0


async def test_reading_goes_on_while_a_command_waits_for_its_answer() -> None:
    async with running() as bench:
        bench.say_events(chunks=30)
        await wait_all_tasks_blocked()
        waiting = bench.ask("a")
        bench.link.say(response_line("a"))
        await waiting.answer()
        assert bench.link.reads == 31


async def test_an_answer_behind_events_that_nobody_takes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "UNREAD_SECONDS", 0.0)
    async with running() as bench:
        waiting = bench.ask("a")
        chunk_bytes = bench.say_events(chunks=ANSWER_BUFFER_BYTES // (CHUNK_EVENTS * 1000) + 10)
        with pytest.raises(EventsUnreadError):
            await waiting.answer()
        assert bench.inbox.queued_bytes <= ANSWER_BUFFER_BYTES + chunk_bytes


async def test_who_wants_no_events_gets_answers_behind_any_number() -> None:
    async with running(keep_events=False) as bench:
        waiting = bench.ask("a")
        bench.say_events(chunks=30)
        bench.link.say(response_line("a"))
        await waiting.answer()
        assert bench.inbox.queued_bytes == 0


async def test_a_line_leaves_whole_and_in_order_also_if_its_sender_is_cancelled() -> None:
    async with running() as bench:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await bench.ask("a", b"first\n").answer()
        bench.ask("b", b"second\n")
        await wait_all_tasks_blocked()
        assert bench.link.sent == [b"first\n", b"second\n"]


async def test_the_end_of_input_comes_behind_what_is_queued() -> None:
    async with running() as bench:
        bench.ask("a", b"first\n")
        bench.channel.end_input()
        await bench.channel.input_ended.wait()
        assert bench.link.sent == [b"first\n"]
        assert bench.link.input_ended
        with pytest.raises(ClientClosedError):
            bench.channel.put(b"more\n")


async def test_what_waits_when_the_connection_ends_is_told() -> None:
    async with running() as bench:
        waiting = bench.ask("a")
        bench.link.is_broken = True
        bench.link.hang_up()
        with pytest.raises(DaemonGoneError):
            await waiting.answer()
        with pytest.raises(DaemonGoneError):
            await bench.ask("b").answer()
        with pytest.raises(DaemonGoneError):
            await bench.pending.unmatched()


async def test_a_torn_last_line_is_no_event() -> None:
    async with running() as bench:
        bench.link.say(event_line("r", 1) + event_line("r", 2)[:-1])
        bench.link.hang_up()
        assert [event.seq async for event in EventStream(bench.inbox, None)] == [1]


@pytest.mark.parametrize("line", [b"Welcome!\n", b'["v"]\n', b'{"type":"status"}\n', b"\xff\xfe\n", b"9" * 17_000_000])
async def test_what_is_no_line_of_the_protocol_ends_the_connection(line: bytes) -> None:
    async with running() as bench:
        waiting = bench.ask("a")
        bench.link.say(event_line("r", 1) + line + b"\n")
        with pytest.raises(NotTheProtocolError):
            await waiting.answer()
        assert bench.inbox.take("r") is not None, "what came before is still there"
        with pytest.raises(NotTheProtocolError):
            await anext(EventStream(bench.inbox, None))
