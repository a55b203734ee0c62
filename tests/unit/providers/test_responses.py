"""Requests in the dialect of OpenAI's responses, and what is particular about its stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nous.errors import NousError
from nous.ports.model import Finish, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import ImageBlock, TextBlock, ThinkingBlock, Usage
from nous.providers.adapter import Adapter
from nous.providers.responses_stream import ResponsesParser
from tests.support.vendor_requests import LS, PNG, READ, body_of, calls, request, result, results, said, user
from tests.support.vendor_streams import KEY, adapter_of, play_events

MODEL = "gpt-5.6"
OWN = ("openai-responses", MODEL)
SEALED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}


def adapter(**settings: object) -> Adapter:
    return adapter_of("openai-responses", **{"model": MODEL, **settings})


def test_a_whole_conversation() -> None:
    asked = request(
        user("hi"),
        said(ThinkingBlock("t", json.dumps(SEALED)), TextBlock("Reading."), calls("call_1"), by=OWN),
        results(result("call_1", "A")),
        said(TextBlock("Done."), by=OWN),
        user("more"),
        system="You are nous.",
        tools=(READ, LS),
    )
    assert body_of(adapter(), asked) == {
        "model": MODEL,
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "s",
        "tools": [
            {"type": "function", "strict": False}
            | {"name": t.name, "description": t.description, "parameters": t.schema}
            for t in (READ, LS)
        ],
        "instructions": "You are nous.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            SEALED,
            {"role": "assistant", "content": "Reading."},
            {"type": "function_call", "call_id": "call_1", "name": "read", "arguments": '{"path":"a"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "A"},
            {"role": "assistant", "content": "Done."},
            {"role": "user", "content": [{"type": "input_text", "text": "more"}]},
        ],
    }


def test_what_is_particular_to_the_vendor_goes_to_nobody_else() -> None:
    body = body_of(adapter(api_base="https://example.com/v1"), request(user()))
    assert "prompt_cache_key" not in body


@pytest.mark.parametrize("by", [("openai", MODEL), ("openai-responses", "gpt-5.5"), ("anthropic", MODEL), ("", "")])
def test_thinking_of_others_is_not_sent(by: tuple[str, str]) -> None:
    asked = request(user(), said(ThinkingBlock("t", json.dumps(SEALED)), TextBlock("x"), by=by), user())
    assert body_of(adapter(), asked)["input"][1] == {"role": "assistant", "content": "x"}


def test_thinking_without_its_seal_is_not_sent() -> None:
    asked = request(user(), said(ThinkingBlock("t"), TextBlock("x"), by=OWN), user())
    assert body_of(adapter(), asked)["input"][1] == {"role": "assistant", "content": "x"}


def test_images_of_people_and_of_results() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    sent = body_of(adapter(), request(user("see", PNG), said(calls("c")), results(result("c", "A"), PNG)))["input"]
    assert sent[0]["content"] == [image, {"type": "input_text", "text": "see"}]
    assert sent[2]["output"] == [{"type": "input_text", "text": "A"}, image]
    with pytest.raises(NousError, match="images"):
        adapter().build(request(user("", ImageBlock("image/bmp", "x"))))


@pytest.mark.parametrize(
    ("model", "settings", "fields"),
    [
        (MODEL, {}, {"include": ["reasoning.encrypted_content"]}),
        (MODEL, {"thinking": "max"}, {"reasoning": {"effort": "max", "summary": "auto"}}),
        (MODEL, {"thinking": "off"}, {"reasoning": {"effort": "none", "summary": "auto"}}),
        ("gpt-5-mini", {"thinking": "off"}, {"reasoning": {"effort": "minimal", "summary": "auto"}}),
        ("o3", {"thinking": "max", "max_output_tokens": 9}, {"max_output_tokens": 9}),
    ],
)
def test_how_much_it_thinks(model: str, settings: dict[str, object], fields: dict[str, Any]) -> None:
    body = body_of(adapter(model=model, **settings), request(user()))
    assert fields.items() <= body.items()


def test_a_model_that_does_not_think() -> None:
    body = body_of(adapter(model="gpt-4.1", thinking="off"), request(user()))
    assert not {"include", "reasoning"} & body.keys()
    with pytest.raises(NousError, match="thinking") as caught:
        adapter(model="gpt-4.1", thinking="low")
    assert caught.value.code == "capability_unavailable"


def test_a_prefix_stays_the_same() -> None:
    asked = adapter()
    messages = [user("1"), said(TextBlock("one"), by=OWN), user("2")]
    short, long = (asked.build(request(*messages[:n], system="s", tools=(READ,))).body for n in (1, 3))
    assert long.startswith(short.removesuffix(b"]}"))


def test_headers() -> None:
    built = adapter().build(request(user()))
    assert built.url == "https://api.openai.com/v1/responses"
    assert built.headers == {"content-type": "application/json", "authorization": f"Bearer {KEY}"}


# -- the stream


def parse(*events: object) -> list[ModelItem]:
    return play_events(ResponsesParser(), *events)


def event(kind: str, **fields: object) -> dict[str, object]:
    return {"type": f"response.{kind}", **fields}


def opened(output_index: int, call_id: str | None = "c", **more: object) -> dict[str, object]:
    item = {"type": "function_call", "id": "fc", "call_id": call_id, "name": "ls", **more}
    return event("output_item.added", output_index=output_index, item=item)


SAID = event("output_text.delta", delta="Yes.")
DONE = event("completed", response={"status": "completed"})


def test_a_call_that_comes_as_a_whole() -> None:
    item = {"type": "function_call", "id": "fc", "call_id": "c", "name": "ls", "arguments": "{}"}
    whole = [ToolCallDelta(0, "c", "ls"), ToolCallDelta(0, arguments="{}"), Finish("tool_use")]
    assert parse(event("output_item.done", output_index=4, item=item), DONE) == whole
    ended = event("function_call_arguments.done", output_index=4, arguments="{}")
    assert parse(opened(4), ended, event("output_item.done", output_index=4, item=item), DONE) == whole


def test_a_call_without_its_id_has_that_of_its_item() -> None:
    assert parse(opened(0, None), DONE)[0] == ToolCallDelta(0, "fc", "ls")


def test_arguments_without_their_call_are_malformed() -> None:
    with pytest.raises(NousError, match="malformed"):
        parse(event("function_call_arguments.delta", output_index=3, delta="{}"))


@pytest.mark.parametrize("kind", ["output_text.delta", "reasoning_summary_text.delta"])
def test_a_delta_that_is_no_text_is_malformed(kind: str) -> None:
    with pytest.raises(NousError, match="malformed"):
        parse(event(kind, delta={"secret": 1}))


def test_other_items_are_passed_over() -> None:
    search = {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"query": "x"}}
    events = [event(f"output_item.{end}", output_index=0, item=search) for end in ("added", "done")]
    searching = event("web_search_call.searching", output_index=0)
    assert parse(*events, searching, SAID, DONE) == [TextDelta("Yes."), Finish("stop")]


def test_reasoning_in_the_open_and_without_a_seal() -> None:
    item = {"type": "reasoning", "id": "rs", "summary": []}
    events = [event("reasoning_text.delta", delta="hm"), event("output_item.done", output_index=0, item=item)]
    assert parse(*events, SAID, DONE) == [ThinkingDelta("hm"), TextDelta("Yes."), Finish("stop")]


def test_half_pairs_are_joined_per_channel() -> None:
    events = [
        event("reasoning_summary_text.delta", delta="\ud83d"),
        event("output_text.delta", delta="\ud83d"),
        event("reasoning_summary_text.delta", delta="\ude00"),
        event("output_text.delta", delta="x"),
        opened(1),
        event("function_call_arguments.delta", output_index=1, delta="\ud83d"),
        event("output_item.done", output_index=1, item={"type": "function_call"}),
    ]
    assert parse(*events, DONE) == [
        ThinkingDelta("\U0001f600"),
        TextDelta("\ufffdx"),
        ToolCallDelta(0, "c", "ls"),
        ToolCallDelta(0, arguments="\ufffd"),
        Finish("tool_use"),
    ]


@pytest.mark.parametrize(
    ("response", "finish"),
    [
        ({"incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"incomplete_details": {"reason": "content_filter"}}, "refusal"),
        ({"incomplete_details": None}, "length"),
        (None, "length"),
    ],
)
def test_answers_that_were_cut_short(response: object, finish: Any) -> None:
    assert parse(event("incomplete", response=response)) == [Finish(finish)]


def test_an_answer_that_ends_for_an_unknown_reason() -> None:
    cut = event("incomplete", response={"incomplete_details": {"reason": "moon"}})
    assert parse(SAID, cut)[-1] == Finish("other", "moon")
    ended = event("completed", response={"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}})
    assert parse(SAID, ended)[-1] == Finish("length")


def test_completed_with_the_status_of_a_failure_is_one() -> None:
    with pytest.raises(NousError) as caught:
        parse(SAID, event("completed", response={"status": "failed", "error": {"code": "server_error"}}))
    assert caught.value.code == "provider_unavailable"


def test_usage_with_holes() -> None:
    usage = {"input_tokens": 3, "output_tokens": None, "input_tokens_details": None}
    assert parse(SAID, event("completed", response={"usage": usage})) == [
        TextDelta("Yes."),
        UsageReport(Usage(input_tokens=3)),
        Finish("stop"),
    ]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (
            event("failed", response={"error": {"code": "server_error", "message": "its own words"}}),
            "provider_unavailable",
        ),
        (event("failed", response={"error": {"code": "rate_limit_exceeded"}}), "provider_unavailable"),
        (event("failed", response={"error": {"code": "context_length_exceeded"}}), "context_overflow"),
        (event("failed", response={"error": {"code": "invalid_prompt"}}), "content_refused"),
        (event("failed", response={"error": {"code": "invalid_image", "message": "its own words"}}), "provider_error"),
        (event("failed"), "provider_error"),
        ({"type": "error", "code": "server_error", "message": "its own words", "param": None}, "provider_unavailable"),
        ({"type": "error", "error": {"type": "server_error", "message": "its own words"}}, "provider_unavailable"),
        ({"error": {"type": "invalid_request_error", "code": "invalid_api_key"}}, "provider_auth"),
    ],
)
def test_failures_in_the_stream(failure: object, code: str) -> None:
    with pytest.raises(NousError) as caught:
        parse(failure)
    assert caught.value.code == code
    assert ("its own words" in (caught.value.cause or "")) == ("its own words" in str(failure))
