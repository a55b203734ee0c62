"""Garbage into every stream parser: items and exactly one end, whatever a server sends.

FUZZ_BODIES says how many bodies (6,000 in ``make test``, 1,000,000 in ``make test-chaos``), FUZZ_SEED which.
"""

from __future__ import annotations

import json
import os
import random
import re
from typing import Any, Final

import msgspec
import pytest

from nous.ports.model import Finish, ModelItem, TextDelta, ToolCallDelta
from tests.chaos.test_fuzz import SPICES
from tests.support.vendor_streams import ANSWERS, FAILURES, adapter_of, grammar_faults, play, recording

BODIES: Final = int(os.environ.get("FUZZ_BODIES", "6000"))
SEED: Final = int(os.environ.get("FUZZ_SEED", "1"))

PARSERS: Final = {
    "chat": ["openai", "kimi", "deepseek", "ollama", "vllm", "llamacpp", "lmstudio"],
    "chat-details": ["openrouter"],
    "responses": ["openai-responses"],
    "anthropic": ["anthropic"],
    "gemini": ["gemini"],
    "sse": ["openai", "openai-responses", "anthropic", "gemini"],
}
"""Each parser with the vendors whose recordings feed it; ``sse`` mutates the framing alone."""

CODES: Final = {"provider_error", "provider_unavailable", "content_refused", "context_overflow", "provider_auth"}
_STRINGS: Final = re.compile(rb'"(?:content|text|delta)":"([a-z ]{3,})"')


def recordings(vendors: list[str]) -> list[tuple[str, bytes]]:
    names = [(vendor, name) for vendor in vendors for name in [*ANSWERS[vendor], *FAILURES.get(vendor, {})]]
    return [(vendor, recording(vendor, name)) for vendor, name in names]


def mutate(body: bytes, dice: random.Random) -> bytes:
    """Return a body with one to four accidents: of bytes, of lines, of whole events, of values."""
    data = bytearray(body)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(8):
            case 0:
                data[at:at] = dice.choice(SPICES)
            case 1:
                del data[at : at + dice.randint(1, 8)]
            case 2:
                data[at : at + 1] = bytes([dice.randrange(256)])
            case 3:
                del data[at:]
            case 4 | 5:
                data = bytearray(_shuffled(bytes(data), dice))
            case _:
                data = bytearray(_twisted(bytes(data), dice))
    return bytes(data)


def _shuffled(body: bytes, dice: random.Random) -> bytes:
    """Drop, repeat or exchange whole events."""
    events = body.split(b"\n\n")
    one, other = dice.randrange(len(events)), dice.randrange(len(events))
    match dice.randrange(3):
        case 0:
            del events[one]
        case 1:
            events.insert(other, events[one])
        case _:
            events[one], events[other] = events[other], events[one]
    return b"\n\n".join(events)


def _twisted(body: bytes, dice: random.Random) -> bytes:
    """Exchange a value of one event's JSON, or leave it out."""
    lines = body.split(b"\n")
    places = [n for n, line in enumerate(lines) if line.startswith(b"data: {")]
    if not places:
        return body
    place = dice.choice(places)
    try:
        value = json.loads(lines[place][6:])
    except (ValueError, RecursionError):
        return body
    _twist(value, dice)
    lines[place] = b"data: " + json.dumps(value).encode()
    return b"\n".join(lines)


def _twist(value: Any, dice: random.Random) -> None:
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = dice.choice(keys)
        if isinstance(value[key], dict | list) and value[key] and dice.random() < 0.8:
            value = value[key]
            continue
        if dice.random() < 0.3:
            del value[key]
        else:
            value[key] = dice.choice([None, "", 0, 1, -1, 3.5, "0", [], {}, True, "x", [1], 2**70, "\ud83d"])
        return


def faults(items: list[ModelItem], failure: Exception | None) -> list[str]:
    """Return how a parser's answer is not one."""
    found = [*grammar_faults(items, finished=failure is None)]
    calls: dict[int, str] = {}
    for item in items:
        msgspec.json.encode(item)  # it goes into a trace and onto the wire
        if isinstance(item, ToolCallDelta):
            calls[item.index] = calls.get(item.index) or item.name or ""
    if failure is None and not all(calls.values()):
        found.append("a call without a name")
    return found


@pytest.mark.parametrize("parser", PARSERS)
def test_a_mutated_body_gives_items_and_one_end(parser: str) -> None:
    dice, bodies = random.Random(f"{SEED} {parser}"), recordings(PARSERS[parser])
    adapters = {vendor: adapter_of(vendor) for vendor, _ in bodies}
    completed = 0
    for number in range(BODIES // len(PARSERS)):
        vendor, body = dice.choice(bodies)
        mutated = mutate(body, dice)
        cut = dice.randrange(len(mutated) + 1)
        items, failure = play(adapters[vendor].parser(), [mutated[:cut], mutated[cut:]])
        assert not faults(items, failure), (number, mutated)
        assert failure is None or failure.code in CODES, (number, mutated)
        completed += failure is None
    assert completed


@pytest.mark.parametrize("parser", PARSERS)
def test_no_body_with_text_completes_with_an_empty_answer(parser: str) -> None:
    """The words stand where the vendor puts an answer's text; the rest of the body is exchanged."""
    dice = random.Random(f"{SEED} {parser} text")
    for _ in range(BODIES // len(PARSERS) // 4):
        vendor, body = dice.choice([(v, recording(v, "text")) for v in PARSERS[parser]])
        mutated = _shuffled(body, dice)
        items, failure = play(adapter_of(vendor).parser(), [mutated])
        is_empty = not any(isinstance(item, TextDelta | ToolCallDelta) for item in items)
        ended = [item.reason for item in items if isinstance(item, Finish)]
        if _STRINGS.search(mutated) and failure is None:
            assert not is_empty or ended != ["stop"], mutated
