"""Conversations to ask vendors with, and a look into the requests that come of them."""

from __future__ import annotations

import json
from typing import Any, Final

from nous.ports.model import ContextMessage, ModelRequest, ToolSpec
from nous.protocol.messages import Block, ImageBlock, Message, TextBlock, ToolCallBlock, ToolResultBlock
from nous.providers.adapter import Adapter

READ: Final = ToolSpec("read", "Read a file.", {"type": "object", "properties": {"path": {"type": "string"}}})
LS: Final = ToolSpec("ls", "List a directory.", {"type": "object"})
PNG: Final = ImageBlock("image/png", "iVBORw0KGgo=")


def user(text: str = "hi", *blocks: Block, message_id: str = "u") -> ContextMessage:
    return ContextMessage(Message(id=message_id, role="user", text=text, created_at="", blocks=blocks))


def said(*blocks: Block, by: tuple[str, str] = ("", ""), message_id: str = "a") -> ContextMessage:
    """Return an assistant message of these blocks; ``by`` is the provider and the model that wrote it."""
    text = "".join(block.text for block in blocks if isinstance(block, TextBlock))
    message = Message(
        id=message_id, role="assistant", text=text, created_at="", blocks=blocks, provider=by[0], model=by[1]
    )
    return ContextMessage(message)


def calls(call_id: str, name: str = "read", arguments: str = '{"path":"a"}') -> ToolCallBlock:
    return ToolCallBlock(id=call_id, name=name, arguments=arguments)


def result(call_id: str, text: str = "done", *, name: str = "read", is_error: bool = False) -> ToolResultBlock:
    return ToolResultBlock(tool_call_id=call_id, tool_name=name, text=text, is_error=is_error)


def results(*blocks: Block, message_id: str = "r") -> ContextMessage:
    return ContextMessage(Message(id=message_id, role="tool_result", text="", created_at="", blocks=blocks))


def request(
    *messages: ContextMessage,
    system: str = "",
    tools: tuple[ToolSpec, ...] | None = None,
    output_schema: dict[str, Any] | None = None,
) -> ModelRequest:
    """Return a request.  If nothing is said of ``tools``, it offers one if a tool was called: then calls stay calls."""
    if tools is None:
        tools = (
            (READ,) if any(item.message.role == "tool_result" or item.message.tool_calls for item in messages) else ()
        )
    return ModelRequest(
        run_id="r", session_id="s", call=1, system=system, messages=messages, tools=tools, output_schema=output_schema
    )


def body_of(adapter: Adapter, asked: ModelRequest) -> dict[str, Any]:
    found = json.loads(adapter.build(asked).body)
    assert isinstance(found, dict)
    return found
