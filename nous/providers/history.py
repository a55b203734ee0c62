"""A session's messages made fit for a vendor: every tool call has its result, every result its call.  Pure.

Vendors refuse a whole request for one call without a result.  Such holes are real: a run was aborted between a
tool's start and its end, a session was branched in the middle of a round.  The repair is deterministic, so that
the same session gives the same request, and it never changes what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nous.ports.model import ContextMessage
from nous.protocol.messages import Message, ToolCallBlock, ToolResultBlock

MISSING_RESULT_TEXT: Final = "This tool call was interrupted: it has no result."


def repair_history(messages: Sequence[ContextMessage]) -> list[ContextMessage]:
    """Return the messages a model may be asked with, in order.

    A call that is not answered before the next user or assistant message gets an error result behind those that
    are there; a result without a call waiting for it is left out, and so is an assistant message that says
    nothing and calls nothing.  Messages that need no repair are returned as they are, with their encodings.
    """
    repaired: list[ContextMessage] = []
    asked: ContextMessage | None = None
    waiting: list[ToolCallBlock] = []
    for item in messages:
        message = item.message
        if message.role == "tool_result":
            if answer := _keep_expected(item, waiting):
                repaired.append(answer)
            continue
        if asked is not None and waiting:
            repaired.append(_missing_results(asked.message, waiting))
        asked, waiting = None, []
        if message.role == "assistant":
            waiting = [*message.tool_calls]
            if not waiting and not message.text:
                continue
            asked = item
        repaired.append(item)
    if asked is not None and waiting:
        repaired.append(_missing_results(asked.message, waiting))
    return repaired


def _keep_expected(item: ContextMessage, waiting: list[ToolCallBlock]) -> ContextMessage | None:
    """Take the calls that ``item`` answers out of ``waiting``; return what is left of it."""
    results = [block for block in item.message.blocks if isinstance(block, ToolResultBlock)]
    kept = [result for result in results if _take(result.tool_call_id, waiting)]
    if not kept:
        return None
    return item if len(kept) == len(results) else _with_results(item.message, kept)


def _take(call_id: str, waiting: list[ToolCallBlock]) -> bool:
    for position, call in enumerate(waiting):
        if call.id == call_id:
            del waiting[position]
            return True
    return False


def _missing_results(asked: Message, calls: list[ToolCallBlock]) -> ContextMessage:
    return _with_results(
        asked,
        [ToolResultBlock(tool_call_id=c.id, tool_name=c.name, text=MISSING_RESULT_TEXT, is_error=True) for c in calls],
    )


def _with_results(origin: Message, results: list[ToolResultBlock]) -> ContextMessage:
    message = Message(
        id=origin.id,
        role="tool_result",
        text="\n".join(result.text for result in results),
        created_at=origin.created_at,
        blocks=tuple(results),
    )
    return ContextMessage(message)
