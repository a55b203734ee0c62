"""Anthropic's messages, streamed, and servers that speak the same dialect.  Pure.

Source: Anthropic's API reference, "Create a Message", "Prompt caching", "Extended thinking".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from nous.errors import NousError
from nous.ports.model import ContextMessage, ModelRequest, ToolSpec
from nous.protocol.messages import Block, ImageBlock, Message, TextBlock, ThinkingBlock, ToolCallBlock, ToolResultBlock
from nous.providers.adapter import HttpRequest
from nous.providers.anthropic_stream import REDACTED, AnthropicParser
from nous.providers.chunks import Chunks
from nous.providers.endpoint import open_endpoint, require_model
from nous.providers.faults import ErrorReply, fault_of_answer
from nous.providers.history import repair_history
from nous.providers.models import ModelInfo
from nous.providers.output import is_strict, system_text
from nous.providers.presets import Preset
from nous.providers.settings import ProviderSettings
from nous.providers.thinking import budget_for, effort_for, refuse_thinking, thinking_form
from nous.providers.untooled import messages_of
from nous.providers.wire import (
    EMPTY_TEXT,
    CallIds,
    MessageEncoder,
    VendorTurn,
    arguments_of,
    check_image,
    encode_json,
    fit_name,
    group_turns,
    images_of,
    own_names,
    results_of,
    said_blocks,
    visible,
)

DEFAULT_MAX_TOKENS: Final = 32_000
"""The longest answer asked for where the model is not known: the dialect wants a number, current models take this."""

_CACHED: Final = b',"cache_control":{"type":"ephemeral"}}'
"""Ends an object whose beginning the server is to keep.  It takes up to four such marks."""


class AnthropicAdapter:
    """Messages at the preset's address.  Raises what :func:`open_endpoint` raises."""

    def __init__(self, preset: Preset, settings: ProviderSettings, info: ModelInfo | None = None) -> None:
        self.name: str = preset.name
        self.model = require_model(preset, settings)
        endpoint = open_endpoint(preset, settings)
        self.url = f"{endpoint.base}/messages"
        self._headers = endpoint.headers
        self._takes_images = info.images if info is not None else None
        self._ids = CallIds(preset.call_id)
        self._fields = self._fixed_fields(preset, settings, info)
        self._head = encode_json(self._fields)[:-1]
        self._messages = MessageEncoder(f"{preset.name}/{self.model}", self._translate)
        self._chunks = Chunks(self._join, self._messages)

    def build(self, request: ModelRequest) -> HttpRequest:
        """Build the request.

        Marked for the server's cache are the end of what never changes (tools and system prompt), and the ends of
        the last two turns that are not the model's: where the request before this one ended, and where this one does.
        """
        schema = request.output_schema
        is_enforced = schema is not None and is_strict(schema)
        system = system_text(request, is_enforced=is_enforced)
        begun, messages = self._chunks.split(repair_history(messages_of(request)))
        parts = (
            self._head if schema is None or not is_enforced else self._head_for(schema),
            _tools(request.tools, is_end=not system),
            _system(system),
            b',"messages":[',
            *begun,
            self._join(messages, marks=2),
            b"]}",
        )
        return HttpRequest(self.url, self._headers, parts)

    def parser(self, tools: Sequence[ToolSpec] = ()) -> AnthropicParser:
        """Return a parser for one answer."""
        return AnthropicParser(own_names(tools))

    def fault(self, reply: ErrorReply) -> NousError:
        """Return what an answer other than a stream means."""
        return fault_of_answer(reply)

    def _fixed_fields(self, preset: Preset, settings: ProviderSettings, info: ModelInfo | None) -> dict[str, Any]:
        most = settings.max_output_tokens or (info.max_output_tokens if info is not None else None)
        most = most or DEFAULT_MAX_TOKENS
        fields: dict[str, Any] = {"model": self.model, "max_tokens": most, "stream": True}
        level = settings.thinking
        if level is None:
            return fields
        form = thinking_form(info, preset.thinking)
        always = info is not None and info.always_thinks
        if form == "none" and level != "off":
            raise refuse_thinking(self.model)
        if form == "none" or (level == "off" and not always):
            return fields | ({"thinking": {"type": "disabled"}} if form != "none" else {})
        if form == "budget":
            return fields | {"thinking": {"type": "enabled", "budget_tokens": budget_for(level, most)}}
        # Without "display" the newest models send thinking without its text.
        thinking = {"type": "adaptive", "display": "summarized"}
        return fields | {"thinking": thinking, "output_config": {"effort": effort_for(level, info)}}

    def _head_for(self, schema: dict[str, Any]) -> bytes:
        """Return the fixed fields of a request whose answer has to fit ``schema``."""
        config = self._fields.get("output_config", {}) | {"format": {"type": "json_schema", "schema": schema}}
        return encode_json(self._fields | {"output_config": config})[:-1]

    def _join(self, messages: Sequence[ContextMessage], marks: int = 0) -> bytes:
        """Return the messages as turns, with a mark on each of the last ``marks`` of those that are not the model's."""
        turns = group_turns(messages)
        asked = sum(not turn.is_model for turn in turns)
        out = []
        for turn in turns:
            out.append(self._turn(turn, not turn.is_model and asked <= marks))
            asked -= not turn.is_model
        return b",".join(out)

    def _turn(self, turn: VendorTurn, is_marked: bool) -> bytes:
        content = b",".join(map(self._messages.encode, turn.messages))
        if is_marked:
            content = content[:-1] + _CACHED
        return b'{"role":"%b","content":[%b]}' % (b"assistant" if turn.is_model else b"user", content)

    def _translate(self, message: Message) -> list[dict[str, Any]]:
        """Return the content blocks of one message: at least one."""
        if message.role == "user":
            images = [self._image(image) for image in images_of(message)]
            return [*images, _text(visible(message.text))] if message.text or not images else images
        if message.role == "assistant":
            said = [self._said(block) for block in said_blocks(message, self.name, self.model)]
            return [block for block in said if block is not None] or [_text(EMPTY_TEXT)]
        return [self._result(result, images) for result, images in results_of(message)]

    def _said(self, block: Block) -> dict[str, Any] | None:
        if isinstance(block, TextBlock):
            return _text(block.text) if block.text.strip() else None
        if isinstance(block, ThinkingBlock):
            return _thinking(block)
        if isinstance(block, ToolCallBlock):
            call_id = self._ids.fit(block.id)
            return {"type": "tool_use", "id": call_id, "name": fit_name(block.name), "input": arguments_of(block)}
        return None

    def _result(self, result: ToolResultBlock, images: Sequence[ImageBlock]) -> dict[str, Any]:
        out: dict[str, Any] = {"type": "tool_result", "tool_use_id": self._ids.fit(result.tool_call_id)}
        content = [_text(result.text)] if result.text.strip() else []
        content += map(self._image, images)
        if content:
            out["content"] = content
        if result.is_error:
            out["is_error"] = True
        return out

    def _image(self, image: ImageBlock) -> dict[str, Any]:
        checked = check_image(image, self.model, taken=self._takes_images)
        return {"type": "image", "source": {"type": "base64", "media_type": checked.mime_type, "data": checked.data}}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _thinking(block: ThinkingBlock) -> dict[str, Any] | None:
    """Return thinking as it came; what has no signature is of no use to the vendor."""
    if not block.signature:
        return None
    if block.signature.startswith(REDACTED):
        return {"type": "redacted_thinking", "data": block.signature.removeprefix(REDACTED)}
    return {"type": "thinking", "thinking": block.text, "signature": block.signature}


def _tools(tools: Sequence[ToolSpec], *, is_end: bool) -> bytes:
    if not tools:
        return b""
    encoded = b",".join(
        encode_json({"name": fit_name(tool.name), "description": tool.description, "input_schema": tool.schema})
        for tool in tools
    )
    return b',"tools":[%b]' % (encoded[:-1] + _CACHED if is_end else encoded)


def _system(text: str) -> bytes:
    if not text.strip():
        return b""
    return b',"system":[%b]' % (encode_json(_text(text))[:-1] + _CACHED)
