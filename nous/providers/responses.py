"""OpenAI's responses, streamed and without state at the vendor.  Pure.

Source: OpenAI's API reference, "Create a model response"; guide "Reasoning models" (encrypted reasoning items).
Nothing is stored there: each request carries the conversation, and reasoning goes back as it came, encrypted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nous.errors import NousError
from nous.ports.model import ContextMessage, ModelRequest, ToolSpec
from nous.protocol.messages import Block, ImageBlock, Message, TextBlock, ThinkingBlock, ToolCallBlock, ToolResultBlock
from nous.providers.adapter import HttpRequest
from nous.providers.chunks import Chunks
from nous.providers.endpoint import open_endpoint, require_model
from nous.providers.faults import ErrorReply, fault_of_answer
from nous.providers.history import repair_history
from nous.providers.models import ModelInfo
from nous.providers.output import is_object, is_strict, named_format, system_text
from nous.providers.presets import Preset
from nous.providers.responses_stream import ResponsesParser
from nous.providers.settings import ProviderSettings
from nous.providers.thinking import effort_for, refuse_thinking, thinking_form
from nous.providers.untooled import messages_of
from nous.providers.wire import (
    CallIds,
    MessageEncoder,
    arguments_of,
    as_json,
    check_image,
    data_url,
    encode_json,
    fit_name,
    images_of,
    own_names,
    results_of,
    said_blocks,
)


class ResponsesAdapter:
    """Responses at the preset's address.  Raises what :func:`open_endpoint` raises."""

    def __init__(self, preset: Preset, settings: ProviderSettings, info: ModelInfo | None = None) -> None:
        self.name: str = preset.name
        self.model = require_model(preset, settings)
        endpoint = open_endpoint(preset, settings)
        self.url = f"{endpoint.base}/responses"
        self._headers = endpoint.headers
        self._takes_images = info.images if info is not None else None
        self._ids = CallIds(preset.call_id)
        self._cache_field = preset.cache_field if endpoint.is_own else ""
        self._head = encode_json(self._fixed_fields(preset, settings, info))[:-1]
        self._messages = MessageEncoder(f"{preset.name}/{self.model}", self._translate)
        self._chunks = Chunks(self._join, self._messages)

    def build(self, request: ModelRequest) -> HttpRequest:
        """Return the HTTP request of a model call."""
        begun, messages = self._chunks.split(repair_history(messages_of(request)))
        schema = request.output_schema
        system = system_text(request, is_enforced=schema is not None and is_strict(schema))
        parts = (
            self._head,
            b',"text":' + encode_json(_text_format(schema)) if schema is not None and is_object(schema) else b"",
            b',"%b":%b' % (self._cache_field.encode(), encode_json(request.session_id)) if self._cache_field else b"",
            _tools(request.tools),
            b',"instructions":' + encode_json(system) if system else b"",
            b',"input":[',
            *begun,
            self._join(messages),
            b"]}",
        )
        return HttpRequest(self.url, self._headers, parts)

    def parser(self, tools: Sequence[ToolSpec] = ()) -> ResponsesParser:
        """Return a parser for one answer."""
        return ResponsesParser(own_names(tools))

    def fault(self, reply: ErrorReply) -> NousError:
        """Return what an answer other than a stream means."""
        return fault_of_answer(reply)

    def _fixed_fields(self, preset: Preset, settings: ProviderSettings, info: ModelInfo | None) -> dict[str, Any]:
        fields: dict[str, Any] = {"model": self.model, "stream": True, "store": False}
        if settings.max_output_tokens is not None:
            fields["max_output_tokens"] = settings.max_output_tokens
        form = thinking_form(info, preset.thinking)
        if form == "none":
            if settings.thinking not in (None, "off"):
                raise refuse_thinking(self.model)
            return fields
        # A model that does not reason refuses to be asked for its reasoning.
        fields["include"] = ["reasoning.encrypted_content"]
        if settings.thinking is not None:
            fields["reasoning"] = {"effort": effort_for(settings.thinking, info), "summary": "auto"}
        return fields

    def _join(self, messages: Sequence[ContextMessage]) -> bytes:
        return b",".join(map(self._messages.encode, messages))

    def _translate(self, message: Message) -> list[object]:
        """Return the input items of one message: at least one."""
        if message.role == "user":
            images = [self._image(image) for image in images_of(message)]
            text = [{"type": "input_text", "text": message.text}] if message.text or not images else []
            return [{"role": "user", "content": [*images, *text]}]
        if message.role == "assistant":
            said = [self._said(block) for block in said_blocks(message, self.name, self.model)]
            return [item for item in said if item is not None] or [_said_text(message.text)]
        return [self._result(result, images) for result, images in results_of(message)]

    def _said(self, block: Block) -> object:
        if isinstance(block, TextBlock):
            return _said_text(block.text) if block.text else None
        if isinstance(block, ThinkingBlock):
            return as_json(block.signature, dict) if block.signature else None
        if isinstance(block, ToolCallBlock):
            return {
                "type": "function_call",
                "call_id": self._ids.fit(block.id),
                "name": fit_name(block.name),
                "arguments": bytes(arguments_of(block)).decode(),
            }
        return None

    def _result(self, result: ToolResultBlock, images: Sequence[ImageBlock]) -> dict[str, Any]:
        output: Any = result.text
        if images:
            output = [{"type": "input_text", "text": result.text}, *map(self._image, images)]
        return {"type": "function_call_output", "call_id": self._ids.fit(result.tool_call_id), "output": output}

    def _image(self, image: ImageBlock) -> dict[str, Any]:
        checked = check_image(image, self.model, taken=self._takes_images)
        return {"type": "input_image", "image_url": data_url(checked)}


def _text_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"format": {"type": "json_schema", **named_format(schema)}}


def _said_text(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _tools(tools: Sequence[ToolSpec]) -> bytes:
    if not tools:
        return b""
    return b',"tools":' + encode_json(
        [
            {
                "type": "function",
                "name": fit_name(tool.name),
                "description": tool.description,
                "parameters": tool.schema,
                "strict": False,
            }
            for tool in tools
        ]
    )
