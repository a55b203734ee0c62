"""What a delta costs in each vendor's parser, from bytes of the network to items."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from nous.ports.model import ModelItem, TextDelta
from nous.providers.adapter import Adapter
from nous.providers.presets import PRESETS
from nous.providers.registry import build_adapter
from nous.providers.settings import ProviderSettings
from nous.providers.sse import SseParser

FIXTURES: Final = Path(__file__).resolve().parents[2] / "fixtures" / "sse"
DELTAS: Final = 20_000
READ_BYTES: Final = 16 * 1024
"""About what one network read delivers of a fast stream."""

REPEATS: Final = 3


def parse_costs() -> dict[str, float]:
    """Return microseconds per delta, the best of some repeats, by vendor."""
    costs: dict[str, float] = {}
    for vendor in PRESETS:
        adapter = build_adapter(vendor, ProviderSettings(model="m", api_key="k"))
        body = long_answer(adapter, (FIXTURES / vendor / "text.sse").read_bytes())
        costs[vendor] = min(_timed(adapter, body) for _ in range(REPEATS)) / DELTAS * 1e6
    return costs


def long_answer(adapter: Adapter, recorded: bytes) -> bytes:
    """Return a recorded answer whose first delta comes again and again."""
    events = [event + b"\n\n" for event in recorded.replace(b"\r\n", b"\n").split(b"\n\n") if event.strip()]
    position = next(n for n, _ in enumerate(events) if _texts(adapter, b"".join(events[: n + 1])))
    return b"".join([*events[:position], events[position] * DELTAS, *events[position + 1 :]])


def _texts(adapter: Adapter, body: bytes) -> int:
    parser, items = adapter.parser(), list[ModelItem]()
    for data in SseParser().feed(body):
        parser.feed(data, items)
    return sum(isinstance(item, TextDelta) for item in items)


def _timed(adapter: Adapter, body: bytes) -> float:
    reads = [body[at : at + READ_BYTES] for at in range(0, len(body), READ_BYTES)]
    events, parser = SseParser(), adapter.parser()
    count = 0
    begun = time.perf_counter()
    for read in reads:
        items: list[ModelItem] = []
        for data in events.feed(read):
            if not parser.done:
                parser.feed(data, items)
        count += len(items)
    took = time.perf_counter() - begun
    assert count >= DELTAS, count
    return took
