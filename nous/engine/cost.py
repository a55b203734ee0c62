"""What the model calls of a run cost, as far as that is known for certain.  Pure."""

from __future__ import annotations

from typing import Final

from nous.engine.answer import StreamedAnswer
from nous.ports.model import Prices

_DECIMALS: Final = 9
"""A sum keeps what a single token of the cheapest model costs, and nothing of the noise of binary fractions."""


class Costs:
    """Adds up the costs of calls.  ``total_usd`` is None as soon as one of them is not known: it is never a guess."""

    def __init__(self, prices: Prices | None) -> None:
        self._prices = prices
        self.total_usd: float | None = None if prices is None else 0.0

    def add(self, answer: StreamedAnswer, *, is_whole: bool, is_free: bool = False) -> float | None:
        """Add a call; return what it cost.

        ``is_whole``: it came to its own end, so that what it reported is all that it used.  ``is_free``: it was refused
        before it began.
        """
        if is_free or self.total_usd is None:
            return None
        is_known = is_whole and answer.has_usage and self._prices is not None
        cost = self._prices.cost_usd(answer.usage) if is_known and self._prices is not None else None
        self.total_usd = None if cost is None else round(self.total_usd + cost, _DECIMALS)
        return cost
