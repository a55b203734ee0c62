"""Google's Gemini, streamed.  Pure.

Source: Gemini API reference, "models.streamGenerateContent"; guides "Function calling" and "Thought signatures".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from nous.errors import NousError
from nous.ports.model import ContextMessage, ModelRequest, ToolSpec
from nous.protocol.messages import ImageBlock, Message, TextBlock, ThinkingBlock, ToolCallBlock
from nous.providers.adapter import HttpRequest
from nous.providers.chunks import Chunks
from nous.providers.endpoint import open_endpoint, require_model
from nous.providers.faults import ErrorReply, fault_of_answer, parse_object, parse_seconds
from nous.providers.gemini_stream import GeminiParser
from nous.providers.history import repair_history
from nous.providers.models import ModelInfo
from nous.providers.output import system_text
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

_LEAST_BUDGET_TOKENS: Final = 128
_DEFAULT_MAX_TOKENS: Final = 65_536


class GeminiAdapter:
    """``streamGenerateContent`` at the preset's address.  Raises what :func:`open_endpoint` raises."""

    def __init__(self, preset: Preset, settings: ProviderSettings, info: ModelInfo | None = None) -> None:
        self.name: str = preset.name
        self.model = require_model(preset, settings)
        endpoint = open_endpoint(preset, settings)
        name = quote(self.model.removeprefix("models/"), safe="")
        self.url = f"{endpoint.base}/models/{name}:streamGenerateContent?alt=sse"
        self._headers = endpoint.headers
        self._takes_images = info.images if info is not None else None
        self._ids = CallIds(preset.call_id)
        self._fixed_config = self._config(preset, settings, info)
        self._messages = MessageEncoder(f"{preset.name}/{self.model}", self._translate)
        self._chunks = Chunks(self._join, self._messages)

    def build(self, request: ModelRequest) -> HttpRequest:
        """Return the HTTP request of a model call."""
        begun, messages = self._chunks.split(repair_history(messages_of(request)))
        # Not every model takes a schema together with tools.
        schema = None if request.tools else request.output_schema
        system = _system(system_text(request, is_enforced=schema is not None))
        fields = (self._config_field(schema), _tools(request.tools), system, b'"contents":[')
        parts = (b"{", b",".join(filter(None, fields)), *begun, self._join(messages), b"]}")
        return HttpRequest(self.url, self._headers, parts)

    def parser(self, tools: Sequence[ToolSpec] = ()) -> GeminiParser:
        """Return a parser for one answer."""
        return GeminiParser(own_names(tools))

    def fault(self, reply: ErrorReply) -> NousError:
        """Return what an answer other than a stream means."""
        if reply.retry_after_ms is None:
            delay_ms = _retry_delay_ms(parse_object(reply.body).get("error"))
            reply = msgspec.structs.replace(reply, retry_after_ms=delay_ms)
        return fault_of_answer(reply)

    def _config(self, preset: Preset, settings: ProviderSettings, info: ModelInfo | None) -> dict[str, Any]:
        config: dict[str, Any] = {}
        if settings.max_output_tokens is not None:
            config["maxOutputTokens"] = settings.max_output_tokens
        level = settings.thinking
        if level is None:
            return config
        form = thinking_form(info, preset.thinking)
        if form == "none":
            if level != "off":
                raise refuse_thinking(self.model)
            return config
        thinking: dict[str, Any] = {"includeThoughts": level != "off"}
        if form == "budget":
            most = settings.max_output_tokens or (info.max_output_tokens if info is not None else None)
            least = _LEAST_BUDGET_TOKENS if info is not None and info.always_thinks else 0
            thinking["thinkingBudget"] = max(least, budget_for(level, most or _DEFAULT_MAX_TOKENS))
        else:
            thinking["thinkingLevel"] = effort_for(level, info)
        return config | {"thinkingConfig": thinking}

    def _config_field(self, schema: dict[str, Any] | None) -> bytes:
        config = self._fixed_config
        if schema is not None:
            config = config | {"responseMimeType": "application/json", "responseJsonSchema": schema}
        return b'"generationConfig":' + encode_json(config) if config else b""

    def _join(self, messages: Sequence[ContextMessage]) -> bytes:
        return b",".join(map(self._turn, group_turns(messages)))

    def _turn(self, turn: VendorTurn) -> bytes:
        parts = b",".join(map(self._messages.encode, turn.messages))
        return b'{"role":"%b","parts":[%b]}' % (b"model" if turn.is_model else b"user", parts)

    def _translate(self, message: Message) -> list[dict[str, Any]]:
        """Return the parts of one message: at least one."""
        if message.role == "user":
            images = [self._image(image) for image in images_of(message)]
            return [*images, {"text": visible(message.text)}] if message.text or not images else images
        if message.role == "assistant":
            return self._said(message)
        return self._results(message)

    def _said(self, message: Message) -> list[dict[str, Any]]:
        """Return what the model said, each signature on the tool call it came with.

        A signature stands before the call it belongs to; one without a call behind it goes on an empty text at the
        end, as the vendor itself may send it.  The first call of an answer is the one that must have its signature.
        """
        parts: list[dict[str, Any]] = []
        signature: str | None = None
        for block in said_blocks(message, self.name, self.model):
            if isinstance(block, ThinkingBlock) and block.signature:
                if signature is not None:
                    parts.append(_signed_nothing(signature))
                signature = block.signature
            elif isinstance(block, TextBlock) and block.text:
                parts.append({"text": block.text})
            elif isinstance(block, ToolCallBlock):
                call = {"id": self._ids.fit(block.id), "name": fit_name(block.name), "args": arguments_of(block)}
                parts.append({"functionCall": call} | ({"thoughtSignature": signature} if signature else {}))
                signature = None
        if signature is not None:
            parts.append(_signed_nothing(signature))
        return parts or [{"text": EMPTY_TEXT}]

    def _results(self, message: Message) -> list[dict[str, Any]]:
        responses: list[dict[str, Any]] = []
        images: list[dict[str, Any]] = []
        for result, shown in results_of(message):
            response = {"error" if result.is_error else "output": result.text}
            named = {"id": self._ids.fit(result.tool_call_id), "name": fit_name(result.tool_name)}
            responses.append({"functionResponse": named | {"response": response}})
            images += map(self._image, shown)
        return responses + images

    def _image(self, image: ImageBlock) -> dict[str, Any]:
        checked = check_image(image, self.model, taken=self._takes_images)
        return {"inlineData": {"mimeType": checked.mime_type, "data": checked.data}}


def _signed_nothing(signature: str) -> dict[str, Any]:
    return {"text": "", "thoughtSignature": signature}


def _system(text: str) -> bytes:
    return b'"systemInstruction":' + encode_json({"parts": [{"text": text}]}) if text.strip() else b""


def _tools(tools: Sequence[ToolSpec]) -> bytes:
    if not tools:
        return b""
    declarations = [
        {"name": fit_name(tool.name), "description": tool.description, "parametersJsonSchema": tool.schema}
        for tool in tools
    ]
    return b'"tools":' + encode_json([{"functionDeclarations": declarations}])


def _retry_delay_ms(error: object) -> int | None:
    """Return how long the vendor asks to wait in an error's details, where its answer's header does not say it."""
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and delay.endswith("s"):
            return parse_seconds(delay[:-1])
    return None
