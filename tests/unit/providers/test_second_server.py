"""The adapters against vendors' servers that somebody else wrote: aimock, a mock server with no dependencies.

    npm install --prefix DIR @copilotkit/aimock@1.43.0
    AIMOCK_CLI=DIR/node_modules/@copilotkit/aimock/dist/cli.js make test

It speaks chat completions, responses, Anthropic's messages and Gemini's dialect, from the same script.  Without it
these tests are skipped, and say so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteReceiveStream

from nous.errors import NousError
from nous.ports.model import ContextMessage, Finish, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import Block, TextBlock, ThinkingBlock, Usage
from nous.providers.registry import build_provider
from nous.providers.settings import ProviderSettings
from tests.support.home import SCALE
from tests.support.vendor_requests import LS, PNG, READ, calls, request, result, results, said, user
from tests.support.vendor_streams import KEY, grammar_faults

CLI = os.environ.get("AIMOCK_CLI", "")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not CLI, reason="AIMOCK_CLI is not set: no second implementation of the vendors' servers"),
]

DEADLINE_S = int(60 * SCALE)
BASES = {"openai": "/v1", "openai-responses": "/v1", "anthropic": "/v1", "gemini": "/v1beta", "kimi": "/v1"}
MODELS = {
    "openai": "gpt-5.6",
    "openai-responses": "gpt-5.6",
    "anthropic": "claude-opus-4-8",
    "gemini": "gemini-2.5-flash",
    "kimi": "kimi-k3",
}
VENDORS = sorted(BASES)
SPEECH = "Zw\xf6lf Boxk\xe4mpfer \U0001f600 jagen Viktor quer \xfcber den gro\xdfen Sylter Deich."
THOUGHT = "They want a pangram, so a pangram it is."

USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "input_tokens": 19,
    "output_tokens": 10,
    "promptTokenCount": 19,
    "candidatesTokenCount": 10,
}

FIXTURES = [
    {"match": {"userMessage": "as JSON"}, "response": {"content": '{"sum": 42}'}},
    {"match": {"toolResultContains": "contents of a"}, "response": {"content": "Both are read."}},
    {"match": {"userMessage": "speak"}, "response": {"content": SPEECH, "usage": USAGE}},
    {"match": {"userMessage": "think"}, "response": {"content": SPEECH, "reasoning": THOUGHT}},
    {
        "match": {"userMessage": "use tools"},
        "response": {
            "content": "Reading both.",
            "reasoning": THOUGHT,
            "toolCalls": [
                {"name": "read", "arguments": {"path": "a \U0001f600"}},
                {"name": "ls", "arguments": {"path": "b", "deep": {"x": [1, 2]}}},
            ],
        },
    },
    {
        "match": {"userMessage": "too fast"},
        "response": {"error": {"message": "slow down", "type": "rate_limit_error"}, "status": 429, "retryAfter": 3},
    },
    {
        "match": {"userMessage": "wrong key"},
        "response": {"error": {"message": "no", "type": "authentication_error"}, "status": 401},
    },
    {
        "match": {"userMessage": "broken"},
        "response": {"error": {"message": "no", "type": "server_error"}, "status": 503},
    },
    {"match": {"userMessage": "stop short"}, "response": {"content": SPEECH}, "truncateAfterChunks": 3},
]


@asynccontextmanager
async def mock_server(root: Path) -> AsyncIterator[str]:
    """Start the server on a free port and yield its address."""
    node = shutil.which("node")
    assert node is not None, "AIMOCK_CLI is set, but there is no node"
    script = root / "script.json"
    script.write_text(json.dumps({"fixtures": FIXTURES}), encoding="utf-8")
    command = [node, CLI, "--port", "0", "--fixtures", str(script), "--chunk-size", "7", "--log-level", "info"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(root)}
    async with await anyio.open_process(command, stderr=None, env=environ) as process:
        try:
            with anyio.fail_after(DEADLINE_S):
                assert process.stdout is not None
                yield await address_in(process.stdout)
        finally:
            process.kill()


async def address_in(log: ByteReceiveStream) -> str:
    """Return the address that the server says it listens on."""
    said = b""
    while not (found := re.search(rb"listening on (http://127\.0\.0\.1:\d+)\s", said)):
        said += await log.receive()
    return found[1].decode()


async def ask(
    vendor: str, url: str, *messages: ContextMessage, schema: dict[str, Any] | None = None, **settings: Any
) -> list[ModelItem]:
    given = ProviderSettings(model=MODELS[vendor], api_base=url + BASES[vendor], api_key=KEY, **settings)
    provider = build_provider(vendor, given)
    items: list[ModelItem] = []
    try:
        tools = (READ, LS) if schema is None else ()
        async with provider.stream(request(*messages, system="Be nous.", tools=tools, output_schema=schema)) as stream:
            async for batch in stream:
                items += batch
    finally:
        await provider.aclose()
    assert not [*grammar_faults(items, finished=True)]
    return items


def text_of(items: list[ModelItem]) -> str:
    return "".join(item.text for item in items if isinstance(item, TextDelta))


def thought_of(items: list[ModelItem]) -> str:
    return "".join(item.text for item in items if isinstance(item, ThinkingDelta))


def calls_of(items: list[ModelItem]) -> list[tuple[str | None, str, object]]:
    opened = [item for item in items if isinstance(item, ToolCallDelta) and item.name]
    return [
        (
            item.id,
            item.name or "",
            json.loads("".join(d.arguments for d in items if isinstance(d, ToolCallDelta) and d.index == item.index)),
        )
        for item in opened
    ]


def blocks_of(items: list[ModelItem]) -> list[Block]:
    """Return an answer as it stands in a session."""
    signature = next((item.signature for item in items if isinstance(item, ThinkingDelta) and item.signature), None)
    thinking = [ThinkingBlock(thought_of(items), signature)] if thought_of(items) or signature else []
    made = [
        calls(call_id or f"call_{n}", name, json.dumps(arguments))
        for n, (call_id, name, arguments) in enumerate(calls_of(items))
    ]
    return [*thinking, TextBlock(text_of(items)), *made]


@pytest.mark.parametrize("vendor", VENDORS)
async def test_speaking_thinking_and_using_tools(vendor: str, tmp_path: Path) -> None:
    async with mock_server(tmp_path) as url:
        spoken = await ask(vendor, url, user("speak"))
        assert text_of(spoken) == SPEECH
        assert Finish("stop") in spoken
        assert sum(isinstance(item, TextDelta) for item in spoken) > 1
        assert UsageReport(Usage(input_tokens=19, output_tokens=10)) in spoken

        thought = await ask(vendor, url, user("think"), thinking="high")
        assert (text_of(thought), thought_of(thought)) == (SPEECH, THOUGHT)

        used = await ask(vendor, url, user("use tools"), thinking="high")
        assert Finish("tool_use") in used
        assert [(name, arguments) for _, name, arguments in calls_of(used)] == [
            ("read", {"path": "a \U0001f600"}),
            ("ls", {"path": "b", "deep": {"x": [1, 2]}}),
        ]

        answer = said(*blocks_of(used), by=(vendor, MODELS[vendor]))
        asked = answer.message.tool_calls
        back = [result(asked[0].id, "contents of a"), result(asked[1].id, "contents of a", name="ls")]
        ended = await ask(vendor, url, user("use tools"), answer, *map(results, back), thinking="high")
        assert text_of(ended) == "Both are read."


@pytest.mark.parametrize("vendor", VENDORS)
async def test_images_and_structured_output(vendor: str, tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"sum": {"type": "integer"}},
        "required": ["sum"],
        "additionalProperties": False,
    }
    async with mock_server(tmp_path) as url:
        assert text_of(await ask(vendor, url, user("speak", PNG))) == SPEECH
        summed = await ask(vendor, url, user("20 + 22 as JSON"), schema=schema, thinking="high")
        assert json.loads(text_of(summed)) == {"sum": 42}


@pytest.mark.parametrize("vendor", VENDORS)
async def test_refusals_and_a_cut(vendor: str, tmp_path: Path) -> None:
    async with mock_server(tmp_path) as url:
        for words, code, wait_ms in (
            ("too fast", "provider_unavailable", 3000),
            ("wrong key", "provider_auth", None),
            ("broken", "provider_unavailable", None),
            ("stop short", "provider_unavailable", None),
        ):
            with pytest.raises(NousError) as caught:
                await ask(vendor, url, user(words))
            assert (words, caught.value.code, caught.value.retry_after_ms) == (words, code, wait_ms)
