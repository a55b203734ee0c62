"""A conversation without tool calls and results, for a request that offers no tools: both become text.  Pure.

Such requests are summaries, answers that have to fit a schema, and runs whose tools were switched off.  Some servers
refuse tool calls in a conversation unless the request offers tools: Amazon Bedrock ("The toolConfig field must be
defined when using toolUse and toolResult content blocks"), so every proxy in front of it, and LiteLLM for Anthropic
("doesn't support tool calling without `tools=` param").  Others refuse tools that a model cannot use, or an empty
list of them (the vLLM engine).  All of them take text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import msgspec

from nous.ports.model import ContextMessage, ModelRequest
from nous.protocol.messages import (
    Block,
    ImageBlock,
    Message,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)


def messages_of(request: ModelRequest) -> Sequence[ContextMessage]:
    """Return the messages a request asks with: without tool blocks if it offers no tools."""
    if request.tools:
        return request.messages
    if request.purpose == "compaction":
        # Asked with once: nothing is kept with the session's messages.
        return [ContextMessage(without_tools(item.message)) for item in request.messages]
    return _Untooled(request.messages)


class _Untooled(Sequence[ContextMessage]):
    """The messages of ``path``, each without its tool blocks.  Made when it is asked for, and kept with the message.

    None of them is a message of ``path``: what the adapters keep with a message depends on those before it.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Sequence[ContextMessage]) -> None:
        self._path = path

    def __len__(self) -> int:
        return len(self._path)

    @overload
    def __getitem__(self, index: int) -> ContextMessage: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ContextMessage]: ...

    def __getitem__(self, index: int | slice) -> ContextMessage | Sequence[ContextMessage]:
        if isinstance(index, slice):
            return [_untooled(item) for item in self._path[index]]
        return _untooled(self._path[index])


def _untooled(item: ContextMessage) -> ContextMessage:
    if item.untooled is None:
        item.untooled = ContextMessage(without_tools(item.message))
    return item.untooled


def without_tools(message: Message) -> Message:
    """Return ``message`` with its tool calls or results as text.

    Results become a message of the user's, and keep their images.  Thinking that led to a call is left out: vendors
    take it back only together with the call.
    """
    if message.role == "tool_result":
        return _as_users(message)
    if message.role == "assistant" and message.tool_calls:
        blocks = tuple(filter(None, map(_as_text, message.blocks)))
        return msgspec.structs.replace(message, blocks=blocks, text="".join(block.text for block in blocks))
    return message


def _as_text(block: Block) -> TextBlock | None:
    if isinstance(block, ToolCallBlock):
        return TextBlock(f"\n[tool call: {block.name} {block.arguments or '{}'}]")
    return block if isinstance(block, TextBlock) else None


def _as_users(message: Message) -> Message:
    texts: list[str] = []
    images: list[Block] = []
    for block in message.blocks:
        if isinstance(block, ToolResultBlock):
            texts.append(f"[{'error' if block.is_error else 'result'} of {block.tool_name}]\n{block.text}")
        elif isinstance(block, ImageBlock):
            images.append(block)
    return msgspec.structs.replace(message, role="user", blocks=tuple(images), text="\n\n".join(texts))
