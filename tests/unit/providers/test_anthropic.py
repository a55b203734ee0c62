"""Requests in Anthropic's dialect, and what is particular about its stream."""

from __future__ import annotations

from typing import Any

import pytest

from nous.errors import NousError
from nous.ports.model import Finish, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import ImageBlock, TextBlock, ThinkingBlock, Usage
from nous.providers.adapter import Adapter
from nous.providers.anthropic import DEFAULT_MAX_TOKENS
from nous.providers.anthropic_stream import AnthropicParser
from nous.providers.text import MAX_PIECE_CHARS
from tests.support.vendor_requests import LS, PNG, READ, body_of, calls, request, result, results, said, user
from tests.support.vendor_streams import KEY, adapter_of, play_events

MODEL = "claude-opus-5-5"
OWN = ("anthropic", MODEL)
CACHED = {"type": "ephemeral"}
ADAPTIVE = {"type": "adaptive", "display": "summarized"}


def adapter(**settings: object) -> Adapter:
    return adapter_of("anthropic", **{"model": MODEL, **settings})


def text(content: str, *, cached: bool = False) -> dict[str, Any]:
    return {"type": "text", "text": content} | ({"cache_control": CACHED} if cached else {})


def test_a_whole_conversation() -> None:
    thinking = ThinkingBlock("Two files.", "c2ln")
    asked = request(
        user('say "hi" \u2028 \U0001f600'),
        said(thinking, TextBlock("Reading."), calls("toolu_1"), calls("toolu_2", "ls", ""), by=OWN),
        results(result("toolu_1", "A")),
        results(result("toolu_2", "", name="ls", is_error=True)),
        said(TextBlock("Done."), by=OWN),
        user("more"),
        system="You are nous.",
        tools=(READ, LS),
    )
    assert body_of(adapter(), asked) == {
        "model": MODEL,
        "max_tokens": 128_000,
        "stream": True,
        "tools": [
            {"name": "read", "description": "Read a file.", "input_schema": READ.schema},
            {"name": "ls", "description": "List a directory.", "input_schema": LS.schema},
        ],
        "system": [text("You are nous.", cached=True)],
        "messages": [
            {"role": "user", "content": [text('say "hi" \u2028 \U0001f600')]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Two files.", "signature": "c2ln"},
                    text("Reading."),
                    {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "a"}},
                    {"type": "tool_use", "id": "toolu_2", "name": "ls", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("A")]},
                    {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": True, "cache_control": CACHED},
                ],
            },
            {"role": "assistant", "content": [text("Done.")]},
            {"role": "user", "content": [text("more", cached=True)]},
        ],
    }


def test_without_system_the_tools_end_what_is_cached() -> None:
    body = body_of(adapter(), request(user(), tools=(READ, LS)))
    assert "system" not in body
    assert ["cache_control" in tool for tool in body["tools"]] == [False, True]


def test_what_was_sent_before_is_marked_where_it_ended() -> None:
    """Each request marks its own end and the end of the one before: there the server finds what it has kept."""
    messages = [user("1"), said(calls("c1")), results(result("c1")), said(calls("c2")), results(result("c2"))]
    asked = adapter()
    marks = []
    for count in (1, 3, 5):
        sent = body_of(asked, request(*messages[:count], system="s"))["messages"]
        marks.append([n for n, message in enumerate(sent) if "cache_control" in message["content"][-1]])
    assert marks == [[0], [0, 2], [2, 4]]


def test_no_more_than_four_marks() -> None:
    messages = [message for n in range(9) for message in (user(str(n)), said(TextBlock("ok")))]
    body = adapter().build(request(*messages, user("end"), system="s", tools=(READ,))).body
    assert body.count(b"cache_control") == 3


def test_a_prefix_stays_the_same() -> None:
    asked = adapter()
    messages = [user("1"), said(TextBlock("one"), by=OWN), user("2"), said(TextBlock("two"), by=OWN), user("3")]
    short, long = (asked.build(request(*messages[:n], system="s", tools=(READ,))).body for n in (3, 5))
    short, long = (body.replace(b',"cache_control":{"type":"ephemeral"}', b"") for body in (short, long))
    assert long.startswith(short.removesuffix(b"]}"))


@pytest.mark.parametrize(
    ("block", "by", "sent"),
    [
        (ThinkingBlock("t", "s"), OWN, [{"type": "thinking", "thinking": "t", "signature": "s"}]),
        (ThinkingBlock("", "s"), OWN, [{"type": "thinking", "thinking": "", "signature": "s"}]),
        (ThinkingBlock("", "redacted:d"), OWN, [{"type": "redacted_thinking", "data": "d"}]),
        (ThinkingBlock("t"), OWN, []),
        (ThinkingBlock("t", "s"), ("anthropic", "claude-opus-5"), []),
        (ThinkingBlock("t", "s"), ("gemini", MODEL), []),
        (ThinkingBlock("t", "s"), ("", ""), []),
    ],
    ids=["signed", "without-text", "redacted", "unsigned", "of-another-model", "of-another-vendor", "of-nobody"],
)
def test_thinking_goes_back_only_where_it_came_from(
    block: ThinkingBlock, by: tuple[str, str], sent: list[object]
) -> None:
    body = body_of(adapter(), request(user(), said(block, TextBlock("x"), by=by), user()))
    assert body["messages"][1]["content"] == [*sent, text("x")]


def test_blocks_keep_their_order() -> None:
    blocks = (ThinkingBlock("1", "a"), TextBlock("x"), ThinkingBlock("2", "b"), TextBlock("y"))
    content = body_of(adapter(), request(user(), said(*blocks, by=OWN), user()))["messages"][1]["content"]
    assert [part.get("thinking", part.get("text")) for part in content] == ["1", "x", "2", "y"]


def test_texts_without_a_visible_character() -> None:
    """The vendor refuses a whole request for one."""
    asked = request(user(" \n"), said(TextBlock(" "), by=OWN), user(""))
    contents = [message["content"] for message in body_of(adapter(), asked)["messages"]]
    assert [[part["text"] for part in content] for content in contents] == [["(no text)"]] * 3


def test_consecutive_messages_of_a_person_are_one_turn() -> None:
    sent = body_of(adapter(), request(user("a"), user("b")))["messages"]
    assert [part["text"] for part in sent[0]["content"]] == ["a", "b"]
    assert len(sent) == 1


@pytest.mark.parametrize("call_id", ["functions.read:0", "x" * 65, "", "\xfc", "a b"])
def test_call_ids_are_fitted_on_both_sides_alike(call_id: str) -> None:
    sent = body_of(adapter(), request(user(), said(calls(call_id)), results(result(call_id))))["messages"]
    used = sent[1]["content"][0]["id"]
    assert used == sent[2]["content"][0]["tool_use_id"]
    assert len(used) <= 64
    assert used.replace("_", "").replace("-", "").isalnum()


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [("", {}), ('{"a":[1]}', {"a": [1]}), ("{", {"not_an_object": "{"}), ("[1]", {"not_an_object": "[1]"})],
)
def test_arguments_are_always_an_object(arguments: str, sent: object) -> None:
    body = body_of(adapter(), request(user(), said(calls("c", arguments=arguments)), results(result("c"))))
    assert body["messages"][1]["content"][0]["input"] == sent


def test_images_of_people_and_of_results() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG.data}}
    asked = request(
        user("see", PNG),
        said(calls("c")),
        results(result("c", "shown"), PNG),
        said(calls("d")),
        results(result("d", ""), PNG),
    )
    sent = body_of(adapter(), asked)["messages"]
    assert sent[0]["content"] == [image, text("see")]
    assert sent[2]["content"][0]["content"] == [text("shown"), image]
    assert sent[4]["content"][0]["content"] == [image]
    assert body_of(adapter(), request(user("", PNG)))["messages"][0]["content"] == [image | {"cache_control": CACHED}]


def test_an_image_of_a_kind_the_vendor_does_not_take() -> None:
    with pytest.raises(NousError, match="image/png") as caught:
        adapter().build(request(user("see", ImageBlock("image/tiff", "AAAA"))))
    assert caught.value.code == "capability_unavailable"


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({}, 128_000),
        ({"model": "claude-haiku-4-5-20251001"}, 64_000),
        ({"model": "claude-next"}, DEFAULT_MAX_TOKENS),
        ({"max_output_tokens": 7}, 7),
    ],
)
def test_the_longest_answer(settings: dict[str, object], limit: int) -> None:
    assert body_of(adapter(**settings), request(user()))["max_tokens"] == limit


@pytest.mark.parametrize(
    ("model", "level", "fields"),
    [
        (MODEL, None, {}),
        (MODEL, "medium", {"thinking": ADAPTIVE, "output_config": "medium"}),
        (MODEL, "off", {"thinking": ADAPTIVE, "output_config": "low"}),
        ("claude-opus-4-8", "off", {"thinking": {"type": "disabled"}}),
        (
            "claude-sonnet-4-6",
            "max",
            {"thinking": ADAPTIVE, "output_config": "high"},
        ),
        ("claude-next", "max", {"thinking": ADAPTIVE, "output_config": "high"}),
        ("claude-haiku-4-5", "high", {"thinking": {"type": "enabled", "budget_tokens": 24_576}}),
        ("claude-haiku-4-5", "off", {"thinking": {"type": "disabled"}}),
    ],
)
def test_how_much_it_thinks(model: str, level: str | None, fields: dict[str, Any]) -> None:
    body = body_of(adapter(model=model, thinking=level), request(user()))
    found = {name: body[name] for name in ("thinking", "output_config") if name in body}
    if "output_config" in found:
        found["output_config"] = found["output_config"]["effort"]
    assert found == fields


def test_a_budget_leaves_room_for_the_answer() -> None:
    body = body_of(adapter(model="claude-haiku-4-5", thinking="max", max_output_tokens=6000), request(user()))
    assert body["thinking"]["budget_tokens"] == 3000


def test_headers() -> None:
    built = adapter(headers={"anthropic-beta": "x"}).build(request(user()))
    assert built.url == "https://api.anthropic.com/v1/messages"
    assert built.headers == {
        "content-type": "application/json",
        "anthropic-version": "2023-06-01",
        "x-api-key": KEY,
        "anthropic-beta": "x",
    }
    assert KEY not in repr(built)


# -- the stream


def parse(*events: object) -> list[ModelItem]:
    return play_events(AnthropicParser(), *events)


def start(index: int, **block: object) -> dict[str, object]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **fields: object) -> dict[str, object]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def end(reason: str, **usage: int) -> list[object]:
    return [{"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}, {"type": "message_stop"}]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "refusal"),
    ],
)
def test_stop_reasons(reason: str, finish: Any) -> None:
    said = start(0, type="text", text="a")
    assert parse(said, *end(reason))[-1] == Finish(finish)


def test_calls_decide_that_tools_are_to_be_used() -> None:
    opened = start(0, type="tool_use", id="t", name="ls", input={})
    assert parse(opened, *end("end_turn"))[-1] == Finish("tool_use")
    assert parse(opened, *end("max_tokens"))[-1] == Finish("length")


def test_a_whole_input_at_the_start_of_a_call() -> None:
    opened = start(0, type="tool_use", id="t", name="ls", input={"path": "a"})
    assert parse(opened, *end("tool_use"))[:2] == [
        ToolCallDelta(0, "t", "ls"),
        ToolCallDelta(0, arguments='{"path":"a"}'),
    ]


def test_text_at_the_start_of_a_block() -> None:
    opened = [start(0, type="text", text="a"), start(1, type="thinking", thinking="b", signature="s")]
    assert parse(*opened, *end("end_turn"))[:3] == [TextDelta("a"), ThinkingDelta("b"), ThinkingDelta("", "s")]


def test_half_pairs_are_joined_within_a_block_only() -> None:
    events = [
        start(0, type="text", text=""),
        delta(0, type="text_delta", text="\ud83d"),
        delta(0, type="text_delta", text="\ude00\ud83d"),
        {"type": "content_block_stop", "index": 0},
        start(1, type="text", text="\ude00"),
    ]
    assert parse(*events, *end("end_turn"))[:3] == [TextDelta("\U0001f600"), TextDelta("\ufffd"), TextDelta("\ufffd")]


def test_a_signature_in_pieces() -> None:
    events = [start(0, type="thinking"), delta(0, signature="ab"), delta(0, signature="cd")]
    assert parse(*events, *end("end_turn"))[0] == ThinkingDelta("", "abcd")


def test_a_long_delta_is_split() -> None:
    events = [start(0, type="text"), delta(0, text="x" * (MAX_PIECE_CHARS + 1))]
    assert parse(*events, *end("end_turn"))[:2] == [TextDelta("x" * MAX_PIECE_CHARS), TextDelta("x")]


def test_a_delta_without_its_block_is_malformed() -> None:
    with pytest.raises(NousError, match="malformed"):
        parse(delta(0, text="x"))


def test_counts_that_are_left_out_have_not_changed() -> None:
    begun = {"type": "message_start", "message": {"usage": {"input_tokens": 5, "cache_read_input_tokens": 2}}}
    late = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 1}}
    assert parse(begun, late, *end("end_turn", output_tokens=9))[0] == UsageReport(
        Usage(input_tokens=7, output_tokens=9, cached_tokens=2)
    )


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "its own words"}}, "provider_unavailable"),
        ({"type": "error", "error": {"type": "api_error"}}, "provider_unavailable"),
        ({"type": "error", "error": {"type": "timeout_error"}}, "provider_unavailable"),
        ({"type": "error", "error": {"type": "rate_limit_error"}}, "provider_unavailable"),
        ({"type": "error", "error": {"type": "authentication_error"}}, "provider_auth"),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "its own words"}}, "provider_error"),
        ({"type": "error"}, "provider_error"),
        ({"error": {"type": "overloaded_error"}}, "provider_unavailable"),
    ],
)
def test_errors_in_the_stream(event: object, code: str) -> None:
    with pytest.raises(NousError) as caught:
        parse(event)
    assert caught.value.code == code
    assert ("its own words" in (caught.value.cause or "")) == ("its own words" in str(event))
