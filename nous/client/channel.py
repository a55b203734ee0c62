"""One connection's two tasks: the reader, which sorts lines into answers and events, and the writer.

Guarantees:

* a command line is written whole, also if whoever sent it is cancelled, and in the order of the calls;
* the reader stops reading when nobody takes the events: what the daemon has to say stays with the daemon;
* when the connection ends, everything that waits is told why.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from nous.client.errors import ClientClosedError, DaemonGoneError, EventsUnreadError, NotTheProtocolError
from nous.client.inbox import Inbox
from nous.client.lines import Event, Response, decode_line
from nous.client.link import Link
from nous.client.pending import PendingCommands
from nous.errors import NousError
from nous.protocol.codec import LineDecoder, TooLong

EVENT_BUFFER_BYTES: Final = 1024 * 1024
"""Unread events a client holds before it stops reading."""

ANSWER_BUFFER_BYTES: Final = 16 * 1024 * 1024
"""The same while a command waits: its answer stands behind events, and whoever should take those may be waiting too."""

UNREAD_SECONDS: Final = 30.0
"""With that buffer full and not one event taken for so long, nobody ever will: the waiting commands are told."""

MAX_INCOMING_LINE_BYTES: Final = 16 * 1024 * 1024
"""No line of the protocol is that long (the daemon's limit is 1 MiB unless configured)."""

ExplainEnd = Callable[[NotTheProtocolError | None], Awaitable[NousError | None]]


class Channel:
    """``explain_end`` says why the connection ended: the error for what still waits, None after a proper end.

    It is given the line at which reading stopped if that was none of the protocol.  ``ends_events`` is False where
    events come by another connection, which may have more of them.
    """

    def __init__(
        self,
        link: Link,
        inbox: Inbox,
        pending: PendingCommands,
        explain_end: ExplainEnd,
        *,
        keep_events: bool = True,
        ends_events: bool = True,
    ) -> None:
        self._link = link
        self._inbox = inbox
        self._pending = pending
        self._explain_end = explain_end
        self._keep_events = keep_events
        self._ends_events = ends_events
        self.on_line: Callable[[Event | Response], None] | None = None
        self.ended = anyio.Event()
        self.input_ended = anyio.Event()
        self._outgoing: deque[bytes] = deque()
        self._wake_writer = anyio.Event()
        self._no_more_input = False

    # -- writing

    def put(self, data: bytes) -> None:
        """Queue bytes for the writer.  Never blocks."""
        if self._no_more_input:
            raise ClientClosedError
        self._outgoing.append(data)
        self._wake_writer.set()
        # A command that waits is a reason to read on.
        self._inbox.was_taken.set()

    def end_input(self) -> None:
        """Write what is queued, then say that no more will come."""
        self._no_more_input = True
        self._wake_writer.set()

    async def write(self) -> None:
        """Write queued commands until the channel is closed."""
        try:
            await self._write_queued()
        except OSError:
            # Nobody reads any more; the reader finds out why.
            self._outgoing.clear()
        await self._link.end_input()
        self.input_ended.set()

    async def _write_queued(self) -> None:
        while True:
            self._wake_writer = anyio.Event()
            while self._outgoing:
                await self._link.send(self._outgoing.popleft())
            if self._no_more_input:
                return
            await self._wake_writer.wait()

    # -- reading

    async def read(self) -> None:
        """Sort incoming lines until the daemon closes; then fail what is still waited for."""
        decoder = LineDecoder(MAX_INCOMING_LINE_BYTES)
        error: NousError | None = None
        try:
            while data := await self._link.receive():
                self._sort(decoder.feed(data))
                await self._hold_back()
            error = await self._explain_end(None)
        except NotTheProtocolError as violation:
            error = await self._explain_end(violation)
        finally:
            if self._ends_events:
                self._inbox.end(error)
            self._pending.end(error or DaemonGoneError("the daemon has ended"))
            self.ended.set()

    def _sort(self, lines: list[bytes | TooLong]) -> None:
        events: list[Event] = []
        try:
            for line in lines:
                if isinstance(line, TooLong):
                    raise NotTheProtocolError(b"(a line of more than %d bytes)" % MAX_INCOMING_LINE_BYTES)
                found = decode_line(line)
                if self.on_line is not None:
                    self.on_line(found)
                if isinstance(found, Response):
                    self._pending.settle(found)
                else:
                    events.append(found)
        finally:
            if self._keep_events and events:
                self._inbox.put(events)

    async def _hold_back(self) -> None:
        """Wait until there is room for events, or a reason to read on without."""
        while self._keep_events and self._inbox.queued_bytes > self._bound_bytes():
            self._inbox.was_taken = anyio.Event()
            with anyio.move_on_after(UNREAD_SECONDS) as scope:
                await self._inbox.was_taken.wait()
            if scope.cancelled_caught and self._pending:
                self._pending.fail(EventsUnreadError(self._inbox.queued_bytes))

    def _bound_bytes(self) -> int:
        return ANSWER_BUFFER_BYTES if self._pending else EVENT_BUFFER_BYTES

    def ignore_events(self) -> None:
        """Keep no event any more, and let go of those that are queued: the reader never waits again."""
        self._keep_events = False
        self._inbox.discard()
