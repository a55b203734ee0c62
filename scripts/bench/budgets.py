"""What a figure may come to: the targets beside the floor, and budgets far enough away to fail only for a reason.

A budget is three to five times the median measured on two busy cores; it catches what became slow, not a busy machine.
What waits for the disk is judged without it: less the fsync p50 that the same round measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

TARGETS: Final[Mapping[str, float]] = {
    "spawn to reply ratio": 0.7,
    "spawn to first delta ratio": 1.15,
    "prompt to first delta ratio": 1.0,
    "paced p50 ratio": 1.3,
    "paced p99 ratio": 1.3,
    "cpu per 10k deltas ratio": 0.9,
    "nous idle rss MB": 48,
    "nous peak rss MB": 56,
    "nous turn 1000 over 50 ratio": 1.3,
    "nous turn 1000 cpu ms": 4,
    "nous tool round ms": 2,
    "nous last byte to end less fsync ms": 1.5,
}
"""At most this.  Ratios are nous over the floor, taken in one round."""

LEAST_TARGETS: Final[Mapping[str, float]] = {
    "deltas per s ratio": 1.4,
    "nous eight sessions ratio": 0.8,
    "nous slowest share": 0.5,
}
"""At least this."""

BUDGETS: Final[Mapping[str, float]] = {
    "nous spawn to reply ms": 400,
    "nous spawn to first delta ms": 500,
    "nous prompt to first delta less fsync ms": 8,
    "nous last byte to end less fsync ms": 8,
    "nous paced p50 ms": 0.8,
    "nous paced p99 ms": 20,
    "nous cpu per 10k deltas s": 0.13,
    "nous idle rss MB": 100,
    "nous peak rss MB": 120,
    "nous turn 1000 cpu ms": 15,
    "nous tool round ms": 8,
    "nous replay process ms": 2500,
    "nous serve import ms": 300,
    "nous ping p50 ms": 0.6,
    "nous ping p99 ms": 10,
    "nous get_state p50 ms": 0.8,
    "nous get_state p99 ms": 15,
    "nous get_messages p50 ms": 4,
    "nous get_messages p99 ms": 20,
    "nous list_sessions p50 ms": 4,
    "nous list_sessions p99 ms": 20,
    "nous bytes written per turn kB": 70,
}
"""At most this, whatever else the machine does."""

LEAST_BUDGETS: Final[Mapping[str, float]] = {
    "nous deltas per s": 50_000,
    "nous eight sessions ratio": 0.4,
}
"""At least this."""


def check_budgets(medians: Mapping[str, float]) -> list[tuple[bool, str]]:
    """Return for each budget whether it is kept, and a line that says so; one that was not measured is not."""
    verdicts = []
    for budgets, is_most in ((BUDGETS, True), (LEAST_BUDGETS, False)):
        for figure, bound in budgets.items():
            found = medians.get(figure)
            kept = found is not None and (found <= bound if is_most else found >= bound)
            said = "not measured" if found is None else f"{found:.3f}"
            verdicts.append((kept, f"{figure}: {said}, {'at most' if is_most else 'at least'} {bound:g}"))
    return verdicts


def target_of(figure: str) -> str:
    """Return a figure's target as it stands in the table, or ``""``."""
    if figure in TARGETS:
        return f"<= {TARGETS[figure]:g}"
    return f">= {LEAST_TARGETS[figure]:g}" if figure in LEAST_TARGETS else ""
