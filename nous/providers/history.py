"""A session's messages made fit for a vendor: every tool call has its result, every result its call.  Pure.

Vendors refuse a whole request for one call without a result, and some for two calls with one id.  Such holes are
real: a run was aborted between a tool's start and its end, a session was branched in the middle of a round, a
vendor counted its calls anew in every answer.  The repair is deterministic, so that the same session gives the same
request, and it never changes what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from nous.ports.model import ContextMessage
from nous.protocol.messages import Block, ImageBlock, Message, ToolCallBlock, ToolResultBlock

MISSING_RESULT_TEXT: Final = "This tool call was interrupted: it has no result."


class Trunk:
    """The repaired messages of a path, as far as they are settled: paths share it until they part.  It only grows.

    ``seen`` holds the ids of its calls.  ``chunks`` belongs to :mod:`nous.providers.chunks`.
    """

    __slots__ = ("chunks", "out", "seen")

    def __init__(self, out: list[ContextMessage], seen: set[str], chunks: dict[str, list[Chunk]]) -> None:
        self.out = out
        self.seen = seen
        self.chunks = chunks


class Chunk(NamedTuple):
    """Messages of a trunk up to ``end`` as a dialect has them, from where the chunk before this one ends."""

    end: int
    data: bytes


class History(NamedTuple):
    """The messages a model may be asked with: the first ``length`` of ``trunk``, and ``tail``."""

    trunk: Trunk
    length: int
    tail: list[ContextMessage]

    def after(self, start: int) -> list[ContextMessage]:
        """Return the messages from position ``start`` on, which is in the trunk."""
        return self.trunk.out[start : self.length] + self.tail


def repair_history(messages: Sequence[ContextMessage]) -> History:
    """Return the messages a model may be asked with, in order.

    A call that is not answered before the next user or assistant message gets an error result behind those that
    are there; a result without a call waiting for it is left out, and so is an assistant message that says
    nothing and calls nothing.  A call whose id was used before gets another one, and so does its result.  Messages
    that need no repair are returned as they are, with their encodings.

    What stands before a user or assistant message is settled, and is not looked at again: asking with the same path,
    grown, costs what was added since.
    """
    if not messages:
        return History(Trunk([], set(), {}), 0, [])
    repair = _Repair(messages[0])
    return repair.run(messages, repair.resume(messages))


class _Settled:
    """The first ``length`` messages of ``trunk`` are what became of everything before a message, on the path that
    begins with ``first``."""

    __slots__ = ("first", "length", "trunk")

    def __init__(self, first: ContextMessage, trunk: Trunk) -> None:
        self.first = first
        self.trunk = trunk
        self.length = len(trunk.out)

    def fork(self) -> Trunk:
        """Return a trunk to go on with: the shared one, unless another path has already gone on."""
        trunk = self.trunk
        if len(trunk.out) == self.length:
            return trunk
        out = trunk.out[: self.length]
        seen = {call.id for item in out for call in item.message.tool_calls}
        # A chunk's end is a boundary of turns only together with the message behind it.
        chunks = {key: [one for one in kept if one.end < self.length] for key, kept in trunk.chunks.items()}
        return Trunk(out, seen, chunks)


class _Repair:
    """Walks the messages once.  ``_waiting`` holds the open calls of ``_asked`` under the ids they have in the end.

    The trunk grows only when something is settled, by what has come up since: ``_tail`` and ``_tail_ids``.
    """

    def __init__(self, first: ContextMessage) -> None:
        self._first = first
        self._trunk = Trunk([], set(), {})
        self._tail: list[ContextMessage] = []
        self._tail_ids: set[str] = set()
        self._asked: ContextMessage | None = None
        self._waiting: list[ToolCallBlock] = []
        self._renamed: dict[str, str] = {}

    def resume(self, messages: Sequence[ContextMessage]) -> int:
        """Take over what is settled of this path; return how many of its messages that accounts for."""
        for position in range(len(messages) - 1, 0, -1):
            settled = messages[position].before
            if isinstance(settled, _Settled) and settled.first is self._first:
                self._trunk = settled.fork()
                return position
        return 0

    def run(self, messages: Sequence[ContextMessage], start: int) -> History:
        for item in messages[start:]:
            if item.message.role == "tool_result":
                self._take_results(item)
                continue
            self._answer_waiting()
            self._settle(item)
            if item.message.role == "user":
                self._tail.append(item)
            elif item.message.text or item.message.tool_calls:
                self._take_answer(item)
        self._answer_waiting()
        return History(self._trunk, len(self._trunk.out), self._tail)

    def _settle(self, item: ContextMessage) -> None:
        self._trunk.out += self._tail
        self._trunk.seen |= self._tail_ids
        self._tail.clear()
        self._tail_ids.clear()
        item.before = _Settled(self._first, self._trunk)

    def _take_answer(self, item: ContextMessage) -> None:
        calls = item.message.tool_calls
        self._renamed = {c.id: self._fresh_id(c.id, item.message.id) for c in calls if self._is_taken(c.id)}
        if self._renamed:
            item = ContextMessage(_with_call_ids(item.message, self._renamed))
        self._waiting = [*item.message.tool_calls]
        self._tail_ids.update(call.id for call in self._waiting)
        self._asked = item
        self._tail.append(item)

    def _is_taken(self, call_id: str) -> bool:
        return call_id in self._trunk.seen or call_id in self._tail_ids

    def _fresh_id(self, call_id: str, message_id: str) -> str:
        fresh = f"{message_id}-{call_id}"
        while self._is_taken(fresh):
            fresh += "x"
        return fresh

    def _take_results(self, item: ContextMessage) -> None:
        """Keep the results that somebody waits for, with the images that belong to them."""
        kept: list[Block] = []
        is_expected = False
        for block in item.message.blocks:
            if isinstance(block, ToolResultBlock):
                result = self._with_new_id(block)
                is_expected = self._stop_waiting(result.tool_call_id)
                if is_expected:
                    kept.append(result)
            elif isinstance(block, ImageBlock) and is_expected:
                kept.append(block)
        if kept:
            blocks = tuple(kept)
            self._tail.append(item if blocks == item.message.blocks else _with_results(item.message, blocks))

    def _with_new_id(self, result: ToolResultBlock) -> ToolResultBlock:
        call_id = self._renamed.get(result.tool_call_id)
        return result if call_id is None else msgspec.structs.replace(result, tool_call_id=call_id)

    def _stop_waiting(self, call_id: str) -> bool:
        for position, call in enumerate(self._waiting):
            if call.id == call_id:
                del self._waiting[position]
                return True
        return False

    def _answer_waiting(self) -> None:
        if self._asked is not None and self._waiting:
            missing = tuple(
                ToolResultBlock(tool_call_id=c.id, tool_name=c.name, text=MISSING_RESULT_TEXT, is_error=True)
                for c in self._waiting
            )
            self._tail.append(_with_results(self._asked.message, missing))
        self._asked = None
        self._waiting = []
        self._renamed = {}


def _with_results(origin: Message, blocks: tuple[Block, ...]) -> ContextMessage:
    results = [block for block in blocks if isinstance(block, ToolResultBlock)]
    message = Message(
        id=origin.id,
        role="tool_result",
        text="\n".join(result.text for result in results),
        created_at=origin.created_at,
        blocks=blocks,
    )
    return ContextMessage(message)


def _with_call_ids(message: Message, ids: dict[str, str]) -> Message:
    blocks = tuple(
        msgspec.structs.replace(b, id=ids[b.id]) if isinstance(b, ToolCallBlock) and b.id in ids else b
        for b in message.blocks
    )
    return msgspec.structs.replace(message, blocks=blocks)
