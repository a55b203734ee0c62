"""Items from recorded and twisted chat completion streams."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.errors import NousError
from nous.ports.model import Finish, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import Usage
from nous.providers.openai_stream import OpenAIParser
from nous.providers.sse import SseParser
from nous.providers.text import MAX_PIECE_CHARS

FIXTURES = Path(__file__).parents[3] / "fixtures" / "sse" / "openai"
USAGE = UsageReport(Usage(input_tokens=19, output_tokens=10, cached_tokens=8, reasoning_tokens=4))
GREETING: list[ModelItem] = [*map(TextDelta, ["Hello", ", ", "\xfcber", " \U0001f600", "!"]), Finish("stop"), USAGE]

EXPECTED: dict[str, list[ModelItem]] = {
    "text.sse": GREETING,
    "text-crlf.sse": GREETING,
    "text-cr.sse": GREETING,
    "tool-call.sse": [
        ToolCallDelta(0, "call_Ab12", "read"),
        ToolCallDelta(0, arguments='{"pa'),
        ToolCallDelta(0, arguments='th":"'),
        ToolCallDelta(0, arguments="a.txt"),
        ToolCallDelta(0, arguments='"}'),
        Finish("tool_use"),
        USAGE,
    ],
    "parallel-tools.sse": [
        TextDelta("Two at once."),
        ToolCallDelta(0, "call_A", "read"),
        ToolCallDelta(1, "call_B", "grep"),
        ToolCallDelta(0, arguments='{"path":'),
        ToolCallDelta(1, arguments='{"pattern":'),
        ToolCallDelta(1, arguments='"x"}'),
        ToolCallDelta(0, arguments='"b"}'),
        Finish("tool_use"),
        USAGE,
    ],
    "reasoning-content.sse": [
        ThinkingDelta("First "),
        ThinkingDelta("think."),
        TextDelta("Then "),
        TextDelta("speak."),
        USAGE,
        Finish("stop"),
    ],
    "openrouter.sse": [ThinkingDelta("Hm."), TextDelta("Yes."), Finish("stop"), USAGE],
    "refusal.sse": [TextDelta("I cannot "), TextDelta("do that."), Finish("refusal"), USAGE],
    "content-filter.sse": [TextDelta("So"), Finish("refusal")],
    "length.sse": [TextDelta("Half a"), Finish("length"), USAGE],
    "split-surrogates.sse": [
        TextDelta("a"),
        TextDelta("\U0001f600b"),
        TextDelta("\ufffdc\ufffd"),
        Finish("stop"),
    ],
    "no-done.sse": [TextDelta("Done"), Finish("stop")],
    "multi-line.sse": [TextDelta("lines"), Finish("stop")],
}

FAILING: dict[str, tuple[list[ModelItem], str]] = {
    "error-in-stream.sse": ([TextDelta("Part")], "provider_unavailable"),
}


def run(chunks: list[bytes]) -> tuple[list[ModelItem], NousError | None]:
    """Return the items of a stream, and the failure it ended with."""
    events, parser = SseParser(), OpenAIParser()
    items: list[ModelItem] = []
    try:
        for chunk in chunks:
            for data in events.feed(chunk):
                if not parser.done:
                    parser.feed(data, items)
        if not parser.done:
            parser.finish(items)
    except NousError as error:
        return items, error
    return items, None


def parse(*events: object) -> list[ModelItem]:
    """Return the items of events given as objects, or as text where JSON would not do."""
    items, failure = run([stream_of(*events)])
    if failure is not None:
        raise failure
    return items


def stream_of(*events: object) -> bytes:
    texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return "".join(f"data: {text}\n\n" for text in texts).encode()


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


def test_every_recording_is_tested() -> None:
    assert {path.name for path in FIXTURES.glob("*.sse")} == EXPECTED.keys() | FAILING.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_recordings_cut_at_every_byte(name: str) -> None:
    body = (FIXTURES / name).read_bytes()
    expected = (EXPECTED[name], None)
    assert run([body]) == expected
    assert run([bytes([byte]) for byte in body]) == expected
    for cut in range(1, len(body)):
        assert run([body[:cut], body[cut:]]) == expected


@pytest.mark.parametrize("name", FAILING)
def test_failing_recordings_cut_at_every_byte(name: str) -> None:
    body = (FIXTURES / name).read_bytes()
    for cut in range(1, len(body)):
        items, failure = run([body[:cut], body[cut:]])
        assert items == FAILING[name][0]
        assert failure is not None
        assert failure.code == FAILING[name][1]


@given(st.sampled_from(sorted(EXPECTED)), st.data())
def test_recordings_in_any_chunking(name: str, data: st.DataObject) -> None:
    body = (FIXTURES / name).read_bytes()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(body) - 1), max_size=20)))
    assert run([body[a:b] for a, b in pairwise([0, *cuts, len(body)])]) == (EXPECTED[name], None)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_recording_that_ends_early_is_cut_or_complete(name: str) -> None:
    body = (FIXTURES / name).read_bytes()
    for end in range(len(body)):
        items, failure = run([body[:end]])
        if any(isinstance(item, Finish) for item in items):
            assert failure is None
        else:
            assert failure is not None
            assert failure.code == "provider_unavailable"
            assert (failure.cause or "").startswith("cut")


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
    assert parse(choice({}, reason), DONE)[-1] == Finish(finish)  # type: ignore[arg-type]


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
    assert run([body]) == ([TextDelta("a\ufffd"), Finish("stop")], None)


def test_one_delta_with_everything_in_it() -> None:
    delta = {"content": "a", "reasoning_content": "t", "reasoning": "t", "tool_calls": [{"index": 0, "id": "c"}]}
    assert parse(choice(delta, "tool_calls"), DONE) == [
        ThinkingDelta("t"),
        TextDelta("a"),
        ToolCallDelta(0, "c"),
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


def test_nothing_but_usage_follows_the_finish() -> None:
    late = [text("late"), call(0, "c", "f", "{}"), choice({}, "length"), {"usage": {"prompt_tokens": 1}}]
    assert parse(STOP, *late, DONE) == [Finish("stop"), UsageReport(Usage(input_tokens=1))]


def test_usage_in_every_event_is_reported_once_before_and_once_after_the_finish() -> None:
    counts = [{"completion_tokens": n} for n in range(4)]
    events = [{**text("a"), "usage": counts[0]}, {**text("b"), "usage": counts[1]}, {**STOP, "usage": counts[2]}]
    assert parse(*events, {"choices": [], "usage": counts[3]}, DONE) == [
        TextDelta("a"),
        TextDelta("b"),
        UsageReport(Usage(output_tokens=2)),
        Finish("stop"),
        UsageReport(Usage(output_tokens=3)),
    ]


@pytest.mark.parametrize("details", [None, {}, {"cached_tokens": None, "reasoning_tokens": None}])
def test_usage_with_holes(details: object) -> None:
    usage = {"prompt_tokens": None, "prompt_tokens_details": details, "completion_tokens_details": details}
    assert parse(STOP, {"usage": usage}, DONE)[-1] == UsageReport(Usage())


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
        '{"usage":{"prompt_tokens":"secret"}}',
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
        ({"error": {"message": "secret", "type": "server_error", "code": None}}, "provider_unavailable"),
        (
            {"error": {"message": "secret", "code": 429}, "choices": [{"finish_reason": "error"}]},
            "provider_unavailable",
        ),
        ({"error": {"code": "context_length_exceeded"}}, "context_overflow"),
        ({"error": {"code": "content_filter"}}, "content_refused"),
        ({"error": "secret sentence"}, "provider_error"),
        ({"object": "error", "message": "secret", "type": "BadRequestError", "code": 400}, "provider_error"),
        ({"type": "error", "code": 503, "message": "secret"}, "provider_unavailable"),
    ],
)
def test_error_objects_in_the_stream(event: object, code: str) -> None:
    with pytest.raises(NousError) as caught:
        parse(text("a"), event)
    assert caught.value.code == code
    assert "secret" not in str(caught.value)


@given(st.binary(max_size=200))
def test_any_data_gives_items_or_a_named_error(data: bytes) -> None:
    _, failure = run([b"data: " + data + b"\n\n"])
    assert failure is not None
    assert failure.code in ("provider_error", "provider_unavailable")
