"""Items from twisted chat completion streams; the recorded ones are in the contract."""

from __future__ import annotations

import pytest

from nous.errors import NousError
from nous.ports.model import Finish, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import Usage
from nous.providers.chat_stream import ChatParser, ThinkingDetails
from nous.providers.text import MAX_PIECE_CHARS
from tests.support.vendor_streams import play, play_events, stream_of


def parse(*events: object) -> list[ModelItem]:
    return play_events(ChatParser(), *events)


def choice(delta: object = None, finish: str | None = None, **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def text(content: object) -> dict[str, object]:
    return choice({"content": content})


def call(
    index: int | None = None, call_id: str | None = None, name: str | None = None, arguments: object = None
) -> dict[str, object]:
    fragment: dict[str, object] = {"function": {"name": name, "arguments": arguments}, "id": call_id}
    return choice({"tool_calls": [fragment if index is None else {**fragment, "index": index}]})


STOP = choice({}, "stop")
DONE = "[DONE]"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "refusal"),
        ("tool_calls", "stop"),
        ("function_call", "stop"),
        ("eos", "stop"),
    ],
)
def test_finish_reasons_without_tool_calls(reason: str, finish: str) -> None:
    assert parse(choice({"content": "a"}, reason), DONE)[-1] == Finish(finish)  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
def test_an_answer_may_be_empty(reason: str) -> None:
    assert len(parse(choice({}, reason), DONE)) == 1


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop", "tool_use"),
        ("tool_calls", "tool_use"),
        ("function_call", "tool_use"),
        ("eos", "tool_use"),
        ("length", "length"),
    ],
)
def test_finish_reasons_with_tool_calls(reason: str, finish: str) -> None:
    assert parse(call(0, "c", "read", "{}"), choice({}, reason), DONE)[-1] == Finish(finish)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reason", "code"), [("error", "provider_error"), ("insufficient_system_resource", "provider_unavailable")]
)
def test_finish_reasons_that_are_failures(reason: str, code: str) -> None:
    with pytest.raises(NousError) as caught:
        parse(text("a"), choice({}, reason))
    assert caught.value.code == code


def joined(items: list[ModelItem]) -> list[tuple[int, list[str], list[str], str]]:
    """Return (index, ids, names, arguments) of each call, in order of appearance."""
    calls: dict[int, list[ToolCallDelta]] = {}
    for item in items:
        if isinstance(item, ToolCallDelta):
            calls.setdefault(item.index, []).append(item)
    return [
        (i, [d.id for d in ds if d.id], [d.name for d in ds if d.name], "".join(d.arguments for d in ds))
        for i, ds in calls.items()
    ]


@pytest.mark.parametrize(
    ("fragments", "calls"),
    [
        # as published
        (
            [call(0, "a", "f", ""), call(0, None, None, '{"x'), call(0, None, None, '":1}')],
            [(0, ["a"], ["f"], '{"x":1}')],
        ),
        # id and name repeated, or empty, in every fragment
        ([call(0, "a", "f", "{"), call(0, "a", "f", "}")], [(0, ["a"], ["f"], "{}")]),
        ([call(0, "a", "f", "{"), call(0, "", "", "}")], [(0, ["a"], ["f"], "{}")]),
        # a new random id in every fragment
        ([call(0, "a", "f", "{"), call(0, "b", None, "}")], [(0, ["a"], ["f"], "{}")]),
        # no index
        ([call(None, "a", "f", "{"), call(None, None, None, "}")], [(0, ["a"], ["f"], "{}")]),
        ([call(None, "a", "f", "{}"), call(None, "b", "g", "{}")], [(0, ["a"], ["f"], "{}"), (1, ["b"], ["g"], "{}")]),
        ([call(None, None, "f", "{}"), call(None, None, "g", "{}")], [(0, [], ["f"], "{}"), (1, [], ["g"], "{}")]),
        (
            [
                call(None, "a", "f", "{"),
                call(None, "b", "g", "["),
                call(None, "a", None, "}"),
                call(None, None, None, "]"),
            ],
            [(0, ["a"], ["f"], "{}"), (1, ["b"], ["g"], "[]")],
        ),
        # the same index for every call
        (
            [call(0, "a", "f", "{}"), call(0, "b", "g", "["), call(0, None, None, "]")],
            [(0, ["a"], ["f"], "{}"), (1, ["b"], ["g"], "[]")],
        ),
        # indexes that do not begin at 0
        ([call(1, "a", "f", "{}"), call(3, "b", "g", "[]")], [(0, ["a"], ["f"], "{}"), (1, ["b"], ["g"], "[]")]),
        # no id at all; a name that comes late
        ([call(0, None, None, ""), call(0, None, "f", "{}")], [(0, [], ["f"], "{}")]),
        # arguments as an object, null, or not at all
        ([call(0, "a", "f", {"x": [1]})], [(0, ["a"], ["f"], '{"x":[1]}')]),
        ([call(0, "a", "f", None)], [(0, ["a"], ["f"], "")]),
        ([choice({"tool_calls": [{"index": 0, "id": "a"}]}), call(0, None, "f", "{}")], [(0, ["a"], ["f"], "{}")]),
        # the older form
        (
            [choice({"function_call": {"name": "f", "arguments": "{"}}), choice({"function_call": {"arguments": "}"}})],
            [(0, [], ["f"], "{}")],
        ),
    ],
)
def test_tool_calls_are_told_apart(fragments: list[object], calls: list[tuple[int, list[str], list[str], str]]) -> None:
    assert joined(parse(*fragments, STOP, DONE)) == calls


def test_half_pairs_in_arguments_are_joined_per_call() -> None:
    halves = [
        call(0, "a", "f", "\ud83d"),
        call(1, "b", "g", "\ud83d"),
        call(0, arguments="\ude00"),
        call(1, arguments="x"),
    ]
    assert [c[3] for c in joined(parse(*halves, STOP, DONE))] == ["\U0001f600", "\ufffdx"]


def test_half_pairs_at_the_end_are_given_before_the_finish() -> None:
    halves = [choice({"reasoning": "t\ud83d"}), text("a\ud83d"), call(0, "c", "f", "{\ud83d")]
    assert parse(*halves, STOP, DONE) == [
        ThinkingDelta("t"),
        TextDelta("a"),
        ToolCallDelta(0, "c", "f"),
        ToolCallDelta(0, arguments="{"),
        ThinkingDelta("\ufffd"),
        TextDelta("\ufffd"),
        ToolCallDelta(0, arguments="\ufffd"),
        Finish("tool_use"),
    ]


def test_bytes_that_are_not_utf_8_become_replacement_characters() -> None:
    body = b'data: {"choices":[{"delta":{"content":"a\xf0\x9f"}}]}\n\n' + stream_of(STOP, DONE)
    assert play(ChatParser(), [body]) == ([TextDelta("a\ufffd"), Finish("stop")], None)


def test_one_delta_with_everything_in_it() -> None:
    begun = {"index": 0, "id": "c", "function": {"name": "ls"}}
    delta = {"content": "a", "reasoning_content": "t", "reasoning": "t", "tool_calls": [begun]}
    assert parse(choice(delta, "tool_calls"), DONE) == [
        ThinkingDelta("t"),
        TextDelta("a"),
        ToolCallDelta(0, "c", "ls"),
        Finish("tool_use"),
    ]


def test_content_in_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image", "text": "no"}, "no", {"type": "text", "text": 1}]
    assert parse(text(parts), STOP, DONE) == [TextDelta("a"), Finish("stop")]


def test_thinking_that_is_no_text_is_ignored() -> None:
    assert parse(choice({"reasoning": {"effort": "low"}}), STOP, DONE) == [Finish("stop")]


def test_a_very_long_delta_is_split() -> None:
    items = parse(text("x" * (MAX_PIECE_CHARS + 1)), STOP, DONE)
    assert items == [TextDelta("x" * MAX_PIECE_CHARS), TextDelta("x"), Finish("stop")]


def test_what_comes_behind_a_finish_reason_counts() -> None:
    late = [text("late"), call(0, "c", "f", "{}"), choice({}, "length"), {"usage": {"prompt_tokens": 1}}]
    assert parse(STOP, *late, DONE) == [
        TextDelta("late"),
        ToolCallDelta(0, "c", "f"),
        ToolCallDelta(0, arguments="{}"),
        UsageReport(Usage(input_tokens=1)),
        Finish("length"),
    ]


def test_usage_in_every_event_is_reported_once() -> None:
    counts = [{"completion_tokens": n} for n in range(4)]
    events = [{**text("a"), "usage": counts[0]}, {**text("b"), "usage": counts[1]}, {**STOP, "usage": counts[2]}]
    assert parse(*events, {"choices": [], "usage": counts[3]}, DONE) == [
        TextDelta("a"),
        TextDelta("b"),
        UsageReport(Usage(output_tokens=3)),
        Finish("stop"),
    ]


@pytest.mark.parametrize("details", [None, {}, {"cached_tokens": None, "reasoning_tokens": None}])
def test_usage_with_holes(details: object) -> None:
    usage = {"prompt_tokens": None, "prompt_tokens_details": details, "completion_tokens_details": details}
    assert parse(STOP, {"usage": usage}, DONE)[0] == UsageReport(Usage())


def test_other_choices_are_ignored() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "stop"}]}
    assert parse(other, text("a"), STOP, DONE) == [TextDelta("a"), Finish("stop")]


@pytest.mark.parametrize(
    "event", [{}, {"choices": []}, {"choices": [{}]}, {"choices": None}, {"x": 1}, {"error": None}]
)
def test_events_that_say_nothing(event: object) -> None:
    assert parse(event, STOP, DONE) == [Finish("stop")]


def test_nothing_is_read_behind_done() -> None:
    assert parse(STOP, "[DONE] ", "garbage") == [Finish("stop")]


def test_done_without_a_finish_is_a_cut() -> None:
    with pytest.raises(NousError) as caught:
        parse(text("a"), DONE)
    assert caught.value.code == "provider_unavailable"


@pytest.mark.parametrize(
    "event",
    [
        "garbage secret",
        "{",
        '{"choices":[{"delta":{"content":"secret"}}]',
        "null",
        "[]",
        '"secret"',
        '{"choices":"secret"}',
        '{"choices":[{"delta":{"content":7}}]}',
        '{"choices":[{"delta":{"tool_calls":[{"index":"secret"}]}}]}',
        '{"choices":[{"finish_reason":1}]}',
        r'{"choices":"\ud83d"}',
        "[" * 100_000,
        '{"usage":{"prompt_tokens":' + "9" * 5000 + "}}",
    ],
)
def test_garbage_is_malformed_and_not_repeated(event: str) -> None:
    with pytest.raises(NousError) as caught:
        parse(text("a"), event, STOP, DONE)
    assert caught.value.code == "provider_error"
    assert (caught.value.cause or "").startswith("malformed")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"error": {"message": "its own words", "type": "server_error", "code": None}}, "provider_unavailable"),
        (
            {"error": {"message": "its own words", "code": 429}, "choices": [{"finish_reason": "error"}]},
            "provider_unavailable",
        ),
        ({"error": {"code": "context_length_exceeded"}}, "context_overflow"),
        ({"error": {"code": "content_filter"}}, "content_refused"),
        ({"error": "its own words"}, "provider_error"),
        ({"object": "error", "message": "its own words", "type": "BadRequestError", "code": 400}, "provider_error"),
        ({"type": "error", "code": 503, "message": "its own words"}, "provider_unavailable"),
    ],
)
def test_error_objects_in_the_stream(event: object, code: str) -> None:
    with pytest.raises(NousError) as caught:
        parse(text("a"), event)
    assert caught.value.code == code
    assert ("its own words" in (caught.value.cause or "")) == ("its own words" in str(event))


def test_usage_within_a_choice_and_cached_tokens_where_servers_say_them() -> None:
    inside = {"choices": [{"delta": {}, "finish_reason": "stop", "usage": {"prompt_tokens": 9, "cached_tokens": 4}}]}
    assert parse(inside, DONE) == [UsageReport(Usage(input_tokens=9, cached_tokens=4)), Finish("stop")]
    hit = {"usage": {"prompt_tokens": 9, "prompt_cache_hit_tokens": 5}}
    assert parse(STOP, hit, DONE)[0] == UsageReport(Usage(input_tokens=9, cached_tokens=5))


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        ([], None),
        ([None, "x", 7, {}], None),
        ([["no object"]], None),
        (
            [
                [{"type": "reasoning.text", "text": "a", "index": 0}],
                [{"type": "reasoning.text", "text": "b", "index": 0}],
            ],
            '[{"type":"reasoning.text","text":"ab","index":0}]',
        ),
        (
            [[{"type": "reasoning.summary", "summary": "a"}], [{"type": "reasoning.summary", "summary": "b"}]],
            '[{"type":"reasoning.summary","summary":"ab"}]',
        ),
        (
            [
                [
                    {"type": "reasoning.text", "text": "a", "index": 0},
                    {"type": "reasoning.text", "text": "b", "index": 1},
                ]
            ],
            '[{"type":"reasoning.text","text":"a","index":0},{"type":"reasoning.text","text":"b","index":1}]',
        ),
        (
            [[{"type": "reasoning.encrypted", "data": "x", "index": 0}]] * 2,
            '[{"type":"reasoning.encrypted","data":"x","index":0},{"type":"reasoning.encrypted","data":"x","index":0}]',
        ),
        (
            [
                [{"type": "t", "text": None}],
                [{"type": "t", "text": "a", "signature": "s"}],
                [{"type": "t", "text": None}],
            ],
            '[{"type":"t","text":"a","signature":"s"}]',
        ),
        ([[{"type": "t", "text": "\ud83d"}]], '[{"type":"t","text":"\ufffd"}]'),
    ],
)
def test_details_of_thinking_are_put_together_again(pieces: list[object], whole: str | None) -> None:
    details = ThinkingDetails()
    for piece in pieces:
        details.feed(piece)
    assert details.take() == whole


def test_details_are_kept_only_where_they_go_back() -> None:
    event = choice({"reasoning": "a", "reasoning_details": [{"type": "reasoning.text", "text": "a"}]})
    assert parse(event, STOP, DONE) == [ThinkingDelta("a"), Finish("stop")]
    kept = play_events(ChatParser(keeps_details=True), event, STOP, DONE)
    assert kept == [ThinkingDelta("a"), ThinkingDelta("", '[{"type":"reasoning.text","text":"a"}]'), Finish("stop")]
