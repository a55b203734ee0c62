"""Commands that wait for their answers, matched by id."""

from __future__ import annotations

from collections import deque
from typing import Final

import anyio

from nous.client.errors import ClientClosedError
from nous.client.lines import Response
from nous.errors import NousError

MAX_UNMATCHED: Final = 1024
"""Answers to nothing that was asked, newest first to stay: what raw lines were answered, mostly."""


class Pending:
    """A command on its way; ``answer`` may be awaited any number of times, by any number of tasks."""

    def __init__(self, command_id: str, line_bytes: int) -> None:
        self.id = command_id
        self.line_bytes = line_bytes
        self._answered = anyio.Event()
        self._response: Response | None = None
        self._error: NousError | None = None

    @property
    def is_answered(self) -> bool:
        """Whether the wait is over."""
        return self._answered.is_set()

    async def answer(self) -> Response:
        """Wait for the answer, for as long as it takes (``anyio.fail_after`` bounds it).

        A refusal is an answer too: its ``ok`` is false.

        Raises:
            DaemonGoneError: the daemon ended first.
            EventsUnreadError: the answer cannot arrive.
            ClientClosedError: the client was closed first.
        """
        await self._answered.wait()
        if self._response is None:
            raise self._error or ClientClosedError()
        return self._response

    def settle(self, response: Response) -> None:
        """End the wait with an answer."""
        self._response = response
        self._answered.set()

    def fail(self, error: NousError | None) -> None:
        """End the wait without an answer."""
        self._error = error
        self._answered.set()


class PendingCommands:
    """All that wait.  The same id may wait more than once: answers come in the order of the commands."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Pending]] = {}
        self._unmatched: deque[Response] = deque(maxlen=MAX_UNMATCHED)
        self._unmatched_arrived = anyio.Event()
        self._longest_raw_bytes = 0
        self._is_over = False
        self._error: NousError | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, pending: Pending) -> None:
        """Note a command.  After the end it fails at once."""
        if self._is_over:
            pending.fail(self._error)
        else:
            self._waiting.setdefault(pending.id, deque()).append(pending)

    def note_raw(self, line_bytes: int) -> None:
        """Note that a line was sent for which nobody waits."""
        self._longest_raw_bytes = max(self._longest_raw_bytes, line_bytes)

    def settle(self, response: Response) -> None:
        """Give an answer to whoever waits for it."""
        pending = self._find(response)
        if pending is None:
            self._unmatched.append(response)
            self._notify()
            return
        queue = self._waiting[pending.id]
        queue.remove(pending)
        if not queue:
            del self._waiting[pending.id]
        pending.settle(response)

    def _find(self, response: Response) -> Pending | None:
        if response.id in self._waiting:
            return self._waiting[response.id][0]
        if response.error is not None and response.error.code == "line_too_long" and not response.id:
            return self._find_longest()
        return None

    def _find_longest(self) -> Pending | None:
        """Return whose line was too long: the daemon did not read its id, but it can only have been the longest."""
        waiting = [pending for queue in self._waiting.values() for pending in queue]
        longest = max(waiting, key=lambda pending: pending.line_bytes, default=None)
        return longest if longest is not None and longest.line_bytes > self._longest_raw_bytes else None

    def fail(self, error: NousError | None) -> None:
        """Fail everything that waits."""
        waiting, self._waiting = self._waiting, {}
        for queue in waiting.values():
            for pending in queue:
                pending.fail(error)

    def end(self, error: NousError | None) -> None:
        """Fail everything that waits, and whatever still comes."""
        if self._is_over:
            return
        self._is_over = True
        self._error = error
        self.fail(error)
        self._notify()

    async def unmatched(self) -> Response:
        """Return the next answer that belongs to nothing that waits."""
        while not self._unmatched:
            if self._is_over:
                raise self._error or ClientClosedError()
            await self._unmatched_arrived.wait()
        return self._unmatched.popleft()

    def _notify(self) -> None:
        arrived, self._unmatched_arrived = self._unmatched_arrived, anyio.Event()
        arrived.set()
