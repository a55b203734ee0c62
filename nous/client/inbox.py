"""Events that wait to be taken: each is given out once, in the order it came, and none is dropped.

Memory is bounded by whoever fills the inbox: it asks ``queued_bytes`` before it reads on (:mod:`nous.client.client`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, Self

import anyio

from nous.client.lines import Event
from nous.errors import NousError

MAX_ENDED: Final = 1024
"""How many ended runs are remembered, so that iterating one of them once more ends instead of waiting for ever."""


class Inbox:
    """``put`` adds what one read delivered; ``take`` gives out the next event of a run, or of all.

    After ``end`` what is queued can still be taken; then a stream stops, or raises the error the end came with.
    """

    def __init__(self) -> None:
        self.queued_bytes = 0
        self.was_taken = anyio.Event()
        self._queues: dict[str, deque[tuple[int, Event]]] = {}
        self._count = 0
        self._ended_runs: OrderedDict[str, None] = OrderedDict()
        self._arrived = anyio.Event()
        self._is_over = False
        self._error: NousError | None = None

    def put(self, events: list[Event]) -> None:
        """Queue events for whoever reads their run."""
        if self._is_over:
            return
        for event in events:
            self._count += 1
            self._queues.setdefault(event.run_id, deque()).append((self._count, event))
            self.queued_bytes += len(event.line)
        self._notify()

    def end(self, error: NousError | None) -> None:
        """Nothing more will come.  The first call counts."""
        if not self._is_over:
            self._is_over = True
            self._error = error
            self._notify()

    def discard(self) -> None:
        """Let go of everything queued."""
        self._queues.clear()
        self.queued_bytes = 0
        self.was_taken.set()

    def take(self, run_id: str | None) -> Event | None:
        """Return the next event of a run (of any run and of the daemon if None), or None if none is there yet."""
        if run_id is None and self._queues:
            run_id = min(self._queues, key=lambda name: self._queues[name][0][0])
        if run_id is None or run_id not in self._queues:
            return None
        queue = self._queues[run_id]
        _, event = queue.popleft()
        if not queue:
            del self._queues[run_id]
        if event.type == "agent_end":
            self._remember_end(run_id)
        self.queued_bytes -= len(event.line)
        self.was_taken.set()
        return event

    async def wait(self, run_id: str | None) -> bool:
        """Wait until there may be something to take; False once nothing can come any more.

        Raises:
            NousError: what the connection ended with.
        """
        if run_id in self._ended_runs:
            return False
        if self._is_over:
            if self._error is not None:
                raise self._error
            return False
        await self._arrived.wait()
        return True

    def _remember_end(self, run_id: str) -> None:
        self._ended_runs[run_id] = None
        if len(self._ended_runs) > MAX_ENDED:
            self._ended_runs.popitem(last=False)

    def _notify(self) -> None:
        arrived, self._arrived = self._arrived, anyio.Event()
        arrived.set()


class EventStream:
    """An async iterator over events; stop iterating at any time, what was not taken stays for the next one.

    With a ``run_id`` it ends after that run's ``agent_end``; other runs' events stay for others to take.  Without, it
    gives every event, ``ready`` and ``bye`` included, and ends with the connection.

    Raises (while iterating):
        DaemonGoneError: the connection ended before the run did, or without a ``bye``.
    """

    def __init__(self, inbox: Inbox, run_id: str | None) -> None:
        self._inbox = inbox
        self._run_id = run_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while (event := self.take_nowait()) is None:
            if not await self._inbox.wait(self._run_id):
                raise StopAsyncIteration
        return event

    def take_nowait(self) -> Event | None:
        """Return the next event if it is here already: to write what came together at once."""
        return self._inbox.take(self._run_id)
