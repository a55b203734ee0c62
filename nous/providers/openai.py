"""OpenAI's chat completions, streamed, and every server that speaks the same dialect.  Pure.

Source: OpenAI's API reference, "Create chat completion" and "The chat completion chunk object".  Where compatible
servers differ, what they mean is taken: indexes and ids of tool calls left out or repeated, arguments as an
object, thinking as ``reasoning_content`` or ``reasoning``, a finish reason that does not mention the tool calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from nous.errors import NousError
from nous.ports.model import ContextMessage, ModelRequest, ToolSpec
from nous.protocol.messages import Message, ToolResultBlock
from nous.providers.adapter import HttpRequest
from nous.providers.faults import Reply, fault_in_stream, fault_of_reply, parse_object
from nous.providers.history import repair_history
from nous.providers.openai_stream import OpenAIParser, error_words
from nous.providers.settings import (
    ProviderSettings,
    check_api_base,
    check_headers,
    is_header_value,
    is_loopback_url,
)

DEFAULT_API_BASE: Final = "https://api.openai.com/v1"
KEY_VARIABLE: Final = "OPENAI_API_KEY"

_DIALECT: Final = "openai"
_encode: Final = msgspec.json.Encoder().encode


class OpenAIAdapter:
    """Chat completions at ``api_base``.

    Raises:
        NousError: ``provider_auth`` without a key (a server on this machine needs none), ``invalid_usage`` without
            a model, ``invalid_config`` or ``unsafe_operation`` for an endpoint that cannot be used.
    """

    name = "openai"

    def __init__(self, settings: ProviderSettings) -> None:
        if not settings.model:
            raise NousError("invalid_usage", "the provider openai needs a model", hint="Add --model NAME.")
        base = check_api_base(settings.api_base or DEFAULT_API_BASE, allow_insecure=settings.allow_insecure)
        self.model = settings.model
        self.url = f"{base}/chat/completions"
        self._headers = {"content-type": "application/json"}
        self._headers |= _authorization(settings, self.url) | check_headers(settings.headers)
        # What stays the same from call to call comes first, so that servers can cache the prefix.
        self._head = b'{"model":%b,"stream":true,"stream_options":{"include_usage":true}' % _encode(self.model)

    def build(self, request: ModelRequest) -> HttpRequest:
        messages = [_system(request.system)] if request.system else []
        messages += [_encoded(item) for item in repair_history(request.messages)]
        body = b'%b%b,"messages":[%b]}' % (self._head, _tools(request.tools), b",".join(messages))
        return HttpRequest(self.url, self._headers, body)

    def parser(self) -> OpenAIParser:
        return OpenAIParser()

    def fault(self, reply: Reply) -> NousError:
        error = parse_object(reply.body).get("error")
        if reply.status == 200 and error is not None:
            return fault_in_stream(error_words(error))
        return fault_of_reply(reply, error_words(error))


def _authorization(settings: ProviderSettings, url: str) -> dict[str, str]:
    if settings.api_key:
        if not is_header_value(settings.api_key):
            raise NousError("provider_auth", f"{KEY_VARIABLE} holds characters that no key has")
        return {"authorization": f"Bearer {settings.api_key}"}
    if not is_loopback_url(url) and "authorization" not in {name.lower() for name in settings.headers}:
        raise NousError("provider_auth", f"{KEY_VARIABLE} is not set", hint=f"Set {KEY_VARIABLE}.")
    return {}


def _system(text: str) -> bytes:
    return _encode({"role": "system", "content": text})


def _tools(tools: Sequence[ToolSpec]) -> bytes:
    if not tools:
        return b""
    return b',"tools":' + _encode(
        [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.schema},
            }
            for tool in tools
        ]
    )


def _encoded(item: ContextMessage) -> bytes:
    """Return the message in this dialect, encoded once and kept: a request is joined, not written anew."""
    wire = item.wire.get(_DIALECT)
    if wire is None:
        wire = item.wire[_DIALECT] = b",".join(_encode(part) for part in _translate(item.message))
    return wire


def _translate(message: Message) -> list[dict[str, Any]]:
    """Return what one message is here: several where one message holds several tool results."""
    if message.role == "user":
        return [{"role": "user", "content": message.text}]
    if message.role == "assistant":
        return [_assistant(message)]
    return [
        {"role": "tool", "tool_call_id": block.tool_call_id, "content": block.text}
        for block in message.blocks
        if isinstance(block, ToolResultBlock)
    ]


def _assistant(message: Message) -> dict[str, Any]:
    out: dict[str, Any] = {"role": "assistant", "content": message.text or None}
    if message.tool_calls:
        out["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}
            for call in message.tool_calls
        ]
    return out
