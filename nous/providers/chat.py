"""OpenAI's chat completions, streamed, and every server that speaks the same dialect.  Pure.

Source: OpenAI's API reference, "Create chat completion" and "The chat completion chunk object".  Where compatible
servers differ, what they mean is taken: indexes and ids of tool calls left out or repeated
(:mod:`nous.providers.chat_calls` has the rules), arguments as an object, thinking as ``reasoning_content`` or
``reasoning``, a finish reason that does not mention the tool calls.
What they want to be sent differently stands in :mod:`nous.providers.presets`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nous.errors import NousError
from nous.ports.model import ContextMessage, ModelRequest, ToolSpec
from nous.protocol.messages import ImageBlock, Message, TextBlock, ThinkingBlock, ToolCallBlock
from nous.providers.adapter import HttpRequest
from nous.providers.chat_stream import ChatParser
from nous.providers.chunks import Chunks
from nous.providers.endpoint import open_endpoint, require_model
from nous.providers.faults import ErrorReply, fault_of_answer
from nous.providers.history import repair_history
from nous.providers.models import ModelInfo
from nous.providers.output import is_object, named_format, system_text
from nous.providers.presets import Preset
from nous.providers.settings import ProviderSettings
from nous.providers.thinking import chat_fields, refuse_thinking, thinking_form
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
    visible,
)


class ChatAdapter:
    """Chat completions as ``preset`` has them.  Raises what :func:`open_endpoint` raises."""

    def __init__(self, preset: Preset, settings: ProviderSettings, info: ModelInfo | None = None) -> None:
        self.name: str = preset.name
        self.model = require_model(preset, settings)
        endpoint = open_endpoint(preset, settings)
        self.url = f"{endpoint.base}/chat/completions"
        self._headers = endpoint.headers
        self._preset = preset
        self._takes_images = info.images if info is not None else None
        self._ids = CallIds(preset.call_id)
        self._cache_field = preset.cache_field if endpoint.is_own else ""
        # What stays the same from call to call comes first, so that servers can cache the prefix.
        self._head = encode_json(self._fixed_fields(settings, info))[:-1]
        key = f"{preset.name}/{self.model}"
        self._messages = MessageEncoder(key, self._translate)
        self._images = MessageEncoder(f"{key}/images", self._translate_images)
        self._chunks = Chunks(self._join, self._messages, self._images)

    def build(self, request: ModelRequest) -> HttpRequest:
        """Return the HTTP request of a model call."""
        output = self._output_field(request.output_schema)
        system = system_text(request, is_enforced=b'"strict":true' in output)
        begun, messages = self._chunks.split(repair_history(messages_of(request)))
        parts = (
            self._head,
            output,
            b',"%b":%b' % (self._cache_field.encode(), encode_json(request.session_id)) if self._cache_field else b"",
            _tools(request.tools),
            b',"messages":[',
            encode_json({"role": "system", "content": system}) if system else b"",
            b"," if system and messages else b"",
            *begun,
            self._join(messages),
            b"]}",
        )
        return HttpRequest(self.url, self._headers, parts)

    def parser(self, tools: Sequence[ToolSpec] = ()) -> ChatParser:
        """Return a parser for one answer."""
        return ChatParser(keeps_details=self._preset.thinking_field == "reasoning_details", names=own_names(tools))

    def fault(self, reply: ErrorReply) -> NousError:
        """Return what an answer other than a stream means."""
        return fault_of_answer(reply)

    def _fixed_fields(self, settings: ProviderSettings, info: ModelInfo | None) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "model": self.model,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if settings.max_output_tokens is not None:
            fields[self._preset.limit_field] = settings.max_output_tokens
        form = thinking_form(info, self._preset.thinking)
        if form == "none" and settings.thinking not in (None, "off"):
            raise refuse_thinking(self.model)
        if form != "none":
            fields |= chat_fields(settings.thinking, form, info, self._preset.effort_field)
        return fields

    def _output_field(self, schema: dict[str, Any] | None) -> bytes:
        if schema is None or not is_object(schema):
            return b""
        form: dict[str, Any] = {"type": self._preset.output}
        if self._preset.output == "json_schema":
            form["json_schema"] = named_format(schema)
        return b',"response_format":' + encode_json(form)

    def _join(self, messages: Sequence[ContextMessage]) -> bytes:
        """Encode the messages.  Images of tool results follow as the user's: results here hold text only."""
        out: list[bytes] = []
        held: list[bytes] = []
        for item in messages:
            if item.message.role == "tool_result":
                if images_of(item.message):
                    held.append(self._images.encode(item))
            else:
                out += held
                held.clear()
            out.append(self._messages.encode(item))
        return b",".join(out + held)

    def _translate(self, message: Message) -> list[dict[str, Any]]:
        """Return what one message is here: several where one message holds several tool results."""
        if message.role == "user":
            return [self._user(message)]
        if message.role == "assistant":
            return [self._assistant(message)]
        return [
            {
                "role": "tool",
                "tool_call_id": self._ids.fit(result.tool_call_id),
                "content": self._filled(result.text),
            }
            for result, _ in results_of(message)
        ]

    def _user(self, message: Message) -> dict[str, Any]:
        if images := images_of(message):
            text = [{"type": "text", "text": message.text}] if message.text else []
            return {"role": "user", "content": [*map(self._image, images), *text]}
        return {"role": "user", "content": self._filled(message.text)}

    def _translate_images(self, message: Message) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = []
        for result, images in results_of(message):
            if images:
                content.append({"type": "text", "text": f"Images of the result of {result.tool_name}:"})
                content += map(self._image, images)
        return [{"role": "user", "content": content}]

    def _image(self, image: ImageBlock) -> dict[str, Any]:
        checked = check_image(image, self.model, taken=self._takes_images)
        return {"type": "image_url", "image_url": {"url": data_url(checked)}}

    def _assistant(self, message: Message) -> dict[str, Any]:
        texts: list[str] = []
        thoughts: list[ThinkingBlock] = []
        calls: list[dict[str, Any]] = []
        for block in said_blocks(message, self.name, self.model):
            if isinstance(block, TextBlock):
                texts.append(block.text)
            elif isinstance(block, ThinkingBlock):
                thoughts.append(block)
            elif isinstance(block, ToolCallBlock):
                arguments = bytes(arguments_of(block)).decode()
                function = {"name": fit_name(block.name), "arguments": arguments}
                calls.append({"id": self._ids.fit(block.id), "type": "function", "function": function})
        out: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None}
        out |= self._thinking(thoughts)
        if calls:
            out["tool_calls"] = calls
        return out

    def _thinking(self, thoughts: Sequence[ThinkingBlock]) -> dict[str, Any]:
        field = self._preset.thinking_field
        if field == "reasoning_details":
            signatures = (as_json(block.signature, list) for block in thoughts if block.signature)
            details = next((found for found in signatures if found is not None), None)
            return {} if details is None else {field: details}
        text = "".join(block.text for block in thoughts) or self._preset.thinking_filler
        return {field: text} if field and text else {}

    def _filled(self, text: str) -> str:
        return visible(text) if self._preset.fills_empty else text


def _tools(tools: Sequence[ToolSpec]) -> bytes:
    if not tools:
        return b""
    return b',"tools":' + encode_json(
        [
            {
                "type": "function",
                "function": {"name": fit_name(tool.name), "description": tool.description, "parameters": tool.schema},
            }
            for tool in tools
        ]
    )
