"""The mock: its echo, its scripts, who gets which call."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Literal

import anyio
import msgspec
import pytest

from nous.errors import NousError
from nous.ports.model import (
    ContextMessage,
    Finish,
    ModelItem,
    ModelRequest,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReport,
)
from nous.protocol.messages import Message, Usage
from nous.providers.mock import MockProvider
from nous.providers.settings import ProviderSettings
from tests.support.home import SCALE

pytestmark = pytest.mark.anyio

DEADLINE_S = int(20 * SCALE)


def ask(
    text: str = "hi", session_id: str = "s", purpose: Literal["answer", "compaction"] = "answer", reply: str = ""
) -> ModelRequest:
    messages = [Message(id="u", role="user", text=text, created_at="")]
    if reply:
        messages.append(Message(id="a", role="assistant", text=reply, created_at=""))
    return ModelRequest(
        run_id="r",
        session_id=session_id,
        call=1,
        system="",
        messages=[ContextMessage(message) for message in messages],
        tools=[],
        purpose=purpose,
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "script.ndjson"


def mock(script: Path, *calls: object, idle_ms: int = 10_000) -> MockProvider:
    script.write_bytes(b"\n".join(msgspec.json.encode(call) for call in calls))
    return MockProvider(ProviderSettings(script=script, stream_idle_timeout_ms=idle_ms))


def mock_of_line(script: Path, line: str) -> MockProvider:
    """Make a mock of one call that no JSON library would write."""
    script.write_text(line, encoding="utf-8")
    return MockProvider(ProviderSettings(script=script))


async def play(provider: MockProvider, request: ModelRequest, lists: list[list[ModelItem]]) -> None:
    with anyio.fail_after(DEADLINE_S):
        async with provider.stream(request) as stream:
            async for items in stream:
                lists.append(items)


async def lists_of(provider: MockProvider, request: ModelRequest | None = None) -> list[list[ModelItem]]:
    lists: list[list[ModelItem]] = []
    await play(provider, request or ask(), lists)
    assert all(lists)
    return lists


async def text_of(provider: MockProvider, request: ModelRequest | None = None) -> str:
    lists = await lists_of(provider, request)
    return "".join(item.text for items in lists for item in items if isinstance(item, TextDelta))


async def failure_of(provider: MockProvider) -> tuple[list[list[ModelItem]], NousError]:
    lists: list[list[ModelItem]] = []
    with pytest.raises(NousError) as caught:
        await play(provider, ask(), lists)
    return lists, caught.value


@pytest.mark.parametrize("text", ["hi", "", "\xfcber \U0001f600", "x" * 100_000, "a\u2028b\n"])
async def test_without_a_script_it_echoes_in_several_deltas(text: str) -> None:
    provider = MockProvider(ProviderSettings())
    deltas, end = await lists_of(provider, ask(text))
    assert "".join(item.text for item in deltas if isinstance(item, TextDelta)) == "mock response: " + text
    assert 2 <= len(deltas) <= 64
    assert isinstance(end[0], UsageReport)
    assert end[1:] == [Finish("stop")]
    assert [deltas, end] == await lists_of(provider, ask(text))


async def test_it_echoes_the_last_user_text() -> None:
    assert await text_of(MockProvider(ProviderSettings()), ask("question", reply="answer")) == "mock response: question"


async def test_its_name_and_model() -> None:
    provider = MockProvider(ProviderSettings())
    assert (provider.name, provider.model, provider.builds) == ("mock", "mock", 0)
    assert MockProvider(ProviderSettings(model="other")).model == "other"


async def test_every_step_is_one_list(script: Path) -> None:
    provider = mock(
        script,
        [
            {"thinking": "hm"},
            {"thinking": {"text": ["h", "m"], "signature": "s"}},
            {"text": "Hello"},
            {"text": ["a", "", "b"]},
            {"delay_ms": 1},
            {"tool_call": {"name": "read", "arguments": {"path": "a.txt"}, "id": "c", "fragments": 3}},
            {"tool_call": {"name": "ls"}},
            {"tool_call": {"name": "bash", "arguments": '{"bro'}},
            {"tool_call": {"name": "grep", "arguments": "", "fragments": 5}},
            {"usage": {"input_tokens": 1, "output_tokens": 2, "cached_tokens": 3, "reasoning_tokens": 4}},
        ],
    )
    usage = Usage(input_tokens=1, output_tokens=2, cached_tokens=3, reasoning_tokens=4)
    assert await lists_of(provider) == [
        [ThinkingDelta("hm")],
        [ThinkingDelta("h"), ThinkingDelta("m"), ThinkingDelta("", "s")],
        [TextDelta("Hello")],
        [TextDelta("a"), TextDelta("b")],
        [
            ToolCallDelta(0, "c", "read"),
            ToolCallDelta(0, arguments='{"pat'),
            ToolCallDelta(0, arguments='h":"a'),
            ToolCallDelta(0, arguments='.txt"}'),
        ],
        [ToolCallDelta(1, "call_1_1", "ls"), ToolCallDelta(1, arguments="{}")],
        [ToolCallDelta(2, "call_1_2", "bash"), ToolCallDelta(2, arguments='{"bro')],
        [ToolCallDelta(3, "call_1_3", "grep")],
        [UsageReport(usage)],
        [Finish("tool_use")],
    ]


@pytest.mark.parametrize("reason", ["stop", "length", "tool_use", "refusal"])
async def test_a_finish_of_its_own_and_usage_behind_it(script: Path, reason: str) -> None:
    provider = mock(script, [{"text": "a"}, {"finish": reason}, {"usage": {}}])
    assert await lists_of(provider) == [[TextDelta("a")], [Finish(reason)], [UsageReport(Usage())]]  # type: ignore[arg-type]


async def test_half_pairs_are_joined_or_replaced(script: Path) -> None:
    provider = mock_of_line(script, r'[{"text":["a\ud83d","\ude00"]},{"text":"\ud83d"}]')
    assert await text_of(provider) == "a\U0001f600\ufffd"


async def test_half_pairs_anywhere_in_a_script_become_characters(script: Path) -> None:
    half = r"\ud83d"
    call = f'{{"tool_call":{{"name":"{half}","id":"{half}","arguments":{{"{half}":["{half}"]}}}}}}'
    raw = f'{{"tool_call":{{"name":"a","arguments":"{half}"}}}}'
    thinking = f'{{"thinking":{{"text":"{half}","signature":"{half}"}}}}'
    lists = await lists_of(mock_of_line(script, f"[{thinking},{call},{raw}]"))
    written = msgspec.json.encode(lists).decode()
    assert written.count("\ufffd") == 7


async def test_calls_are_used_up_in_order_then_it_echoes(script: Path) -> None:
    provider = mock(script, [{"text": "one"}], [{"text": "two"}])
    assert [await text_of(provider) for _ in range(3)] == ["one", "two", "mock response: hi"]


async def test_match_tells_sessions_texts_and_purposes_apart(script: Path) -> None:
    provider = mock(
        script,
        {"match": {"session_id": "b"}, "steps": [{"text": "for b"}]},
        {"match": {"text": "weather"}, "steps": [{"text": "rain"}]},
        {"match": {"purpose": "compaction"}, "steps": [{"text": "summary"}]},
        [{"text": "anyone"}],
    )
    assert await text_of(provider, ask("hello")) == "anyone"
    assert await text_of(provider, ask("hello")) == "mock response: hello"
    assert await text_of(provider, ask("the weather?")) == "rain"
    assert await text_of(provider, ask("hello", purpose="compaction")) == "summary"
    assert await text_of(provider, ask("hello", session_id="b")) == "for b"


async def test_calls_that_run_side_by_side_do_not_share_one(script: Path) -> None:
    provider = mock(script, *[[{"text": str(n)}, {"text": "."}] for n in range(8)])
    texts: list[str] = []

    async def one() -> None:
        texts.append(await text_of(provider))

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(one)
    assert sorted(texts) == [f"{n}." for n in range(8)]


@pytest.mark.parametrize(
    ("step", "code", "cause", "retry_after_ms"),
    [
        ({"error": {"status": 429, "retry_after_ms": 7}}, "provider_unavailable", "HTTP 429", 7),
        ({"error": {"status": 401, "retry_after_ms": 7}}, "provider_auth", "HTTP 401", None),
        ({"error": {"status": 500, "cause": "x"}}, "provider_unavailable", "x", None),
        ({"error": {"code": "context_overflow"}}, "context_overflow", None, None),
        (
            {"error": {"code": "provider_unavailable", "cause": "x", "retry_after_ms": 0}},
            "provider_unavailable",
            "x",
            0,
        ),
        ({"cut": True}, "provider_unavailable", "cut: the stream ended before the answer did", None),
    ],
)
async def test_failures(script: Path, step: object, code: str, cause: str | None, retry_after_ms: int | None) -> None:
    lists, error = await failure_of(mock(script, [{"text": "a"}, step]))
    assert lists == [[TextDelta("a")]]
    assert (error.code, error.cause, error.retry_after_ms) == (code, cause, retry_after_ms)


@pytest.mark.parametrize("step", [{"hang": True}, {"delay_ms": 60_000}])
async def test_silence_is_borne_as_long_as_a_connection_would_be(script: Path, step: object) -> None:
    lists, error = await failure_of(mock(script, [{"text": "a"}, step], idle_ms=10))
    assert lists == [[TextDelta("a")]]
    assert (error.code, error.cause) == ("provider_unavailable", "idle: nothing was received in 10 ms")


async def test_a_hanging_call_can_be_cancelled(script: Path) -> None:
    provider, hanging = mock(script, [{"text": "a"}, {"hang": True}], idle_ms=10_000 * DEADLINE_S), anyio.Event()

    async def hang() -> None:
        async with provider.stream(ask()) as stream:
            await anext(stream)
            hanging.set()
            await anext(stream)

    with anyio.fail_after(DEADLINE_S / 2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hang)
            await hanging.wait()
            tasks.cancel_scope.cancel()
    assert await text_of(provider) == "mock response: hi"


async def test_a_large_answer_is_made_while_it_is_read(script: Path) -> None:
    provider = mock(script, [{"text_repeat": {"text": "0123456789", "count": 200_000, "chunk": 100}}])
    count, sizes = 0, set()
    tracemalloc.start()
    try:
        async with provider.stream(ask()) as stream:
            async for items in stream:
                count += sum(isinstance(item, TextDelta) for item in items)
                sizes.add(len(items))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 200_000
    assert sizes == {100, 1}
    assert peak < 1024 * 1024


async def test_the_last_list_of_a_repetition_is_what_is_left(script: Path) -> None:
    provider = mock(script, [{"text_repeat": {"text": "x", "count": 5, "chunk": 2}}])
    assert [len(items) for items in await lists_of(provider)] == [2, 2, 1, 1]


async def test_a_repetition_of_nothing_is_nothing(script: Path) -> None:
    provider = mock(script, [{"text_repeat": {"text": "", "count": 5}}])
    assert await lists_of(provider) == [[Finish("stop")]]


async def test_leaving_early_leaves_nothing_behind(script: Path) -> None:
    provider = mock(script, [{"text_repeat": {"text": "x", "count": 200_000}}])
    async with provider.stream(ask()) as stream:
        await anext(stream)
    await provider.warm()
    await provider.aclose()
    assert await text_of(provider) == "mock response: hi"
