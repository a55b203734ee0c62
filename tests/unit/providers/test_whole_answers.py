"""An answer is whole or it fails, in every dialect: finish reasons, the stream's end, odd fields, nameless calls.

Each kind of fault is one table over all dialects, told in the small language of :class:`Dialect`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.errors import NousError
from nous.ports.model import Finish, ModelItem, TextDelta, ToolCallDelta, UsageReport
from nous.providers.adapter import ItemParser, is_whole
from nous.providers.anthropic_stream import AnthropicParser
from nous.providers.chat_stream import ChatParser
from nous.providers.gemini_stream import GeminiParser
from nous.providers.responses_stream import ResponsesParser
from tests.support.vendor_streams import ANSWERS, adapter_of, play, recording, stream_of

Event = dict[str, Any]


class Dialect(NamedTuple):
    """How one dialect says things.  ``reason`` is None where a terminal event is the only end."""

    parser: Callable[[], ItemParser]
    text: Callable[[str], list[Event]]
    call: Callable[[str | None, str], list[Event]]
    reason: Callable[[str], Event] | None
    end: list[Any]
    words: dict[str, str]


def _chat_choice(delta: object, reason: str | None = None) -> Event:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def _chat_call(name: str | None, arguments: str) -> list[Event]:
    function = {"name": name, "arguments": arguments}
    return [_chat_choice({"tool_calls": [{"index": 0, "id": "c", "function": function}]})]


def _block(**block: object) -> list[Event]:
    return [{"type": "content_block_start", "index": 0, "content_block": block}]


def _anthropic_text(text: str) -> list[Event]:
    delta = {"type": "text_delta", "text": text}
    return [
        *_block(type="text", text=""),
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
    ]


def _gemini(*parts: object, reason: str | None = None) -> Event:
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": reason, "index": 0}]}


def _response_call(name: str | None, arguments: str) -> list[Event]:
    item = {"type": "function_call", "call_id": "c", "name": name, "arguments": arguments}
    return [{"type": "response.output_item.done", "item": item}]


DIALECTS = {
    "chat": Dialect(
        ChatParser,
        lambda text: [_chat_choice({"content": text})],
        _chat_call,
        lambda word: _chat_choice({}, word),
        ["[DONE]"],
        {"stop": "stop", "length": "length", "refusal": "content_filter"},
    ),
    "responses": Dialect(
        ResponsesParser,
        lambda text: [{"type": "response.output_text.delta", "delta": text}],
        _response_call,
        None,
        [{"type": "response.completed", "response": {}}],
        {},
    ),
    "anthropic": Dialect(
        AnthropicParser,
        _anthropic_text,
        lambda name, arguments: _block(type="tool_use", id="c", name=name, input=json.loads(arguments)),
        lambda word: {"type": "message_delta", "delta": {"stop_reason": word}},
        [{"type": "message_stop"}],
        {"stop": "end_turn", "length": "max_tokens", "refusal": "refusal"},
    ),
    "gemini": Dialect(
        GeminiParser,
        lambda text: [_gemini({"text": text})],
        lambda name, arguments: [_gemini({"functionCall": {"name": name, "args": json.loads(arguments)}})],
        lambda word: _gemini(reason=word),
        [],
        {"stop": "STOP", "length": "MAX_TOKENS", "refusal": "SAFETY"},
    ),
}
WITH_REASONS = [name for name, dialect in DIALECTS.items() if dialect.reason is not None]


def outcome(name: str, *events: object) -> tuple[list[ModelItem], NousError | None]:
    return play(DIALECTS[name].parser(), [stream_of(*events)])


def said(items: list[ModelItem]) -> str:
    return "".join(item.text for item in items if isinstance(item, TextDelta))


def called(items: list[ModelItem]) -> list[tuple[str | None, str]]:
    calls: dict[int, tuple[str | None, str]] = {}
    for item in items:
        if isinstance(item, ToolCallDelta):
            name, arguments = calls.get(item.index, (None, ""))
            calls[item.index] = (name or item.name, arguments + item.arguments)
    return [(name, arguments or "{}") for name, arguments in calls.values()]


# -- a finish reason is no end


@pytest.mark.parametrize("name", WITH_REASONS)
def test_content_behind_a_finish_reason_counts(name: str) -> None:
    dialect = DIALECTS[name]
    assert dialect.reason is not None
    stop = dialect.reason(dialect.words["stop"])
    events = [stop, *dialect.text("Hel"), stop, *dialect.text("lo"), *dialect.call("ls", "{}"), stop]
    for end in (dialect.end, []):
        items, failure = outcome(name, *events, *end)
        assert (said(items), called(items), failure) == ("Hello", [("ls", "{}")], None)
        assert items[-1] == Finish("tool_use")


@pytest.mark.parametrize("name", WITH_REASONS)
def test_content_behind_the_last_reason_needs_the_mark_of_the_end(name: str) -> None:
    dialect = DIALECTS[name]
    assert dialect.reason is not None
    events = [*dialect.text("Hel"), dialect.reason(dialect.words["stop"]), *dialect.text("lo")]
    items, failure = outcome(name, *events)
    assert (said(items), failure and failure.cause) == ("Hello", "cut: the stream ended before the answer did")
    if dialect.end:
        items, failure = outcome(name, *events, *dialect.end)
        assert (said(items), items[-1], failure) == ("Hello", Finish("stop"), None)


@pytest.mark.parametrize("name", WITH_REASONS)
def test_an_early_reason_does_not_make_the_rest_of_the_stream_optional(name: str) -> None:
    """``finished`` tells the connection that a cut or silence costs nothing any more."""
    dialect, parser = DIALECTS[name], DIALECTS[name].parser()
    assert dialect.reason is not None
    stop = dialect.reason(dialect.words["stop"])

    def feed(*events: Event) -> bool:
        for event in events:
            parser.feed(json.dumps(event).encode(), [])
        return parser.finished

    assert not feed(*dialect.text("a"))
    assert feed(stop)
    assert not feed(*dialect.text("b"))
    assert not feed(stop)


@pytest.mark.parametrize("name", WITH_REASONS)
@pytest.mark.parametrize("reasons", [["length", "stop"], ["stop", "length"], ["stop", "stop", "length", "stop"]])
def test_the_most_severe_of_several_reasons_counts(name: str, reasons: list[str]) -> None:
    dialect = DIALECTS[name]
    assert dialect.reason is not None
    events = [dialect.reason(dialect.words[reason]) for reason in reasons]
    assert outcome(name, *dialect.text("a"), *events, *dialect.end)[0][-1] == Finish("length")


@pytest.mark.parametrize("name", WITH_REASONS)
def test_an_unknown_reason_is_passed_on_with_its_word(name: str) -> None:
    dialect = DIALECTS[name]
    assert dialect.reason is not None
    for word, shown in (("pause_turn", "pause_turn"), ("x" * 70, "x" * 64), ("\ud83d\n\u00fc", "???")):
        for content in (dialect.text("a"), dialect.call("ls", "{}")):
            items, failure = outcome(name, *content, dialect.reason(word), *dialect.end)
            assert (items[-1], failure) == (Finish("other", shown), None)


@pytest.mark.parametrize("name", WITH_REASONS)
@pytest.mark.parametrize("word", ["max_tokens", "MAX_TOKENS", "length", "Length"])
def test_reasons_of_other_vendors_are_understood(name: str, word: str) -> None:
    dialect = DIALECTS[name]
    assert dialect.reason is not None
    assert outcome(name, *dialect.text("a"), dialect.reason(word), *dialect.end)[0][-1] == Finish("length")


# -- the stream's end


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("tail", ["", "\n", "\r\n", "\r", "\n: comment", "\n:"])
def test_a_last_event_without_its_empty_line_is_read(name: str, tail: str) -> None:
    dialect = DIALECTS[name]
    end = [dialect.reason(dialect.words["stop"])] if dialect.reason else dialect.end
    body = stream_of(*dialect.text("Hello"), *end).rstrip(b"\n") + tail.encode()
    items, failure = play(dialect.parser(), [body])
    assert (said(items), items[-1], failure) == ("Hello", Finish("stop"), None)


@pytest.mark.parametrize("name", DIALECTS)
def test_half_an_event_at_the_end_is_a_cut(name: str) -> None:
    """Whatever came before: nobody knows what it would have said."""
    dialect = DIALECTS[name]
    reasons = [dialect.reason(dialect.words["stop"])] if dialect.reason else []
    whole = stream_of(*dialect.text("Hello"), *reasons)
    rest = stream_of(*dialect.text(" you")).rstrip(b"\n")
    for cut in range(1, len(rest)):
        if rest[:cut].rstrip(b"\n").endswith(b"}") and is_whole(rest[:cut].rpartition(b"data: ")[2]):
            continue
        items, failure = play(dialect.parser(), [whole + rest[:cut]])
        assert said(items).startswith("Hello")
        assert failure is not None
        assert (failure.code, (failure.cause or "").startswith("cut")) == ("provider_unavailable", True), rest[:cut]


# -- nothing is lost in silence


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("nameless", [None, ""])
def test_a_call_without_a_name_fails(name: str, nameless: str | None) -> None:
    dialect = DIALECTS[name]
    reasons = [dialect.reason(dialect.words["stop"])] if dialect.reason else []
    _, failure = outcome(name, *dialect.text("a"), *dialect.call(nameless, "{}"), *reasons, *dialect.end)
    assert failure is not None
    assert (failure.code, failure.cause) == ("provider_error", "malformed: a tool call has no name")


UNREAD: dict[str, list[Event]] = {
    "chat": [
        _chat_choice({"content": [{"type": "hologram", "text": "Hello"}]}),
        {"choices": [{"index": 1, "delta": {"content": "Hello"}}]},
    ],
    "responses": [
        {"type": "response.completed", "response": {"output": []}},
        {"type": "response.output_item.done", "item": {"type": "hologram", "content": "Hello"}},
    ],
    "anthropic": [_block(type="hologram", text="Hello")[0]],
    "gemini": [_gemini({"inlineData": {"data": "Hello"}}), {"candidates": [{"index": 1, "content": {"parts": []}}]}],
}


@pytest.mark.parametrize(("name", "event"), [(name, event) for name, events in UNREAD.items() for event in events])
def test_an_answer_of_which_nothing_was_read_fails(name: str, event: Event) -> None:
    dialect = DIALECTS[name]
    reasons = [dialect.reason(dialect.words["stop"])] if dialect.reason else []
    _, failure = outcome(name, event, *reasons, *dialect.end)
    assert failure is not None
    assert (failure.code, (failure.cause or "").startswith("malformed: the answer has")) == ("provider_error", True)


@pytest.mark.parametrize(("name", "word"), [("chat", "tool_calls"), ("anthropic", "tool_use")])
def test_an_announced_call_that_does_not_come_fails_an_empty_answer(name: str, word: str) -> None:
    dialect = DIALECTS[name]
    assert dialect.reason is not None
    _, failure = outcome(name, dialect.reason(word), *dialect.end)
    assert failure is not None
    assert "none has come" in (failure.cause or "")


WHOLE: dict[str, list[tuple[Event, str, str]]] = {
    "chat": [
        ({"choices": [{"message": {"content": "Hello"}}]}, "Hello", ""),
        ({"choices": [{"text": "Hello"}]}, "Hello", ""),
    ],
    "anthropic": [
        (
            {
                "type": "message_start",
                "message": {
                    "content": [
                        {"type": "text", "text": "Hello"},
                        {"type": "tool_use", "id": 7, "name": "ls", "input": {"path": "."}},
                    ]
                },
            },
            "Hello",
            '{"path":"."}',
        )
    ],
}


@pytest.mark.parametrize(("name", "whole"), [(name, whole) for name, events in WHOLE.items() for whole in events])
def test_an_answer_that_comes_as_a_whole_is_read(name: str, whole: tuple[Event, str, str]) -> None:
    dialect = DIALECTS[name]
    assert dialect.reason is not None
    event, text, arguments = whole
    items, failure = outcome(name, event, dialect.reason(dialect.words["stop"]), *dialect.end)
    assert (said(items), "".join(a for _, a in called(items)), failure) == (text, arguments, None)
    assert items[-1] == Finish("tool_use" if arguments else "stop")


# -- odd fields


ODD_USAGE = [[], "x", 7, 3.5, {"in": 3.5}, {"in": -1}, {"in": "7"}, {"in": True}, {"in": 2**60}, {"in": [1]}]
USAGE: dict[str, tuple[str, Callable[[object], Event]]] = {
    "chat": ("prompt_tokens", lambda usage: {"choices": [], "usage": usage}),
    "responses": ("input_tokens", lambda usage: {"type": "response.completed", "response": {"usage": usage}}),
    "anthropic": ("input_tokens", lambda usage: {"type": "message_delta", "delta": {}, "usage": usage}),
    "gemini": ("promptTokenCount", lambda usage: {"usageMetadata": usage}),
}


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("odd", ODD_USAGE, ids=repr)
def test_an_odd_usage_leaves_the_usage_unknown(name: str, odd: Any) -> None:
    dialect, (field, report) = DIALECTS[name], USAGE[name]
    usage = {field: odd["in"]} if isinstance(odd, dict) else odd
    reasons = [dialect.reason(dialect.words["stop"])] if dialect.reason else []
    items, failure = outcome(name, *dialect.text("Hello"), *reasons, report(usage), *dialect.end)
    assert (said(items), items[-1], failure) == ("Hello", Finish("stop"), None)
    assert not [item for item in items if isinstance(item, UsageReport)]


@pytest.mark.parametrize("name", DIALECTS)
def test_whole_numbers_written_as_fractions_are_counts(name: str) -> None:
    dialect, (field, report) = DIALECTS[name], USAGE[name]
    reasons = [dialect.reason(dialect.words["stop"])] if dialect.reason else []
    items, _ = outcome(name, *dialect.text("Hello"), *reasons, report({field: 7.0}), *dialect.end)
    assert [item.usage.input_tokens for item in items if isinstance(item, UsageReport)] == [7]


def _without(value: Any, names: set[str]) -> Any:
    """Return JSON with the fields ``names`` exchanged for what careless servers write."""
    if isinstance(value, list):
        return [_without(one, names) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: _odd(inner) if key in names else _without(inner, names) for key, inner in value.items()}


def _odd(value: object) -> object:
    return str(value) if isinstance(value, int) else 12345 if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("vendor", "name", "fields"),
    [
        ("openai", "parallel-tools", {"index"}),
        ("openai", "text", {"index", "id", "created", "object", "model"}),
        ("openai-responses", "reasoning-tools", {"output_index", "sequence_number", "content_index"}),
        ("anthropic", "thinking-tools", {"index"}),
        ("gemini", "thinking-tools", {"index", "modelVersion", "responseId"}),
    ],
)
def test_numbers_as_text_and_ids_as_numbers_change_nothing(vendor: str, name: str, fields: set[str]) -> None:
    lines = recording(vendor, name).decode().split("\n")
    odd = [
        "data: " + json.dumps(_without(json.loads(line[6:]), fields)) if line.startswith("data: {") else line
        for line in lines
    ]
    assert play(adapter_of(vendor).parser(), ["\n".join(odd).encode()]) == (ANSWERS[vendor][name], None)


@pytest.mark.parametrize(
    ("name", "event", "field"),
    [
        ("chat", _chat_choice({"content": 7}), "delta.content"),
        ("chat", _chat_choice({"tool_calls": [{"index": "one"}]}), "tool_calls.index"),
        ("chat", _chat_choice({"tool_calls": [{"function": {"arguments": 7}}]}), "function.arguments"),
        ("responses", {"type": "response.output_text.delta", "delta": 7}, "delta"),
        ("anthropic", {"type": "content_block_start", "index": 0, "content_block": {"text": 7}}, "content_block.text"),
        ("gemini", _gemini({"text": 7}), "].text"),
    ],
)
def test_a_needed_field_fails_with_its_name(name: str, event: Event, field: str) -> None:
    _, failure = outcome(name, event)
    assert failure is not None
    assert (failure.code, field in (failure.cause or "")) == ("provider_error", True), failure.cause


@pytest.mark.parametrize("event", [_chat_choice([]), _chat_choice({"tool_calls": [{"index": 0, "function": []}]})])
def test_empty_objects_of_php_are_empty(event: Event) -> None:
    assert outcome("chat", event, _chat_choice({}, "stop"), "[DONE]") == ([Finish("stop")], None)


# -- properties


@given(st.sampled_from(sorted(DIALECTS)), st.lists(st.text(max_size=6), max_size=8), st.data())
def test_an_answer_is_the_same_wherever_its_deltas_are_cut(name: str, texts: list[str], data: st.DataObject) -> None:
    dialect = DIALECTS[name]
    reasons = [dialect.reason(dialect.words["stop"])] if dialect.reason else []
    text = "".join(texts) or "a"
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    early = data.draw(st.sets(st.integers(0, len(pieces)), max_size=3)) if reasons else set()
    events: list[Any] = []
    for position, piece in enumerate(pieces):
        events += reasons * (position in early) + dialect.text(piece)
    items, failure = outcome(name, *events, *reasons, *dialect.end)
    assert (said(items), failure) == (text, None)


@given(st.sampled_from([(vendor, name) for vendor, found in ANSWERS.items() for name in found]), st.data())
def test_a_prefix_gives_the_same_items_and_then_a_failure(which: tuple[str, str], data: st.DataObject) -> None:
    vendor, name = which
    body, whole = recording(vendor, name), ANSWERS[vendor][name]
    items, failure = play(adapter_of(vendor).parser(), [body[: data.draw(st.integers(0, len(body)))]])
    if failure is None:
        assert [item for item in items if not isinstance(item, UsageReport)] == [
            item for item in whole if not isinstance(item, UsageReport)
        ]
    else:
        assert items == whole[: len(items)]
        assert (failure.code, (failure.cause or "")[:3]) == ("provider_unavailable", "cut")
