"""Images that a provider refused: which are left out of a path's requests, and what stands in their place.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from nous.ports.model import ContextMessage
from nous.protocol.messages import Block, ImageBlock, Message, TextBlock, ToolResultBlock

ONE_LEFT_OUT: Final = "[An image stood here. It was left out: the provider refused an image.]"


def has_images(message: Message) -> bool:
    """Return whether a message has an image."""
    return any(isinstance(block, ImageBlock) for block in message.blocks)


class SeenImages:
    """Which of a growing list of messages hold images, and which of these answers name as left out.

    Each message is looked at once.
    """

    __slots__ = ("_answers", "_holders", "_left_out", "_messages")

    def __init__(self, messages: list[ContextMessage]) -> None:
        self._messages = messages
        self._holders: list[int] = []
        self._answers: list[int] = []
        self._left_out: list[frozenset[str]] = [frozenset()]

    def left_out(self, length: int) -> frozenset[str]:
        """Return the messages whose images answers among the first ``length`` messages name as left out."""
        self._look_at(length)
        return self._left_out[length]

    def suspects(self, length: int, left_out: frozenset[str]) -> tuple[str, ...]:
        """Return the messages that hold the images which a provider may have refused, but for those in ``left_out``.

        These are the images that no model has answered to yet; if there are none, all.
        """
        self._look_at(length)
        answered = next((position for position in reversed(self._answers) if position < length), -1)
        ids = {p: self._messages[p].message.id for p in self._holders if p < length}
        shown = {position: message_id for position, message_id in ids.items() if message_id not in left_out}
        return tuple(i for p, i in shown.items() if p > answered) or tuple(shown.values())

    def _look_at(self, length: int) -> None:
        known = self._left_out
        while len(known) <= length:
            position = len(known) - 1
            message = self._messages[position].message
            if message.role == "assistant":
                self._answers.append(position)
            elif has_images(message):
                self._holders.append(position)
            known.append(known[-1].union(message.images_left_out) if message.images_left_out else known[-1])


def show_without(messages: Sequence[ContextMessage], left_out: frozenset[str]) -> list[ContextMessage]:
    """Return the messages with a text in place of the images of those in ``left_out``.

    All are new, because what adapters found out about the messages before one holds for one list only; those that are
    unchanged share their encodings.
    """
    return [_show_without(item, left_out) for item in messages]


def _show_without(item: ContextMessage, left_out: frozenset[str]) -> ContextMessage:
    if item.message.id in left_out and has_images(item.message):
        return ContextMessage(_without_images(item.message))
    shown = ContextMessage(item.message)
    shown.wire = item.wire
    return shown


def _without_images(message: Message) -> Message:
    if message.role != "tool_result":
        count = sum(isinstance(block, ImageBlock) for block in message.blocks)
        text = _with_note(message.text, count)
        return msgspec.structs.replace(message, text=text, blocks=(TextBlock(text),))
    results: list[Block] = []
    count = 0
    for block in reversed(message.blocks):
        if isinstance(block, ImageBlock):
            count += 1
        elif isinstance(block, ToolResultBlock) and count:
            results.append(msgspec.structs.replace(block, text=_with_note(block.text, count)))
            count = 0
        else:
            results.append(block)
    results.reverse()
    return msgspec.structs.replace(message, blocks=tuple(results))


def _with_note(text: str, count: int) -> str:
    note = (
        ONE_LEFT_OUT
        if count == 1
        else f"[{count} images stood here. They were left out: the provider refused an image.]"
    )
    return f"{text}\n{note}" if text else note
