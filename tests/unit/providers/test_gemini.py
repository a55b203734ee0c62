"""Requests in Gemini's dialect, and what is particular about its stream."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nous.errors import NousError
from nous.ports.model import Finish, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import ImageBlock, TextBlock, ThinkingBlock, Usage
from nous.providers.adapter import Adapter
from nous.providers.faults import ErrorReply
from nous.providers.gemini_stream import GeminiParser
from tests.support.vendor_requests import LS, PNG, READ, body_of, calls, request, result, results, said, user
from tests.support.vendor_streams import KEY, adapter_of, play_events

MODEL = "gemini-3.8-flash"
OWN = ("gemini", MODEL)


def adapter(**settings: object) -> Adapter:
    return adapter_of("gemini", **{"model": MODEL, **settings})


def test_a_whole_conversation() -> None:
    asked = request(
        user("hi"),
        said(ThinkingBlock("Two files.", "c2ln"), TextBlock("Reading."), calls("c1"), calls("c2", "ls", ""), by=OWN),
        results(result("c1", "A")),
        results(result("c2", "none", name="ls", is_error=True)),
        said(TextBlock("Done."), by=OWN),
        user("more"),
        system="You are nous.",
        tools=(READ, LS),
    )
    assert body_of(adapter(max_output_tokens=99), asked) == {
        "generationConfig": {"maxOutputTokens": 99},
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "read", "description": "Read a file.", "parametersJsonSchema": READ.schema},
                    {"name": "ls", "description": "List a directory.", "parametersJsonSchema": LS.schema},
                ]
            }
        ],
        "systemInstruction": {"parts": [{"text": "You are nous."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "hi"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "Reading."},
                    {
                        "functionCall": {"id": "c1", "name": "read", "args": {"path": "a"}},
                        "thoughtSignature": "c2ln",
                    },
                    {"functionCall": {"id": "c2", "name": "ls", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "c1", "name": "read", "response": {"output": "A"}}},
                    {"functionResponse": {"id": "c2", "name": "ls", "response": {"error": "none"}}},
                ],
            },
            {"role": "model", "parts": [{"text": "Done."}]},
            {"role": "user", "parts": [{"text": "more"}]},
        ],
    }


def test_a_short_one() -> None:
    assert body_of(adapter(), request(user(" "))) == {"contents": [{"role": "user", "parts": [{"text": "(no text)"}]}]}


def parts_of(*blocks: Any, by: tuple[str, str] = OWN) -> list[dict[str, Any]]:
    sent = body_of(adapter(), request(user(), said(*blocks, by=by), user()))["contents"][1]["parts"]
    assert isinstance(sent, list)
    return sent


def test_a_signature_without_a_call_stands_on_an_empty_text_at_the_end() -> None:
    assert parts_of(TextBlock("Yes."), ThinkingBlock("", "s")) == [
        {"text": "Yes."},
        {"text": "", "thoughtSignature": "s"},
    ]


def test_each_signature_stays_with_its_call() -> None:
    blocks = (ThinkingBlock("", "1"), calls("a"), calls("b"), ThinkingBlock("", "2"), calls("c"))
    assert [part.get("thoughtSignature") for part in parts_of(*blocks)[:3]] == ["1", None, "2"]


def test_two_signatures_before_one_call() -> None:
    blocks = (ThinkingBlock("", "1"), ThinkingBlock("t", "2"), calls("a"))
    assert [part.get("thoughtSignature") for part in parts_of(*blocks)][:2] == ["1", "2"]


def test_thinking_without_a_signature_is_not_sent() -> None:
    assert parts_of(ThinkingBlock("t"), TextBlock("x")) == [{"text": "x"}]


def test_thinking_of_others_is_not_sent() -> None:
    for by in (("anthropic", MODEL), ("gemini", "gemini-2.5-pro"), ("", "")):
        assert parts_of(ThinkingBlock("t", "s"), TextBlock("x"), by=by) == [{"text": "x"}]


def test_images_of_people_and_of_results() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": PNG.data}}
    asked = request(user("see", PNG), said(calls("c"), calls("d")), results(result("c"), PNG, result("d")))
    sent = body_of(adapter(), asked)["contents"]
    assert sent[0]["parts"] == [image, {"text": "see"}]
    assert [next(iter(part)) for part in sent[2]["parts"]] == ["functionResponse", "functionResponse", "inlineData"]
    assert body_of(adapter(), request(user("", PNG)))["contents"][0]["parts"] == [image]
    with pytest.raises(NousError, match="images"):
        adapter().build(request(user("", ImageBlock("image/svg+xml", "x"))))


@pytest.mark.parametrize(
    ("model", "level", "config"),
    [
        (MODEL, None, None),
        (MODEL, "low", {"includeThoughts": True, "thinkingLevel": "low"}),
        (MODEL, "max", {"includeThoughts": True, "thinkingLevel": "high"}),
        (MODEL, "off", {"includeThoughts": False, "thinkingLevel": "low"}),
        ("gemini-3.5-flash", "off", {"includeThoughts": False, "thinkingLevel": "minimal"}),
        ("gemini-2.5-flash", "off", {"includeThoughts": False, "thinkingBudget": 0}),
        ("gemini-2.5-pro", "off", {"includeThoughts": False, "thinkingBudget": 128}),
        ("gemini-2.5-pro", "medium", {"includeThoughts": True, "thinkingBudget": 12_288}),
    ],
)
def test_how_much_it_thinks(model: str, level: str | None, config: object) -> None:
    body = body_of(adapter(model=model, thinking=level), request(user()))
    assert body.get("generationConfig") == (None if config is None else {"thinkingConfig": config})


@pytest.mark.parametrize("model", ["gemini-3.8-flash", "models/gemini-3.8-flash"])
def test_the_model_stands_in_the_address_and_the_key_does_not(model: str) -> None:
    built = adapter(model=model).build(request(user()))
    base = "https://generativelanguage.googleapis.com/v1beta"
    assert built.url == f"{base}/models/gemini-3.8-flash:streamGenerateContent?alt=sse"
    assert built.headers == {"content-type": "application/json", "x-goog-api-key": KEY}


def test_a_model_cannot_change_the_address() -> None:
    assert (
        adapter(model="../x?key=1#y")
        .build(request(user()))
        .url.endswith("/models/..%2Fx%3Fkey%3D1%23y:streamGenerateContent?alt=sse")
    )


@pytest.mark.parametrize(
    ("details", "wait_ms"),
    [
        ([{"retryDelay": "17s"}], 17_000),
        ([{"a": 1}, {"retryDelay": "0.5s"}], 500),
        ([{"retryDelay": "soon"}], None),
        ([{"retryDelay": 3}], None),
        ("no list", None),
        (None, None),
    ],
)
def test_how_long_to_wait(details: object, wait_ms: int | None) -> None:
    body = msgspec.json.encode({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}})
    asked = adapter()
    assert asked.fault(ErrorReply(429, "application/json", body)).retry_after_ms == wait_ms
    assert asked.fault(ErrorReply(429, "application/json", body, retry_after_ms=5)).retry_after_ms == 5


# -- the stream


def parse(*events: object) -> list[ModelItem]:
    return play_events(GeminiParser(), *events)


def part(*parts: object, finish: str | None = None, **more: object) -> dict[str, object]:
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": finish, "index": 0}], **more}


STOP = part(finish="STOP")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "refusal"),
        ("RECITATION", "refusal"),
        ("LANGUAGE", "refusal"),
        ("BLOCKLIST", "refusal"),
        ("PROHIBITED_CONTENT", "refusal"),
        ("SPII", "refusal"),
        ("IMAGE_SAFETY", "refusal"),
    ],
)
def test_finish_reasons(reason: str, finish: Any) -> None:
    assert parse(part(finish=reason)) == [Finish(finish)]
    called = part({"functionCall": {"name": "ls"}}, finish=reason)
    assert parse(called)[-1] == Finish("tool_use" if finish == "stop" else finish)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("MALFORMED_FUNCTION_CALL", "provider_unavailable"),
        ("UNEXPECTED_TOOL_CALL", "provider_unavailable"),
        ("MISSING_THOUGHT_SIGNATURE", "provider_error"),
        ("OTHER", "provider_error"),
    ],
)
def test_finish_reasons_that_are_failures(reason: str, code: str) -> None:
    with pytest.raises(NousError, match=reason) as caught:
        parse(part({"text": "a"}, finish=reason))
    assert caught.value.code == code


@pytest.mark.parametrize("args", [{}, {"args": None}, {"args": []}, {"args": {}}])
def test_calls_without_arguments(args: dict[str, object]) -> None:
    called = part({"functionCall": {"name": "ls"} | args})
    assert parse(called, STOP)[:2] == [ToolCallDelta(0, name="ls"), ToolCallDelta(0, arguments="{}")]


@pytest.mark.parametrize("call", [{}, {"name": "ls", "args": "x"}, {"name": "ls", "willContinue": True}])
def test_calls_that_cannot_be_read_fail_the_answer(call: object) -> None:
    with pytest.raises(NousError, match="malformed"):
        parse(part({"functionCall": call}), STOP)


def test_arguments_with_half_a_pair() -> None:
    event = '{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"a":"\\ud83d"}}}]}}]}'
    assert parse(event, STOP)[1] == ToolCallDelta(0, arguments='{"a":"\ufffd"}')


def test_half_pairs_are_joined_over_parts() -> None:
    halves = [part({"text": "\ud83d"}), part({"text": "t\ud83d", "thought": True}), part({"text": "\ude00"})]
    assert parse(*halves, STOP) == [
        ThinkingDelta("t"),
        TextDelta("\U0001f600"),
        ThinkingDelta("\ufffd"),
        Finish("stop"),
    ]


def test_the_last_counts_are_reported_also_if_they_come_behind_the_reason() -> None:
    counts = [{"usageMetadata": {"promptTokenCount": n, "toolUsePromptTokenCount": 1}} for n in range(3)]
    assert parse(counts[0], part({"text": "a"}), STOP | counts[1], counts[2]) == [
        TextDelta("a"),
        UsageReport(Usage(input_tokens=3)),
        Finish("stop"),
    ]


def test_a_blocked_prompt_says_why() -> None:
    with pytest.raises(NousError, match="PROHIBITED_CONTENT") as caught:
        parse({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}})
    assert caught.value.code == "content_refused"


def test_ratings_of_a_prompt_that_was_not_blocked() -> None:
    assert parse(part({"text": "a"}, promptFeedback={"safetyRatings": []}), STOP) == [TextDelta("a"), Finish("stop")]
