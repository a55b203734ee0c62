"""One session, any vendors: whatever was said by whom, every vendor gets a request that keeps its rules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given

from nous.ports.model import ContextMessage
from nous.protocol.messages import ThinkingBlock, ToolCallBlock, ToolResultBlock
from nous.providers.presets import PRESETS
from tests.support.vendor_histories import HISTORIES
from tests.support.vendor_requests import PNG, READ, calls, request, result, results, said, user
from tests.support.vendor_streams import adapter_of


@pytest.mark.parametrize("vendor", sorted(PRESETS))
@given(messages=HISTORIES)
def test_any_history_becomes_a_request_that_keeps_the_vendors_rules(
    vendor: str, messages: list[ContextMessage]
) -> None:
    adapter = adapter_of(vendor)
    asked = request(*messages, system="Be nous.", tools=(READ,))
    body = adapter.build(asked).body
    assert not [*RULES[PRESETS[vendor].dialect](json.loads(body))]
    assert adapter.build(asked).body == body
    fresh = [ContextMessage(item.message) for item in messages]
    assert adapter_of(vendor).build(request(*fresh, system="Be nous.", tools=(READ,))).body == body


@given(HISTORIES)
def test_signatures_are_seen_by_nobody_else(messages: list[ContextMessage]) -> None:
    foreign = [item for item in messages if item.message.provider != "anthropic" or item.message.model != "m"]
    body = adapter_of("anthropic").build(request(*foreign)).body
    for secret in (b"c2ln", b"ZGF0YQ", b'"thinking"', b"reasoning"):
        assert secret not in body


def test_a_session_that_walks_through_every_vendor() -> None:
    """Each vendor goes on where the one before stopped, in the middle of nothing but words and finished calls."""
    messages: list[ContextMessage] = []
    for number, vendor in enumerate(PRESETS):
        messages.append(user(f"question {number}"))
        sealed = '[{"type":"reasoning.text"}]' if vendor == "openrouter" else '{"type":"reasoning"}'
        thinking = ThinkingBlock(f"thought of {vendor}", sealed)
        messages.append(said(thinking, calls("call:0"), by=(vendor, "m"), message_id=f"a{number}"))
        messages.append(results(result("call:0", f"result {number}")))
        body = adapter_of(vendor).build(request(*messages)).body.decode()
        assert all(f"question {n}" in body and f"result {n}" in body for n in range(number + 1))
        assert not any(f"thought of {other}" in body for other in PRESETS if other != vendor)


# -- the rules, as the vendors publish them


def chat_faults(body: dict[str, Any]) -> Iterator[str]:
    waiting: list[str] = []
    for message in body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                yield "a result nobody asked for"
            else:
                waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            yield "a call without its result"
        waiting = []
        for call in message.get("tool_calls", ()):
            waiting.append(call["id"])
            yield from call_faults(call["id"], call["function"]["name"], r"[A-Za-z0-9_.:-]{1,64}")
            if not isinstance(json.loads(call["function"]["arguments"]), dict):
                yield "arguments that are no object"
        if message["role"] == "assistant" and not message.get("tool_calls") and not message["content"]:
            yield "an assistant who says nothing"
    if waiting:
        yield "a call without its result"


def responses_faults(body: dict[str, Any]) -> Iterator[str]:
    waiting: list[str] = []
    for item in body["input"]:
        kind = item.get("type")
        if kind == "function_call":
            waiting.append(item["call_id"])
            yield from call_faults(item["call_id"], item["name"], r"[A-Za-z0-9_-]{1,64}")
            if not isinstance(json.loads(item["arguments"]), dict):
                yield "arguments that are no object"
        elif kind == "function_call_output":
            if item["call_id"] not in waiting:
                yield "a result nobody asked for"
            else:
                waiting.remove(item["call_id"])
        elif kind is None and item["role"] == "user" and waiting:
            yield "a call without its result"
    if waiting:
        yield "a call without its result"


def anthropic_faults(body: dict[str, Any]) -> Iterator[str]:
    roles = [message["role"] for message in body["messages"]]
    if any(a == b for a, b in pairwise(roles)) or roles[:1] != ["user"]:
        yield "turns that do not alternate"
    if json.dumps(body).count("cache_control") > 4:
        yield "too many marks"
    seen: list[str] = []
    open_calls: list[str] = []
    for message in body["messages"]:
        answered = [block["tool_use_id"] for block in message["content"] if block["type"] == "tool_result"]
        if sorted(answered) != sorted(open_calls):
            yield "calls and results that do not match"
        if [block["type"] for block in message["content"]][: len(answered)] != ["tool_result"] * len(answered):
            yield "results that do not come first"
        open_calls = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
        if set(open_calls) & set(seen) or len(set(open_calls)) != len(open_calls):
            yield "an id used twice"
        seen += open_calls
        for block in message["content"]:
            yield from block_faults(block)


def block_faults(block: dict[str, Any]) -> Iterator[str]:
    if block["type"] == "text" and not block["text"].strip():
        yield "an empty text"
    if block["type"] == "tool_use":
        yield from call_faults(block["id"], block["name"], r"[a-zA-Z0-9_-]{1,64}")
        if not isinstance(block["input"], dict):
            yield "input that is no object"
    if block["type"] in ("thinking", "redacted_thinking") and "cache_control" in block:
        yield "a mark on thinking"


def gemini_faults(body: dict[str, Any]) -> Iterator[str]:
    roles = [content["role"] for content in body["contents"]]
    if any(a == b for a, b in pairwise(roles)) or roles[:1] != ["user"]:
        yield "turns that do not alternate"
    asked: list[str] = []
    for content in body["contents"]:
        if not content["parts"]:
            yield "a turn without parts"
        answered = [p["functionResponse"]["id"] for p in content["parts"] if "functionResponse" in p]
        if sorted(answered) != sorted(asked):
            yield "calls and results that do not match"
        asked = []
        for part in content["parts"]:
            if "functionCall" in part:
                asked.append(part["functionCall"]["id"])
                yield from call_faults(part["functionCall"]["id"], part["functionCall"]["name"], r"[A-Za-z0-9_-]{1,64}")
                if not isinstance(part["functionCall"]["args"], dict):
                    yield "arguments that are no object"


def call_faults(call_id: str, name: str, pattern: str) -> Iterator[str]:
    if not re.fullmatch(pattern, call_id):
        yield f"the id {call_id!r}"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        yield f"the name {name!r}"


RULES: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
    "chat": chat_faults,
    "responses": responses_faults,
    "anthropic": anthropic_faults,
    "gemini": gemini_faults,
}


# -- requests that offer no tools


TOOL_WORDS = [
    "tool_use",
    "tool_result",
    "tool_calls",
    '"tool"',
    "tool_call_id",
    "functionCall",
    "functionResponse",
    "function_call",
    '"tools"',
    '"tool_choice"',
]


@pytest.mark.parametrize("vendor", sorted(PRESETS))
@given(messages=HISTORIES)
def test_a_request_without_tools_has_their_calls_as_text(vendor: str, messages: list[ContextMessage]) -> None:
    """Some servers refuse tool calls in a conversation where no tools are offered, others tools that are not needed."""
    adapter = adapter_of(vendor)
    with_tools = request(*messages, tools=(READ,))
    before = adapter.build(with_tools).body
    asked = request(*messages, system="Be nous.", tools=())
    body = adapter.build(asked).body
    assert not [*RULES[PRESETS[vendor].dialect](json.loads(body))]
    assert not [word for word in TOOL_WORDS if word in body.decode()]
    for item in messages:
        for block in item.message.blocks:
            if isinstance(block, ToolCallBlock):
                assert _inner(f"[tool call: {block.name} {block.arguments or '{}'}]") in body.decode()
            elif isinstance(block, ToolResultBlock):
                assert _inner(f" of {block.tool_name}]\n{block.text}") in body.decode()
    assert body.count(PNG.data.encode()) == sum(item.message.blocks.count(PNG) for item in messages)
    # What the adapter keeps with the messages for one kind of request is of no consequence for the other.
    assert adapter.build(asked).body == body
    assert adapter.build(with_tools).body == before
    fresh = [ContextMessage(item.message) for item in messages]
    assert adapter_of(vendor).build(request(*fresh, system="Be nous.", tools=())).body == body


def test_a_summary_keeps_nothing_with_the_messages() -> None:
    messages = [user(), said(calls("c")), results(result("c")), user("Summarise.")]
    asked = request(*messages, tools=())
    asked.purpose = "compaction"
    adapter = adapter_of("anthropic")
    assert b"tool call: read" in adapter.build(asked).body
    assert not any(item.wire or item.before or item.untooled for item in messages)


def _inner(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
