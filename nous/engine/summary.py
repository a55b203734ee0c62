"""What a compaction needs besides a model: the size of a context, where to cut it, and a plain summary.  Pure.

Everything here is a function of the messages alone, so that a replay, and another machine, come to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from nous.engine.answer import parse_arguments
from nous.errors import bound_text
from nous.ports.model import ContextMessage
from nous.protocol.entries import SUMMARY_HEAD, is_summary
from nous.protocol.messages import Block, ImageBlock, Message, ToolCallBlock, ToolResultBlock

SUMMARY_BYTES: Final = 8 * 1024
"""A plain summary is no longer than this, whatever it stands for."""

_EARLIER_BYTES: Final = 3 * 1024
_INSTRUCTION_BYTES: Final = 512
_FILES_BYTES: Final = 1024
_USER_BYTES: Final = 480
_ASSISTANT_BYTES: Final = 320
_TOOL_BYTES: Final = 160

_MESSAGE_TOKENS: Final = 4
_IMAGE_TOKENS: Final = 1500
_ASCII_BYTES_PER_TOKEN: Final = 4
_OTHER_BYTES_PER_TOKEN: Final = 3


def estimate_tokens(message: Message) -> int:
    """Return about how many tokens a message costs: four bytes of ASCII a token, three of other text.  Never 0."""
    if not message.blocks:
        return _MESSAGE_TOKENS + _text_tokens(message.text)
    return _MESSAGE_TOKENS + sum(map(_block_tokens, message.blocks))


def choose_cut(path: Sequence[ContextMessage], keep_tokens: int) -> int:
    """Return the index of the first message to keep; what stands before it is to be summarised.

    Keeps as much of the end as fits ``keep_tokens``, from the beginning of a turn if one fits; but always the last
    message with what belongs to it, however long.  Only with ``keep_tokens`` 0 nothing is kept: then it is
    ``len(path)``.  0 means that there is nothing to summarise, also where that is just an earlier summary.

    A tool call and its results are never separated.
    """
    cut = _cut_within(path, keep_tokens) if keep_tokens > 0 else len(path)
    if cut == 1 and is_summary(path[0].message):
        return 0
    return cut


def summarise(messages: Iterable[Message], instruction: str = "") -> str:
    """Return a plain summary of messages: what was asked, said and done, in order, without a model.

    An earlier summary at the front is taken over.  Bounded by ``SUMMARY_BYTES``: the oldest lines go first.
    """
    messages = list(messages)
    earlier = ""
    if messages and is_summary(messages[0]):
        earlier = messages.pop(0).text.removeprefix(SUMMARY_HEAD)
    head = []
    if instruction.strip():
        head.append(f"What matters: {_one_line(instruction, _INSTRUCTION_BYTES)}")
    if earlier.strip():
        head.append(bound_text(earlier.strip(), _EARLIER_BYTES))
    if files := _files(messages):
        head.append(f"Files: {files}")
    lines = [line for message in messages for line in _lines(message)]
    return _fit("\n\n".join(head), lines)


def _text_tokens(text: str) -> int:
    if text.isascii():
        return -(-len(text) // _ASCII_BYTES_PER_TOKEN)
    return -(-len(text.encode("utf-8", "replace")) // _OTHER_BYTES_PER_TOKEN)


def _block_tokens(block: Block) -> int:
    if isinstance(block, ImageBlock):
        return _IMAGE_TOKENS
    if isinstance(block, ToolCallBlock):
        return _text_tokens(block.name) + _text_tokens(block.arguments)
    return _text_tokens(block.text)


def _cut_within(path: Sequence[ContextMessage], keep_tokens: int) -> int:
    """Return the best cut that keeps something: the earliest within the budget, the last one if none is."""
    allowed = _allowed_cuts(path)
    tokens = 0
    best = turn = 0
    for index in range(len(path) - 1, -1, -1):
        tokens += estimate_tokens(path[index].message)
        if tokens > keep_tokens and best:
            return turn or best
        if allowed[index]:
            best = index
            if path[index].message.role == "user":
                turn = index
    return 0


def _allowed_cuts(path: Sequence[ContextMessage]) -> list[bool]:
    """Tell for each index whether the context may begin there: with no result whose call stands before it."""
    opened = [0] * (len(path) + 1)
    last_call: dict[str, int] = {}
    for index, item in enumerate(path):
        for block in item.message.blocks:
            if isinstance(block, ToolCallBlock):
                last_call[block.id] = index
            elif isinstance(block, ToolResultBlock) and block.tool_call_id in last_call:
                opened[last_call[block.tool_call_id] + 1] += 1
                opened[index + 1] -= 1
    return [
        not depth and item.message.role != "tool_result" for depth, item in zip(accumulate(opened), path, strict=False)
    ]


def _lines(message: Message) -> Iterable[str]:
    """Yield what a summary says about one message."""
    if message.role == "user":
        yield f"- User: {_one_line(message.text, _USER_BYTES)}"
    elif message.role == "assistant":
        if message.text.strip():
            yield f"- Assistant: {_one_line(message.text, _ASSISTANT_BYTES)}"
        for call in message.tool_calls:
            yield f"- Called {call.name}: {_one_line(call.arguments, _TOOL_BYTES)}"
    else:
        for block in message.blocks:
            if isinstance(block, ToolResultBlock):
                verdict = "failed" if block.is_error else "answered"
                yield f"- {block.tool_name} {verdict}: {_one_line(block.text, _TOOL_BYTES)}"


def _one_line(text: str, max_bytes: int) -> str:
    # Of a text of megabytes only the beginning is looked at; the dots say so, or that it was cut afterwards.
    words = " ".join(text[: 2 * max_bytes].split())
    return bound_text(f"{words} ..." if len(text) > 2 * max_bytes else words, max_bytes)


def _files(messages: Sequence[Message]) -> str:
    """Return the paths that tools were called with, once each, the last ones if there are too many."""
    paths: dict[str, None] = {}
    for call in (call for message in messages for call in message.tool_calls):
        path = (parse_arguments(call.arguments) or {}).get("path")
        if isinstance(path, str) and path and "\n" not in path:
            paths.pop(path, None)
            paths[path] = None
    kept: list[str] = []
    left = _FILES_BYTES
    for path in reversed(paths):
        left -= len(path.encode("utf-8", "replace")) + 2
        if left < 0:
            break
        kept.insert(0, path)
    return ", ".join(kept)


def _fit(head: str, lines: list[str]) -> str:
    left = SUMMARY_BYTES - len(head.encode()) - 64
    kept: list[str] = []
    for line in reversed(lines):
        left -= len(line.encode()) + 1
        if left < 0:
            break
        kept.append(line)
    kept.reverse()
    if len(kept) < len(lines):
        kept.insert(0, f"- ({len(lines) - len(kept)} earlier lines are left out)")
    return "\n\n".join(part for part in (head, "\n".join(kept)) if part)
