"""One answer in every order and shape that its vendor's format allows gives the same answer.

What the formats fix, and what they leave open:

- Responses API: the events of one output item keep their order; items may be interleaved, and everything is said
  several times (deltas, ``done`` of text, part and item, ``response.completed``), of which servers send some.
- Chat completions: the fragments of one call keep their order; calls and text may be interleaved, usage may come
  before, with or after the finish reason, and ``[DONE]`` may be missing.
- Gemini: parts have one order; how they are spread over events is open, usage and reasons may come with any event.
- Anthropic: the order of blocks and their events is fixed.  Pings and events of new types may come anywhere,
  and ``message_delta`` may come in parts.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nous.ports.model import Finish, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.providers.adapter import ItemParser
from nous.providers.anthropic_stream import AnthropicParser
from nous.providers.chat_stream import ChatParser
from nous.providers.gemini_stream import GeminiParser
from nous.providers.responses_stream import ResponsesParser
from nous.providers.sse import SseParser
from tests.support.vendor_streams import ANSWERS, adapter_of, play, recording, stream_of

Event = dict[str, Any]


def events_of(vendor: str, name: str) -> list[Event]:
    found = SseParser().feed(recording(vendor, name))
    return [json.loads(data) for data in found if data != b"[DONE]"]


def meaning(items: Sequence[ModelItem]) -> dict[str, Any]:
    """Return what an answer says, without how it was cut and which of its calls began first."""
    calls: dict[int, list[str]] = {}
    for item in items:
        if isinstance(item, ToolCallDelta):
            call = calls.setdefault(item.index, ["", "", ""])
            call[0] += item.id or ""
            call[1] += item.name or ""
            call[2] += item.arguments
    return {
        "text": "".join(item.text for item in items if isinstance(item, TextDelta)),
        "thinking": "".join(item.text for item in items if isinstance(item, ThinkingDelta)),
        "signatures": [item.signature for item in items if isinstance(item, ThinkingDelta) and item.signature],
        "calls": sorted(calls.values()),
        "usage": [item.usage for item in items if isinstance(item, UsageReport)],
        "finish": [item for item in items if isinstance(item, Finish)],
    }


def check(vendor: str, name: str, events: Sequence[object]) -> None:
    items, failure = play(adapter_of(vendor).parser(), [stream_of(*events)])
    assert failure is None
    assert meaning(items) == meaning(ANSWERS[vendor][name])


def merge(data: st.DataObject, *sequences: Sequence[Event]) -> list[Event]:
    """Return the events of several sequences in any order that keeps that of each."""
    labels = [label for label, sequence in enumerate(sequences) for _ in sequence]
    rest = [iter(sequence) for sequence in sequences]
    return [next(rest[label]) for label in data.draw(st.permutations(labels))]


# -- recorded answers, re-ordered


@given(st.sampled_from(["reasoning-tools", "whole-call", "text", "refusal"]), st.data())
def test_items_of_a_response_may_be_interleaved(name: str, data: st.DataObject) -> None:
    events = events_of("openai-responses", name)
    end = events.pop()
    items: dict[str, list[Event]] = {}
    for event in events:
        if key := event.get("item_id") or event.get("item", {}).get("id"):
            items.setdefault(key, []).append(event)
    order = merge(data, *items.values())
    if data.draw(st.booleans()):
        order = [{key: value for key, value in event.items() if key != "output_index"} for event in order]
    if data.draw(st.booleans()):
        end = copy.deepcopy(end)
        end["response"].pop("output", None)
    check("openai-responses", name, [*order, end])


@given(st.sampled_from(["reasoning-tools", "whole-call", "text", "refusal"]), st.data())
def test_a_response_says_everything_once_whatever_is_left_out(name: str, data: st.DataObject) -> None:
    """Of the kinds of events that say the same, any may be missing, as long as one is there."""
    expected = meaning(ANSWERS["openai-responses"][name])
    events = events_of("openai-responses", name)
    kinds = ["deltas", "done", "part", "response.output_item.done", "response.completed"]
    for kind in data.draw(st.sets(st.sampled_from(kinds), max_size=4)):
        events = [event for event in (without(event, kind) for event in events) if event]
    there = {text for event in events for text in texts_in(event)}
    begun = {text for event in events for text in texts_in(event) if event["type"].endswith(".delta")}
    needed = [expected["text"], *(arguments for _, _, arguments in expected["calls"])]
    sealed = [json.loads(signature)["encrypted_content"] for signature in expected["signatures"]]
    assume(begun or there.issuperset(filter(None, needed)))
    assume(there.issuperset(sealed))
    items, failure = play(adapter_of("openai-responses").parser(), [stream_of(*events)])
    assert failure is None
    assert meaning(items) == expected


def texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_in(inner)


def without(event: Event, kind: str) -> Event:
    """Return ``event`` without what ``kind`` says; an event without its type is one that is left out."""
    name = event["type"]
    if kind == "response.completed" and name == kind:
        return {**event, "response": {**event["response"], "output": []}}
    is_item = name.startswith("response.output_item")
    ends = {"deltas": ".delta", "done": ".done", "part": "_part.done"}
    is_left_out = name == kind if kind not in ends else not is_item and name.endswith(ends[kind])
    return {} if is_left_out else event


@given(st.sampled_from(["parallel-tools", "tool-call", "text", "refusal", "length"]), st.data())
def test_calls_and_usage_of_a_chat_completion_may_come_in_any_order(name: str, data: st.DataObject) -> None:
    tracks: dict[Any, list[Event]] = {"text": [], "usage": []}
    reason = ""
    for event in events_of("openai", name):
        if event.get("usage"):
            tracks["usage"].append({"choices": [], "usage": event["usage"]})
        for choice in event["choices"]:
            delta = dict(choice["delta"])
            reason = choice["finish_reason"] or reason
            for fragment in delta.pop("tool_calls", None) or ():
                tracks.setdefault(fragment["index"], []).append(chat_event({"tool_calls": [fragment]}))
            tracks["text"].append(chat_event(delta))
    early = [chat_event({}, reason)] * data.draw(st.integers(0, 2))
    order = merge(data, *tracks.values(), early)
    is_marked = data.draw(st.booleans())
    end: list[object] = [chat_event({}, reason), *(["[DONE]"] if is_marked else [])]
    check("openai", name, [*order, *end])
    if not is_marked and tracks["usage"]:
        content = merge(data, *(track for key, track in tracks.items() if key != "usage"))
        check("openai", name, [*content, *end, *tracks["usage"]])


def chat_event(delta: Event, reason: str | None = None) -> Event:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


@given(st.sampled_from(["thinking-tools", "text", "signed-text", "length"]), st.data())
def test_parts_of_a_gemini_answer_may_be_spread_over_events_in_any_way(name: str, data: st.DataObject) -> None:
    parts: list[Event] = []
    usage, reason = None, ""
    for event in events_of("gemini", name):
        usage = event.get("usageMetadata") or usage
        for candidate in event["candidates"]:
            parts += candidate.get("content", {}).get("parts", [])
            reason = candidate.get("finishReason") or reason
    cuts = sorted(data.draw(st.sets(st.integers(0, len(parts)))))
    groups = [parts[a:b] for a, b in zip([0, *cuts], [*cuts, len(parts)], strict=True)]
    counted = data.draw(st.integers(0, len(groups) - 1))
    is_apart = data.draw(st.booleans())
    events: list[Event] = []
    for position, group in enumerate(groups):
        is_last = position == len(groups) - 1
        told: Event = {"index": 0, "content": {"role": "model", "parts": group}}
        if (is_last and not is_apart) or data.draw(st.booleans()):
            told["finishReason"] = reason
        events.append({"candidates": [told]} | ({"usageMetadata": usage} if position == counted else {}))
    if is_apart:
        events.append({"candidates": [{"index": 0, "finishReason": reason}]})
    check("gemini", name, events)


@given(st.sampled_from(["thinking-tools", "interleaved", "redacted", "text", "length", "refusal"]), st.data())
def test_an_anthropic_answer_has_one_order_with_pings_anywhere(name: str, data: st.DataObject) -> None:
    events = events_of("anthropic", name)
    deltas = [event for event in events if event["type"] == "message_delta"]
    at = events.index(deltas[0])
    split: list[Event] = []
    for event in deltas:
        split += [
            {"type": "message_delta", "delta": event["delta"]},
            {"type": "message_delta", "delta": {}, "usage": event.get("usage")},
        ]
    if data.draw(st.booleans()):
        split.reverse()
    events = [*events[:at], *split, events[-1]]
    extra = [{"type": "ping"}, {"type": "content_hologram", "index": 0, "delta": {"text": "x"}}]
    check("anthropic", name, merge(data, events, data.draw(st.lists(st.sampled_from(extra), max_size=4))))


# -- one answer, in the shapes that servers send: the text "Four.", the calls ls and find


def response_item(number: int, name: str, arguments: str) -> Event:
    ids = {"id": f"fc_{number}", "call_id": f"call_{number}"}
    return {"type": "function_call", "name": name, "arguments": arguments, **ids}


LS, FIND = '{"path": "."}', '{"pattern": "*"}'
ITEMS = [response_item(1, "ls", LS), response_item(2, "find", FIND)]
MESSAGE = {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "Four."}]}
BEGUN = [{"type": "response.output_item.added", "item": {**item, "arguments": ""}} for item in ITEMS]
ITEMS_DONE = [{"type": "response.output_item.done", "item": item} for item in ITEMS]
TEXT = [{"type": "response.output_text.delta", "item_id": "m", "delta": delta} for delta in ("Fo", "ur.")]
COMPLETED = {"type": "response.completed", "response": {}}


def response_deltas(number: int, key: str = "item_id") -> list[Event]:
    item = ITEMS[number]
    shown = {key: item["id" if key == "item_id" else "call_id"]} if key else {}
    kind = "response.function_call_arguments.delta"
    return [{"type": kind, "delta": delta, **shown} for delta in (item["arguments"][:4], item["arguments"][4:])]


def response_done(number: int) -> Event:
    shown = {"item_id": ITEMS[number]["id"], "arguments": ITEMS[number]["arguments"]}
    return {"type": "response.function_call_arguments.done", **shown}


def completed(*output: Event) -> Event:
    return {"type": "response.completed", "response": {"status": "completed", "output": list(output)}}


def alternated(one: Sequence[Event], other: Sequence[Event]) -> list[Event]:
    return [event for pair in zip(one, other, strict=True) for event in pair]


def fragment(index: object, call_id: str | None, name: str | None, arguments: str) -> Event:
    given = {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}
    return chat_event({"tool_calls": [{key: value for key, value in given.items() if value is not None}]})


def block(index: int, start: Event, *deltas: Event) -> list[Event]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def tool_block(index: int, name: str, given: Event, *pieces: str) -> list[Event]:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return block(index, {"type": "tool_use", "id": name, "name": name, "input": given}, *deltas)


ANTHROPIC_END = [{"type": "message_delta", "delta": {"stop_reason": "tool_use"}}, {"type": "message_stop"}]
ANTHROPIC_TEXT = block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Four."})
CHAT_TEXT = [chat_event({"content": "Fo"}), chat_event({"content": "ur."})]
CHAT_END = [chat_event({}, "tool_calls"), "[DONE]"]
CALL_PARTS = [
    {"functionCall": {"name": "ls", "args": {"path": "."}}},
    {"functionCall": {"name": "find", "args": {"pattern": "*"}}},
]


def gemini(*parts: Event, reason: str | None = None) -> Event:
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": reason}]}


SHAPES: dict[str, tuple[type[ItemParser], dict[str, list[Any]]]] = {
    "responses": (
        ResponsesParser,
        {
            "calls one after the other": [
                *TEXT,
                *(event for n in (0, 1) for event in (BEGUN[n], *response_deltas(n), ITEMS_DONE[n])),
                COMPLETED,
            ],
            "calls announced first": [*TEXT, *BEGUN, *response_deltas(0), *response_deltas(1), COMPLETED],
            "calls announced first, the second one first": [
                *TEXT,
                *BEGUN,
                *response_deltas(1),
                *response_deltas(0),
                COMPLETED,
            ],
            "calls interleaved": [*BEGUN, *TEXT, *alternated(response_deltas(0), response_deltas(1)), COMPLETED],
            "deltas by call id": [
                *TEXT,
                *BEGUN,
                *alternated(response_deltas(0, "call_id"), response_deltas(1, "call_id")),
                COMPLETED,
            ],
            "deltas without any id, after their call": [
                *TEXT,
                *(event for n in (0, 1) for event in (BEGUN[n], *response_deltas(n, ""), ITEMS_DONE[n])),
                COMPLETED,
            ],
            "arguments in done only": [*TEXT, *BEGUN, response_done(1), response_done(0), COMPLETED],
            "arguments in items only": [*TEXT, *BEGUN, *reversed(ITEMS_DONE), COMPLETED],
            "arguments with the announcement": [
                *TEXT,
                *({"type": "response.output_item.added", "item": item} for item in ITEMS),
                COMPLETED,
            ],
            "items only": [{"type": "response.output_item.done", "item": MESSAGE}, *ITEMS_DONE, COMPLETED],
            "the end only": [completed(MESSAGE, *ITEMS)],
            "text done only": [{"type": "response.output_text.done", "text": "Four."}, completed(*ITEMS)],
            "part done only": [
                {"type": "response.content_part.done", "part": MESSAGE["content"][0]},
                *ITEMS_DONE,
                COMPLETED,
            ],
            "half the text in deltas": [TEXT[0], completed(MESSAGE, *ITEMS)],
            "half the arguments in deltas": [*TEXT, *BEGUN, response_deltas(0)[0], completed(MESSAGE, *ITEMS)],
            "everything four times": [
                *TEXT,
                {"type": "response.output_text.done", "text": "Four."},
                {"type": "response.content_part.done", "part": MESSAGE["content"][0]},
                {"type": "response.output_item.done", "item": MESSAGE},
                *BEGUN,
                *response_deltas(0),
                response_done(0),
                ITEMS_DONE[0],
                *response_deltas(1),
                response_done(1),
                ITEMS_DONE[1],
                completed(MESSAGE, *ITEMS),
            ],
        },
    ),
    "chat": (
        ChatParser,
        {
            "calls one after the other": [
                *CHAT_TEXT,
                fragment(0, "a", "ls", ""),
                fragment(0, None, None, LS),
                fragment(1, "b", "find", ""),
                fragment(1, None, None, FIND),
                *CHAT_END,
            ],
            "calls interleaved": [
                fragment(1, "b", "find", ""),
                CHAT_TEXT[0],
                fragment(0, "a", "ls", ""),
                fragment(1, None, None, FIND[:4]),
                fragment(0, None, None, LS),
                CHAT_TEXT[1],
                fragment(1, None, None, FIND[4:]),
                *CHAT_END,
            ],
            "whole calls": [*CHAT_TEXT, fragment(0, "a", "ls", LS), fragment(1, "b", "find", FIND), *CHAT_END],
            "whole calls without indexes": [
                *CHAT_TEXT,
                fragment(None, "a", "ls", LS),
                fragment(None, "b", "find", FIND),
                *CHAT_END,
            ],
            "interleaved by id": [
                *CHAT_TEXT,
                fragment(None, "a", "ls", ""),
                fragment(None, "b", "find", ""),
                fragment(None, "a", None, LS),
                fragment(None, "b", None, FIND),
                *CHAT_END,
            ],
            "one event": [
                {
                    "choices": [
                        {
                            "message": {
                                "content": "Four.",
                                "tool_calls": [
                                    {"id": "a", "function": {"name": "ls", "arguments": LS}},
                                    {"id": "b", "function": {"name": "find", "arguments": FIND}},
                                ],
                            },
                            "finish_reason": "tool_calls",
                        }
                    ]
                },
                "[DONE]",
            ],
        },
    ),
    "anthropic": (
        AnthropicParser,
        {
            "blocks": [
                *ANTHROPIC_TEXT,
                *tool_block(1, "ls", {}, LS[:4], LS[4:]),
                *tool_block(2, "find", {}, FIND),
                *ANTHROPIC_END,
            ],
            "input with the block": [
                *ANTHROPIC_TEXT,
                *tool_block(1, "ls", {"path": "."}),
                *tool_block(2, "find", {"pattern": "*"}),
                *ANTHROPIC_END,
            ],
            "every block has index 0": [
                *ANTHROPIC_TEXT,
                *tool_block(0, "ls", {}, LS),
                *tool_block(0, "find", {}, FIND),
                *ANTHROPIC_END,
            ],
            "blocks without their stop": [
                *ANTHROPIC_TEXT[:-1],
                *tool_block(1, "ls", {}, LS)[:-1],
                *tool_block(2, "find", {}, FIND)[:-1],
                *ANTHROPIC_END,
            ],
            "one event": [
                {
                    "type": "message_start",
                    "message": {
                        "content": [
                            {"type": "text", "text": "Four."},
                            {"type": "tool_use", "id": "a", "name": "ls", "input": {"path": "."}},
                            {"type": "tool_use", "id": "b", "name": "find", "input": {"pattern": "*"}},
                        ]
                    },
                },
                *ANTHROPIC_END,
            ],
        },
    ),
    "gemini": (
        GeminiParser,
        {
            "one event": [gemini({"text": "Four."}, *CALL_PARTS, reason="STOP")],
            "one event each": [
                gemini({"text": "Fo"}),
                gemini({"text": "ur."}),
                *map(gemini, CALL_PARTS),
                gemini(reason="STOP"),
            ],
            "text between the calls": [
                gemini(CALL_PARTS[0]),
                gemini({"text": "Four."}),
                gemini(CALL_PARTS[1], reason="STOP"),
            ],
        },
    ),
}


@pytest.mark.parametrize(
    ("dialect", "shape"), [(name, shape) for name, (_, found) in SHAPES.items() for shape in found]
)
def test_every_shape_of_an_answer_is_the_same_answer(dialect: str, shape: str) -> None:
    parser, shapes = SHAPES[dialect]
    items, failure = play(parser(), [stream_of(*shapes[shape])])
    assert failure is None
    found = meaning(items)
    calls = sorted((name, json.loads(arguments)) for _, name, arguments in found["calls"])
    assert (found["text"], calls) == ("Four.", [("find", {"pattern": "*"}), ("ls", {"path": "."})])
    assert found["finish"] == [Finish("tool_use")]


MISFITS: dict[str, tuple[type[ItemParser], list[Any], str]] = {
    "responses, arguments before their call": (
        ResponsesParser,
        [*response_deltas(0), *BEGUN, COMPLETED],
        "arguments without their call",
    ),
    "responses, other text at the end": (
        ResponsesParser,
        [{"type": "response.output_text.delta", "delta": "Five"}, completed(MESSAGE)],
        "differs from its deltas",
    ),
    "responses, other arguments at the end": (
        ResponsesParser,
        [BEGUN[0], *response_deltas(0), completed(response_item(1, "ls", FIND))],
        "differ from their deltas",
    ),
    "chat, arguments before any call": (ChatParser, [fragment(0, None, None, LS), *CHAT_END], "belongs to none"),
    "anthropic, a delta before its block": (
        AnthropicParser,
        [*ANTHROPIC_TEXT[1:], *ANTHROPIC_END],
        "without its block",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_an_order_that_no_format_allows_fails(name: str) -> None:
    parser, events, cause = MISFITS[name]
    _, failure = play(parser(), [stream_of(*events)])
    assert failure is not None
    assert (failure.code, cause in (failure.cause or "")) == ("provider_error", True), failure.cause
