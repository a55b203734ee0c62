"""Fans a run's events out to everyone who listens, and says when to hold a run back.

A listener is *paced* (stdio: the run waits for it) or not (a socket subscriber: past its bound it is disconnected and
comes back through the disk).  A listener that comes late first gets a run's events so far from disk, then the live
stream, without a hole or a repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from nous.engine.emitter import EmittedEvent
from nous.runtime.outbox import Outbox

PACED_BOUND_BYTES: Final = 256 * 1024
"""A paced listener may lag by this much before runs are held back."""


class Listener:
    """One receiver of events.  ``features`` are the feature events it asked for; ``catching`` the runs it still reads
    from disk, whose live events it does not get yet."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        paced: bool,
        bound_bytes: int,
        on_overrun: Callable[[], None],
        peer_pid: int | None = None,
    ) -> None:
        self.outbox = outbox
        self.paced = paced
        self.bound_bytes = bound_bytes
        self.on_overrun = on_overrun
        self.peer_pid = peer_pid
        self.features: frozenset[str] = frozenset()
        self.catching: set[str] = set()

    def deliver(self, data: bytes) -> None:
        """Queue lines; an unpaced listener over its bound is cut off."""
        self.outbox.put(data)
        if not self.paced and self.outbox.queued_bytes > self.bound_bytes:
            self.on_overrun()


class Hub:
    """Delivers the events of all runs to the connections that listen."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> None:
        """Let a listener hear what comes from now on.  May be repeated."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        """Let a listener hear no more.  May be repeated."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def publish(self, run_id: str, events: Sequence[EmittedEvent]) -> None:
        """Hand events to every listener.  Never blocks; each distinct choice of features is joined once."""
        joined: dict[frozenset[str], bytes] = {}
        for listener in tuple(self._listeners):
            if run_id in listener.catching:
                continue
            data = joined.get(listener.features)
            if data is None:
                data = joined[listener.features] = join_lines(events, listener.features)
            listener.deliver(data)

    def announce(self, line: bytes) -> None:
        """Hand an event outside any run to every listener."""
        for listener in tuple(self._listeners):
            listener.deliver(line)

    def peer_pids(self) -> frozenset[int]:
        """Return the peer processes that get every event right now."""
        return frozenset(x.peer_pid for x in self._listeners if x.peer_pid is not None and not x.catching)

    @property
    def queued_bytes(self) -> int:
        """How much all listeners together have not taken yet."""
        return sum(x.outbox.queued_bytes for x in self._listeners)

    @property
    def congested(self) -> bool:
        """Whether a paced listener holds more unread bytes than it may."""
        return any(x.paced and x.outbox.queued_bytes > PACED_BOUND_BYTES for x in self._listeners)

    async def room(self) -> None:
        """Wait until no paced listener lags: this is how a run is held back."""
        while True:
            slow = next((x for x in self._listeners if x.paced and x.outbox.queued_bytes > PACED_BOUND_BYTES), None)
            if slow is None:
                return
            await slow.outbox.room(PACED_BOUND_BYTES)


def join_lines(events: Sequence[EmittedEvent], features: frozenset[str]) -> bytes:
    """Return the lines of events that a listener with these features gets."""
    return b"".join([e.line for e in events if e.feature is None or e.feature in features])
