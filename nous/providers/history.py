"""A session's messages made fit for a vendor: every tool call has its result, every result its call.  Pure.

Vendors refuse a whole request for one call without a result, and some for two calls with one id.  Such holes are
real: a run was aborted between a tool's start and its end, a session was branched in the middle of a round, a
vendor counted its calls anew in every answer.  The repair is deterministic, so that the same session gives the same
request, and it never changes what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from nous.ports.model import ContextMessage
from nous.protocol.messages import Block, ImageBlock, Message, ToolCallBlock, ToolResultBlock

MISSING_RESULT_TEXT: Final = "This tool call was interrupted: it has no result."


def repair_history(messages: Sequence[ContextMessage]) -> list[ContextMessage]:
    """Return the messages a model may be asked with, in order.

    A call that is not answered before the next user or assistant message gets an error result behind those that
    are there; a result without a call waiting for it is left out, and so is an assistant message that says
    nothing and calls nothing.  A call whose id was used before gets another one, and so does its result.  Messages
    that need no repair are returned as they are, with their encodings.
    """
    return _Repair().run(messages)


class _Repair:
    """Walks the messages once.  ``_waiting`` holds the open calls of ``_asked`` under the ids they have in the end."""

    def __init__(self) -> None:
        self._out: list[ContextMessage] = []
        self._seen: set[str] = set()
        self._asked: ContextMessage | None = None
        self._waiting: list[ToolCallBlock] = []
        self._renamed: dict[str, str] = {}

    def run(self, messages: Sequence[ContextMessage]) -> list[ContextMessage]:
        for item in messages:
            if item.message.role == "tool_result":
                self._take_results(item)
                continue
            self._answer_waiting()
            if item.message.role == "user":
                self._out.append(item)
            elif item.message.text or item.message.tool_calls:
                self._take_answer(item)
        self._answer_waiting()
        return self._out

    def _take_answer(self, item: ContextMessage) -> None:
        calls = item.message.tool_calls
        self._renamed = {c.id: self._fresh_id(c.id, item.message.id) for c in calls if c.id in self._seen}
        if self._renamed:
            item = ContextMessage(_with_call_ids(item.message, self._renamed))
        self._waiting = [*item.message.tool_calls]
        self._seen.update(call.id for call in self._waiting)
        self._asked = item
        self._out.append(item)

    def _fresh_id(self, call_id: str, message_id: str) -> str:
        fresh = f"{message_id}-{call_id}"
        while fresh in self._seen:
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
            self._out.append(item if blocks == item.message.blocks else _with_results(item.message, blocks))

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
            self._out.append(_with_results(self._asked.message, missing))
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
