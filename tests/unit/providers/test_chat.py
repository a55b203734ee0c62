"""Requests in OpenAI's dialect, and what its error answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nous.errors import NousError
from nous.ports.model import ContextMessage, ModelRequest, ToolSpec
from nous.protocol.messages import Message, TextBlock, ThinkingBlock, ToolCallBlock, ToolResultBlock
from nous.providers.chat import ChatAdapter
from nous.providers.faults import ErrorReply
from nous.providers.presets import PRESETS
from nous.providers.registry import build_adapter
from nous.providers.settings import ProviderSettings
from nous.providers.wire import fit_name
from tests.support import vendor_requests
from tests.support.vendor_requests import PNG, calls, result, results, said, user
from tests.support.vendor_streams import adapter_of

LOCAL = "http://127.0.0.1:8080/v1"
KEY = "sk-test-0123456789"
SETTINGS = ProviderSettings(model="gpt-test", api_key=KEY)
TOOLS = (ToolSpec(name="read", description="Read a file.", schema={"type": "object"}),)


def chat_adapter(settings: ProviderSettings = SETTINGS, preset: str = "openai") -> ChatAdapter:
    return ChatAdapter(PRESETS[preset], settings)


def message(role: Any, text: str = "", *blocks: Any) -> ContextMessage:
    return ContextMessage(Message(id="m", role=role, text=text, created_at="", blocks=blocks))


def request(*messages: ContextMessage, system: str = "", tools: tuple[ToolSpec, ...] = ()) -> ModelRequest:
    return ModelRequest(run_id="r", session_id="s", call=1, system=system, messages=messages, tools=tools)


def body_of(asked: ModelRequest) -> dict[str, Any]:
    found = json.loads(chat_adapter(SETTINGS).build(asked).body)
    assert isinstance(found, dict)
    return found


def test_a_whole_conversation() -> None:
    call = ToolCallBlock(id="c1", name="read", arguments='{"path":"a"}')
    silent = ToolCallBlock(id="c2", name="ls", arguments="")
    asked = request(
        message("user", 'say "hi" \u2028 \U0001f600'),
        message("assistant", "Reading.", TextBlock(text="Reading."), call),
        message("tool_result", "A", ToolResultBlock(tool_call_id="c1", tool_name="read", text="A", is_error=False)),
        message("assistant", "", silent),
        message("tool_result", "", ToolResultBlock(tool_call_id="c2", tool_name="ls", text="", is_error=True)),
        message("assistant", "Done."),
        system="You are nous.",
        tools=TOOLS,
    )
    assert body_of(asked) == {
        "model": "gpt-test",
        "stream": True,
        "stream_options": {"include_usage": True},
        "prompt_cache_key": "s",
        "tools": [
            {
                "type": "function",
                "function": {"name": "read", "description": "Read a file.", "parameters": {"type": "object"}},
            }
        ],
        "messages": [
            {"role": "system", "content": "You are nous."},
            {"role": "user", "content": 'say "hi" \u2028 \U0001f600'},
            {
                "role": "assistant",
                "content": "Reading.",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"path":"a"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "A"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c2", "type": "function", "function": {"name": "ls", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c2", "content": ""},
            {"role": "assistant", "content": "Done."},
        ],
    }


def test_without_system_and_tools_there_is_no_trace_of_them() -> None:
    assert body_of(request(message("user", "hi"))) == {
        "model": "gpt-test",
        "stream": True,
        "stream_options": {"include_usage": True},
        "prompt_cache_key": "s",
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_no_messages_at_all_is_still_json() -> None:
    assert body_of(request())["messages"] == []


def test_a_result_message_with_two_results_becomes_two() -> None:
    blocks = [ToolResultBlock(tool_call_id=c, tool_name="read", text=c, is_error=False) for c in "ab"]
    calls = [ToolCallBlock(id=c, name="read", arguments="{}") for c in "ab"]
    roles = [
        m["role"]
        for m in body_of(request(message("assistant", "", *calls), message("tool_result", "", *blocks), tools=TOOLS))[
            "messages"
        ]
    ]
    assert roles == ["assistant", "tool", "tool"]


def test_an_interrupted_call_is_answered_in_the_request() -> None:
    call = ToolCallBlock(id="c1", name="read", arguments="{}")
    sent = body_of(request(message("assistant", "", call), message("user", "go on"), tools=TOOLS))["messages"]
    assert [m["role"] for m in sent] == ["assistant", "tool", "user"]
    assert sent[1]["tool_call_id"] == "c1"


def test_a_message_is_encoded_once() -> None:
    adapter = chat_adapter(SETTINGS)
    item = message("user", "hi")
    first = adapter.build(request(item, tools=TOOLS)).body
    assert item.wire == {"openai/gpt-test": b'{"role":"user","content":"hi"}'}
    item.wire["openai/gpt-test"] = b'{"role":"user","content":"kept"}'
    assert adapter.build(request(item, tools=TOOLS)).body == first.replace(b'"hi"', b'"kept"')


def test_what_went_before_is_a_prefix_of_what_comes_after() -> None:
    adapter = chat_adapter(SETTINGS)
    messages = [message("user", "hi"), message("assistant", "hello"), message("user", "more")]
    short, long = (adapter.build(request(*messages[:n], system="s")).body for n in (1, 3))
    assert long.startswith(short.removesuffix(b"]}"))


def test_the_key_stands_in_a_header_only() -> None:
    built = chat_adapter(SETTINGS).build(request(message("user", "hi")))
    assert built.url == "https://api.openai.com/v1/chat/completions"
    assert built.headers == {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    assert KEY.encode() not in built.body
    assert KEY not in repr(built) + built.url


def test_headers_of_the_settings_are_added_and_win() -> None:
    settings = ProviderSettings(model="m", api_key=KEY, headers={"X-Title": "t", "Authorization": "Basic x"})
    built = chat_adapter(settings).build(request())
    assert built.headers == {"content-type": "application/json", "authorization": "Basic x", "x-title": "t"}


def test_a_server_on_this_machine_needs_no_key() -> None:
    settings = ProviderSettings(model="m", api_base="http://127.0.0.1:9/v1/")
    built = chat_adapter(settings).build(request())
    assert built.url == "http://127.0.0.1:9/v1/chat/completions"
    assert "authorization" not in built.headers


def test_own_authorization_replaces_the_key() -> None:
    chat_adapter(ProviderSettings(model="m", api_base="https://example.com", headers={"Authorization": "Basic x"}))


@pytest.mark.parametrize(
    ("settings", "code", "cause"),
    [
        (ProviderSettings(model="m"), "provider_auth", "OPENAI_API_KEY is not set"),
        (ProviderSettings(model="m", api_key=""), "provider_auth", "OPENAI_API_KEY is not set"),
        (ProviderSettings(model="m", api_base="https://example.com"), "provider_auth", "OPENAI_API_KEY is not set"),
        (ProviderSettings(model="m", api_key="sk-x\n"), "provider_auth", "OPENAI_API_KEY holds characters"),
        (ProviderSettings(api_key=KEY), "invalid_usage", "needs a model"),
        (ProviderSettings(model="m", api_key=KEY, api_base="nonsense"), "invalid_config", "provider.api_base"),
        (ProviderSettings(model="m", api_key=KEY, api_base="http://example.com"), "unsafe_operation", "plain http"),
        (ProviderSettings(model="m", api_key=KEY, headers={"host": "x"}), "invalid_config", "provider.headers"),
    ],
)
def test_settings_that_cannot_work(settings: ProviderSettings, code: str, cause: str) -> None:
    with pytest.raises(NousError, match=cause) as caught:
        chat_adapter(settings)
    assert caught.value.code == code
    assert "sk-" not in str(caught.value)


def reply(status: int, body: object, retry_after_ms: int | None = None) -> ErrorReply:
    return ErrorReply(status, "application/json", json.dumps(body).encode(), retry_after_ms)


def refusal(status: int, retry_after_ms: int | None = None, **error: str) -> ErrorReply:
    return reply(status, {"error": error}, retry_after_ms)


@pytest.mark.parametrize(
    ("answer", "code", "cause"),
    [
        (
            refusal(
                401, message=f"Incorrect API key provided: {KEY}", type="invalid_request_error", code="invalid_api_key"
            ),
            "provider_auth",
            "HTTP 401 invalid_api_key invalid_request_error: Incorrect API key provided: [redacted]",
        ),
        (
            refusal(400, message="too long", type="x_error", param="messages", code="context_length_exceeded"),
            "context_overflow",
            "HTTP 400 context_length_exceeded x_error messages: too long",
        ),
        (
            refusal(429, code="rate_limit_exceeded", type="requests", retry_after_ms=20),
            "provider_unavailable",
            "HTTP 429 rate_limit_exceeded requests",
        ),
        (refusal(429, code="insufficient_quota"), "provider_error", "HTTP 429 insufficient_quota"),
        (refusal(400, code="content_filter"), "content_refused", "HTTP 400 content_filter"),
        (reply(404, {"error": "model not found"}), "provider_error", "HTTP 404: model not found"),
        (reply(500, ["x"]), "provider_unavailable", "HTTP 500"),
        (ErrorReply(502, "text/html", b"<html>"), "provider_unavailable", "HTTP 502"),
        (reply(307, {}), "provider_error", "HTTP 307: redirects are not followed"),
        (reply(200, {"choices": []}), "provider_error", "HTTP 200: application/json, not a plain event stream"),
        (ErrorReply(200, "text/<b>", b""), "provider_error", "HTTP 200: no known type, not a plain event stream"),
        (reply(200, {"error": {"code": 429}}), "provider_unavailable", "HTTP 429"),
    ],
)
def test_answers_that_are_no_stream(answer: ErrorReply, code: str, cause: str) -> None:
    error = chat_adapter(SETTINGS).fault(answer)
    assert (error.code, error.cause) == (code, cause)
    assert error.retry_after_ms == answer.retry_after_ms


# -- what presets do differently


def test_images_of_people_and_of_results() -> None:
    """Results hold text only here: their images follow as the user's, behind all results of the round."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    asked = vendor_requests.request(
        user("see", PNG),
        said(calls("c1"), calls("c2")),
        results(result("c1", "A"), PNG),
        results(result("c2", "B")),
        said(TextBlock(text="Seen.")),
        user("", PNG),
    )
    sent = vendor_requests.body_of(adapter_of("openai"), asked)["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "user", "assistant", "user"]
    assert sent[0]["content"] == [image, {"type": "text", "text": "see"}]
    assert sent[4]["content"] == [{"type": "text", "text": "Images of the result of read:"}, image]
    assert sent[6]["content"] == [image]


def test_images_at_the_very_end_are_not_lost() -> None:
    asked = vendor_requests.request(user(), said(calls("c")), results(result("c"), PNG))
    assert vendor_requests.body_of(adapter_of("openai"), asked)["messages"][-1]["role"] == "user"


def test_a_model_that_takes_no_images_says_so() -> None:
    with pytest.raises(NousError, match="deepseek-v4-pro takes none") as caught:
        adapter_of("deepseek", model="deepseek-v4-pro").build(vendor_requests.request(user("see", PNG)))
    assert caught.value.code == "capability_unavailable"


@pytest.mark.parametrize(
    ("vendor", "blocks", "by", "fields"),
    [
        ("openai", (ThinkingBlock("t"),), "own", {}),
        ("kimi", (ThinkingBlock("t"), ThinkingBlock("u")), "own", {"reasoning_content": "tu"}),
        ("kimi", (), "own", {"reasoning_content": " "}),
        ("kimi", (ThinkingBlock("t"),), "other", {"reasoning_content": " "}),
        ("deepseek", (ThinkingBlock("t"),), "own", {"reasoning_content": "t"}),
        ("deepseek", (ThinkingBlock("t", "s"),), "other", {"reasoning_content": " "}),
        ("llamacpp", (ThinkingBlock("t"),), "own", {"reasoning_content": "t"}),
        ("llamacpp", (ThinkingBlock("t"),), "other", {}),
        ("ollama", (ThinkingBlock("t"),), "own", {}),
        ("openrouter", (ThinkingBlock("t", '[{"type":"x"}]'),), "own", {"reasoning_details": [{"type": "x"}]}),
        ("openrouter", (ThinkingBlock("t"), ThinkingBlock("", "[]")), "own", {"reasoning_details": []}),
        ("openrouter", (ThinkingBlock("t", "c2ln"),), "other", {}),
    ],
)
def test_thinking_goes_back_where_it_came_from(
    vendor: str, blocks: tuple[ThinkingBlock, ...], by: str, fields: dict[str, object]
) -> None:
    writer = (vendor, "m") if by == "own" else ("anthropic", "m")
    asked = vendor_requests.request(user(), said(*blocks, calls("c"), by=writer), results(result("c")))
    sent = vendor_requests.body_of(adapter_of(vendor), asked)["messages"][1]
    assert {name: value for name, value in sent.items() if name.startswith("reasoning")} == fields


def test_kimi_refuses_empty_messages() -> None:
    asked = vendor_requests.request(user(""), said(calls("c")), results(result("c", "")))
    kimi = vendor_requests.body_of(adapter_of("kimi"), asked)["messages"]
    assert [kimi[0]["content"], kimi[2]["content"]] == ["(no text)", "(no text)"]
    openai = vendor_requests.body_of(adapter_of("openai"), asked)["messages"]
    assert [openai[0]["content"], openai[2]["content"]] == ["", ""]


@pytest.mark.parametrize(
    ("vendor", "settings", "fields"),
    [
        ("openai", {"model": "gpt-5.6", "thinking": "max"}, {"reasoning_effort": "max"}),
        ("openai", {"model": "gpt-5.6", "thinking": "off"}, {"reasoning_effort": "none"}),
        ("openai", {"max_output_tokens": 5}, {"max_completion_tokens": 5, "prompt_cache_key": "s"}),
        ("kimi", {"model": "kimi-k3", "thinking": "medium"}, {"reasoning_effort": "high", "prompt_cache_key": "s"}),
        ("kimi", {"model": "kimi-k2.6", "thinking": "off"}, {"thinking": {"type": "disabled"}}),
        ("kimi", {"model": "kimi-k2.6", "thinking": "low"}, {"thinking": {"type": "enabled"}}),
        ("kimi", {"max_output_tokens": 5}, {"max_completion_tokens": 5}),
        (
            "deepseek",
            {"model": "deepseek-v4-pro", "thinking": "low"},
            {"thinking": {"type": "enabled"}, "reasoning_effort": "high"},
        ),
        ("deepseek", {"thinking": "off"}, {"thinking": {"type": "disabled"}}),
        (
            "openrouter",
            {"thinking": "high", "max_output_tokens": 5},
            {"reasoning": {"effort": "high"}, "max_tokens": 5},
        ),
        ("ollama", {"thinking": "low"}, {"reasoning_effort": "low"}),
        ("vllm", {"max_output_tokens": 5}, {"max_tokens": 5}),
    ],
)
def test_fields_of_presets(vendor: str, settings: dict[str, object], fields: dict[str, object]) -> None:
    found = vendor_requests.body_of(adapter_of(vendor, **settings), vendor_requests.request(user()))
    assert fields.items() <= found.items()
    assert not {"reasoning_effort", "thinking", "reasoning", "max_tokens", "max_completion_tokens"} & (
        found.keys() - fields.keys()
    )


def test_thinking_that_a_model_does_not_have() -> None:
    with pytest.raises(NousError, match="thinking") as caught:
        adapter_of("openai", model="gpt-4.1", thinking="low")
    assert caught.value.code == "capability_unavailable"
    fields = vendor_requests.body_of(
        adapter_of("openai", model="gpt-4.1", thinking="off"), vendor_requests.request(user())
    )
    assert "reasoning_effort" not in fields


def test_what_is_particular_to_a_vendor_goes_to_nobody_else() -> None:
    found = vendor_requests.body_of(adapter_of("openai", api_base=LOCAL), vendor_requests.request(user()))
    assert "prompt_cache_key" not in found


@pytest.mark.parametrize("vendor", ["ollama", "vllm", "llamacpp", "lmstudio"])
def test_local_servers_need_no_key_and_take_one(vendor: str) -> None:
    plain = build_adapter(vendor, ProviderSettings(model="m")).build(vendor_requests.request(user()))
    assert "authorization" not in plain.headers
    assert plain.url.startswith("http://127.0.0.1:")
    keyed = build_adapter(vendor, ProviderSettings(model="m", api_key=KEY, api_base="https://gpu.example/v1"))
    assert keyed.build(vendor_requests.request(user())).headers["authorization"] == f"Bearer {KEY}"
    build_adapter(vendor, ProviderSettings(model="m", api_base="https://gpu.example/v1"))


@pytest.mark.parametrize("call_id", ["x" * 41, "a:b", "\xfc"])
def test_call_ids_are_fitted_on_both_sides_alike(call_id: str) -> None:
    asked = vendor_requests.request(user(), said(calls(call_id, "no such tool!")), results(result(call_id)))
    sent = vendor_requests.body_of(adapter_of("openai"), asked)["messages"]
    (sent_call,) = sent[1]["tool_calls"]
    assert sent_call["id"] == sent[2]["tool_call_id"]
    assert len(sent_call["id"]) <= 40
    assert sent_call["function"]["name"] == fit_name("no such tool!")


def test_arguments_that_are_no_object() -> None:
    asked = vendor_requests.request(user(), said(calls("c", arguments='{"a')), results(result("c")))
    sent = vendor_requests.body_of(adapter_of("vllm"), asked)["messages"]
    assert json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]) == {"not_an_object": '{"a'}
