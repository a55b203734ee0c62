"""A question to an extension, the call that waits for its answer, and how that can fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, Literal, TypeVar

import anyio
from msgspec import Struct

from nous.extensions.wire import CallKind, ResultLine

T = TypeVar("T")

Progress = Callable[[str], Awaitable[None]]
FailureCode = Literal["extension_timeout", "extension_error"]

PROGRESS_GATHER_S: Final = 0.02
"""Pieces of progress that come closer together than this are handed on as one."""


class CallFailedError(Exception):
    """A call came to nothing.  ``reason`` is a sentence for people, free of what the extension wrote.

    ``is_counted``: it says something about the extension, and so counts for its breaker.
    """

    def __init__(self, code: FailureCode, reason: str, *, is_counted: bool = True) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.is_counted = is_counted


class Question(Struct, Generic[T], frozen=True, kw_only=True):
    """What an extension is asked: a tool, a hook or a command, what it is given and told about it.

    ``timeout_ms`` is for all of it, waiting for its turn and for a start included.  ``read`` says what the answer
    means; what it refuses by raising :class:`CallFailedError` is a failure of the extension like any other.
    """

    kind: CallKind
    name: str
    given: Any
    context: Mapping[str, str]
    timeout_ms: int
    read: Callable[[ResultLine], T]
    progress: Progress | None = None


class PendingCall:
    """What came in for one call so far.  ``answer`` is set once.

    ``output_bytes`` counts its lines; ``cpu_start_s`` is the tree's CPU time when it began.
    """

    def __init__(self, cpu_start_s: float) -> None:
        self.answer: ResultLine | CallFailedError | None = None
        self.output_bytes = 0
        self.cpu_start_s = cpu_start_s
        self._pieces: list[str] = []
        self._changed = anyio.Event()

    def add_progress(self, text: str) -> None:
        """Take a piece of progress."""
        self._pieces.append(text)
        self._changed.set()

    def settle(self, answer: ResultLine | CallFailedError) -> None:
        """End the wait with an answer, or with why there is none."""
        self.answer = answer
        self._changed.set()

    async def follow(self, progress: Progress | None) -> ResultLine:
        """Hand on progress until the answer is there; return it.

        Raises:
            CallFailedError: the process came to an end.
        """
        while self.answer is None:
            await self._changed.wait()
            if self.answer is None:
                with anyio.move_on_after(PROGRESS_GATHER_S):
                    await self._settled()
            await self._hand_on(progress)
        if isinstance(self.answer, CallFailedError):
            raise self.answer
        return self.answer

    async def _settled(self) -> None:
        while self.answer is None:
            self._changed = anyio.Event()
            await self._changed.wait()

    async def _hand_on(self, progress: Progress | None) -> None:
        self._changed = anyio.Event()
        text = "".join(self._pieces)
        self._pieces.clear()
        if text and progress is not None:
            await progress(text)
