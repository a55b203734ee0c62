"""What models vendors say they have."""

from __future__ import annotations

import msgspec
import pytest

from nous.errors import NousError
from nous.providers.listing import ListedModel, read_list
from nous.providers.presets import PRESETS, Dialect
from nous.providers.registry import list_models
from nous.providers.settings import ProviderSettings
from tests.support.sse_server import answers, floods, serve
from tests.support.vendor_streams import KEY

ANTHROPIC = b"""{"data":[{"type":"model","id":"claude-opus-5-5","created_at":"2026-09-22",
"max_input_tokens":1000000,"max_tokens":128000}],"has_more":false,"first_id":"a","last_id":"b"}"""
GEMINI = b"""{"models":[
{"name":"models/gemini-3.8-flash","inputTokenLimit":1048576,"outputTokenLimit":65536,
 "supportedGenerationMethods":["generateContent","countTokens"]},
{"name":"models/gemini-embedding-2","inputTokenLimit":8192,"supportedGenerationMethods":["embedContent"]}]}"""
OPENAI = b'{"object":"list","data":[{"id":"gpt-5.6","object":"model","created":1,"owned_by":"openai"},{"id":"a"}]}'
VLLM = b'{"object":"list","data":[{"id":"Qwen/Qwen3","object":"model","owned_by":"vllm","max_model_len":4096}]}'
OPENROUTER = b'{"data":[{"id":"x/y","context_length":200000,"top_provider":{"max_completion_tokens":1}}]}'


@pytest.mark.parametrize(
    ("dialect", "body", "models"),
    [
        ("chat", OPENAI, [ListedModel("a"), ListedModel("gpt-5.6")]),
        ("chat", VLLM, [ListedModel("Qwen/Qwen3", 4096)]),
        ("chat", OPENROUTER, [ListedModel("x/y", 200_000)]),
        ("chat", b'{"data":[]}', []),
        (
            "chat",
            b'{"data":[{"id":"a\\u001b[2J"},{"id":""},{"id":7},"b",{"id":"c","max_tokens":true}]}',
            [ListedModel("c")],
        ),
        ("anthropic", ANTHROPIC, [ListedModel("claude-opus-5-5", 1_000_000, 128_000)]),
        ("gemini", GEMINI, [ListedModel("gemini-3.8-flash", 1_048_576, 65_536)]),
    ],
)
def test_lists(dialect: Dialect, body: bytes, models: list[ListedModel]) -> None:
    assert read_list(dialect, body) == models


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"data":{}}', b"[" * 100_000, b'{"data":"secret"}'])
@pytest.mark.parametrize("dialect", ["chat", "gemini"])
def test_answers_that_are_no_list(dialect: Dialect, body: bytes) -> None:
    with pytest.raises(NousError, match="malformed") as caught:
        read_list(dialect, body)
    assert caught.value.code == "provider_error"
    assert "secret" not in str(caught.value)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "body", "target", "header"),
    [
        ("openai", OPENAI, "/models", "authorization"),
        ("anthropic", ANTHROPIC, "/models?limit=1000", "x-api-key"),
        ("gemini", GEMINI, "/models?pageSize=1000", "x-goog-api-key"),
        ("lmstudio", OPENAI, "/models", "authorization"),
    ],
)
async def test_asking_over_a_socket(name: str, body: bytes, target: str, header: str) -> None:
    async with serve(answers(200, body)) as server:
        found = await list_models(name, ProviderSettings(api_base=server.url, api_key=KEY))
    assert found == read_list(PRESETS[name].dialect, body)
    (seen,) = server.exchanges
    assert (seen.target, seen.body) == (target, b"")
    assert KEY in seen.headers[header]
    assert KEY not in seen.target
    assert not {"content-type", "content-length", "transfer-encoding"} & seen.headers.keys()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "code", "where"),
    [(401, "provider_auth", ""), (404, "provider_error", " (below /v1 too)"), (503, "provider_unavailable", "")],
)
async def test_refusals(status: int, code: str, where: str) -> None:
    body = msgspec.json.encode({"error": {"message": f"secret {KEY}", "type": "x_error", "code": 7}})
    async with serve(answers(status, body), answers(status, body)) as server:
        with pytest.raises(NousError) as caught:
            await list_models("openai", ProviderSettings(api_base=server.url, api_key=KEY))
    assert (caught.value.code, caught.value.cause) == (code, f"HTTP {status} x_error{where}")


@pytest.mark.anyio
async def test_an_answer_without_end_is_refused() -> None:
    async with serve(floods()) as server:
        with pytest.raises(NousError, match="longer than") as caught:
            await list_models("openai", ProviderSettings(api_base=server.url))
    assert caught.value.code == "provider_error"


@pytest.mark.anyio
async def test_nobody_listens() -> None:
    async with serve() as server:
        pass
    with pytest.raises(NousError) as caught:
        await list_models("ollama", ProviderSettings(api_base=server.url))
    assert caught.value.code == "provider_unavailable"


@pytest.mark.anyio
async def test_a_name_nobody_knows() -> None:
    with pytest.raises(NousError, match="nonsense"):
        await list_models("nonsense", ProviderSettings())
