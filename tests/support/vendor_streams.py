"""Recorded event streams of every vendor (fixtures/sse), what they mean, and how to play them to a parser.

The recordings were written from the formats the vendors publish; ``ANSWERS`` and ``FAILURES`` say what comes out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from msgspec import UNSET, UnsetType

from nous.errors import NousError
from nous.ports.model import Finish, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import Usage
from nous.providers.adapter import Adapter, ItemParser, finish_stream
from nous.providers.registry import build_adapter
from nous.providers.settings import ProviderSettings
from nous.providers.sse import SseParser

FIXTURES: Final = Path(__file__).parents[2] / "fixtures" / "sse"
KEY: Final = "sk-test-0123456789"


def used(
    input_tokens: int = 19, output: int = 10, cached: int = 0, reasoning: int = 0, cache_write: int | UnsetType = UNSET
) -> UsageReport:
    return UsageReport(
        Usage(
            input_tokens=input_tokens,
            output_tokens=output,
            cached_tokens=cached,
            reasoning_tokens=reasoning,
            cache_write_tokens=cache_write,
        )
    )


def call(index: int, call_id: str | None, name: str, *arguments: str) -> list[ModelItem]:
    return [ToolCallDelta(index, call_id, name), *(ToolCallDelta(index, arguments=piece) for piece in arguments)]


def texts(*pieces: str) -> list[ModelItem]:
    return [TextDelta(piece) for piece in pieces]


def thoughts(*pieces: str, signature: str | None = None) -> list[ModelItem]:
    signed = [] if signature is None else [ThinkingDelta("", signature)]
    return [*(ThinkingDelta(piece) for piece in pieces), *signed]


_USED: Final = used(cached=8, reasoning=4)
_HELLO: Final = texts("Hello", ", ", "\xfcber", " \U0001f600", "!")
_GREETING: Final[list[ModelItem]] = [*_HELLO, _USED, Finish("stop")]
_SEALED: Final = (
    '{"type":"reasoning","id":"rs_68af","summary":[{"type":"summary_text","text":"Two files."},'
    '{"type":"summary_text","text":"Two calls."}],"encrypted_content":"gAAAAABoYm9v"}'
)
_DETAILS: Final = (
    '[{"type":"reasoning.text","text":"First think.","format":"anthropic-claude-v1","index":0,"signature":"c2ln"}]'
)

ANSWERS: Final[dict[str, dict[str, list[ModelItem]]]] = {
    "openai": {
        "text": _GREETING,
        "text-crlf": _GREETING,
        "text-cr": _GREETING,
        "tool-call": [
            *call(0, "call_Ab12", "read", '{"pa', 'th":"', "a.txt", '"}'),
            _USED,
            Finish("tool_use"),
        ],
        "parallel-tools": [
            TextDelta("Two at once."),
            ToolCallDelta(0, "call_A", "read"),
            ToolCallDelta(1, "call_B", "grep"),
            ToolCallDelta(0, arguments='{"path":'),
            ToolCallDelta(1, arguments='{"pattern":'),
            ToolCallDelta(1, arguments='"x"}'),
            ToolCallDelta(0, arguments='"b"}'),
            _USED,
            Finish("tool_use"),
        ],
        "reasoning-content": [*thoughts("First ", "think."), *texts("Then ", "speak."), _USED, Finish("stop")],
        "refusal": [*texts("I cannot ", "do that."), _USED, Finish("refusal")],
        "content-filter": [TextDelta("So"), Finish("refusal")],
        "length": [TextDelta("Half a"), _USED, Finish("length")],
        "split-surrogates": [*texts("a", "\U0001f600b", "\ufffdc\ufffd"), Finish("stop")],
        "no-done": [TextDelta("Done"), Finish("stop")],
        "multi-line": [TextDelta("lines"), Finish("stop")],
    },
    "openai-responses": {
        "text": [*_HELLO, _USED, Finish("stop")],
        "reasoning-tools": [
            *thoughts("Two ", "files.", "\n\n", "Two calls.", signature=_SEALED),
            ToolCallDelta(0, "call_1", "read"),
            ToolCallDelta(0, arguments='{"path":'),
            ToolCallDelta(1, "call_2", "grep"),
            ToolCallDelta(1, arguments='{"pattern":"x"}'),
            ToolCallDelta(0, arguments='"b"}'),
            _USED,
            Finish("tool_use"),
        ],
        "whole-call": [*call(0, "call_1", "read", '{"path":"b"}'), _USED, Finish("tool_use")],
        "refusal": [*texts("I cannot ", "do that."), _USED, Finish("refusal")],
        "length": [TextDelta("Half a"), _USED, Finish("length")],
        "content-filter": [TextDelta("So"), Finish("refusal")],
    },
    "anthropic": {
        "text": [*_HELLO, used(30, 10, 8, cache_write=3), Finish("stop")],
        "thinking-tools": [
            *thoughts("Two files, ", "two calls.", signature="EqQBCgIYAhIM1gbcDa9GJwZA2b3h"),
            TextDelta("Both at once."),
            *call(0, "toolu_01T1x1fJ34qAmk2tNTrN7Up6", "read", '{"path":', ' "a.txt"}'),
            *call(1, "toolu_01R7v", "ls"),
            used(output=89, reasoning=12),
            Finish("tool_use"),
        ],
        "redacted": [
            ThinkingDelta("", "redacted:EmwKAhgBEgy3va3pzix/LafPsn4a"),
            ThinkingDelta("", "EosnCkYICxIMMb3LzNrM"),
            TextDelta("Done."),
            used(output=40),
            Finish("stop"),
        ],
        "interleaved": [
            *thoughts("One.", signature="c2lnMQ=="),
            TextDelta("First."),
            *thoughts("Two.", signature="c2lnMg=="),
            TextDelta("Second."),
            used(output=9),
            Finish("stop"),
        ],
        "passed-over": [*texts("So it ", "says."), used(output=7), Finish("other", "pause_turn")],
        "refusal": [TextDelta("I cannot"), used(output=4), Finish("refusal")],
        "length": [TextDelta("Half a"), used(output=3), Finish("length")],
    },
    "gemini": {
        "text": [*_HELLO, _USED, Finish("stop")],
        "thinking-tools": [
            *thoughts("Two files, ", "two calls."),
            TextDelta("Both at once."),
            ThinkingDelta("", "CiQBjz1rX7sig"),
            *call(0, "zk1b", "read", '{"path":"a.txt"}'),
            *call(1, None, "ls", "{}"),
            used(output=36, reasoning=6),
            Finish("tool_use"),
        ],
        "signed-text": [TextDelta("Yes."), ThinkingDelta("", "CiQBend"), used(output=5, reasoning=3), Finish("stop")],
        "passed-over": [*texts("So it ", "says."), used(output=4), Finish("stop")],
        "length": [TextDelta("Half a"), used(output=3), Finish("length")],
        "safety": [TextDelta("So"), used(output=1), Finish("refusal")],
    },
    "kimi": {
        "text": [*thoughts("Greet ", "them."), *texts("Hello", ", you"), _USED, Finish("stop")],
        "tools": [
            ThinkingDelta("Two."),
            *call(0, "read:0", "read", '{"path":', '"a"}'),
            *call(1, "ls:1", "ls", "{}"),
            _USED,
            Finish("tool_use"),
        ],
    },
    "deepseek": {"text": [ThinkingDelta("Hm."), *texts("Hello", ", you"), _USED, Finish("stop")]},
    "openrouter": {
        "text": [
            ThinkingDelta("Hm."),
            TextDelta("Yes."),
            ThinkingDelta("", '[{"type":"reasoning.text","text":"Hm.","format":"x","index":0}]'),
            _USED,
            Finish("stop"),
        ],
        "details": [
            *thoughts("First ", "think."),
            *call(0, "toolu_01", "read", '{"path":"a"}'),
            ThinkingDelta("", _DETAILS),
            _USED,
            Finish("tool_use"),
        ],
    },
    "ollama": {
        "text": [ThinkingDelta("Hm."), *texts("Hello", ", you"), used(), Finish("stop")],
        "tools": [
            *call(0, "call_a1", "read", '{"path":"a"}'),
            *call(1, "call_b2", "ls", "{}"),
            Finish("tool_use"),
        ],
    },
    "vllm": {"text": [ThinkingDelta("Hm."), *texts("Hello", ", you"), used(), Finish("stop")]},
    "llamacpp": {"text": [ThinkingDelta("Hm."), *texts("Hello", ", you"), used(cached=8), Finish("stop")]},
    "lmstudio": {"text": [ThinkingDelta("Hm."), *texts("Hello", ", you"), used(reasoning=4), Finish("stop")]},
}
"""Streams that are answers: vendor, recording, items."""

FAILURES: Final[dict[str, dict[str, tuple[list[ModelItem], str]]]] = {
    "openai": {"error-in-stream": (texts("Part"), "provider_unavailable")},
    "openai-responses": {
        "failed": (texts("Part"), "provider_unavailable"),
        "error-in-stream": ([], "provider_unavailable"),
    },
    "anthropic": {"error-in-stream": (texts("Part"), "provider_unavailable")},
    "gemini": {
        "blocked": ([], "content_refused"),
        "malformed-call": (texts("Now"), "provider_unavailable"),
        "error-in-stream": (texts("Part"), "provider_unavailable"),
    },
    "deepseek": {"overloaded": (texts("Part"), "provider_unavailable")},
    "openrouter": {"error-in-stream": (texts("Part"), "provider_unavailable")},
}
"""Streams that fail: what came before, and the code."""


def recording(vendor: str, name: str) -> bytes:
    return (FIXTURES / vendor / f"{name}.sse").read_bytes()


def adapter_of(vendor: str, **settings: object) -> Adapter:
    given: dict[str, object] = {"model": "m", "api_key": KEY, **settings}
    return build_adapter(vendor, ProviderSettings(**given))  # type: ignore[arg-type]


def play(parser: ItemParser, chunks: Iterable[bytes]) -> tuple[list[ModelItem], NousError | None]:
    """Return the items of a stream that comes in ``chunks``, and the failure it ended with."""
    events = SseParser()
    items: list[ModelItem] = []
    try:
        for chunk in chunks:
            for data in events.feed(chunk):
                if not parser.done:
                    parser.feed(data, items)
        finish_stream(events, parser, items)
    except NousError as error:
        return items, error
    return items, None


def play_events(parser: ItemParser, *events: object) -> list[ModelItem]:
    """Return the items of events given as objects, or as text where JSON would not do.  Raises their failure."""
    items, failure = play(parser, [stream_of(*events)])
    if failure is not None:
        raise failure
    return items


def stream_of(*events: object) -> bytes:
    given = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return "".join(f"data: {text}\n\n" for text in given).encode()


def grammar_faults(items: list[ModelItem], *, finished: bool) -> Iterator[str]:
    """Yield where ``items`` is not what the provider port promises."""
    ends = [position for position, item in enumerate(items) if isinstance(item, Finish)]
    if len(ends) != int(finished):
        yield f"{len(ends)} finishes"
    if ends and any(not isinstance(item, UsageReport) for item in items[ends[0] + 1 :]):
        yield "more than usage behind the finish"
    opened: dict[int, ToolCallDelta] = {}
    for item in items:
        if isinstance(item, TextDelta) and not item.text:
            yield "an empty text"
        elif isinstance(item, ThinkingDelta) and not item.text and not item.signature:
            yield "an empty thought"
        elif isinstance(item, ToolCallDelta):
            if item.index not in opened and item.index != len(opened):
                yield "indexes with a hole"
            elif item.index in opened and (item.id or (item.name and opened[item.index].name)):
                yield "an id or a name twice"
            opened.setdefault(item.index, item)
