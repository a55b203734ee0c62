"""What model calls used, and what that cost as far as it is known."""

from __future__ import annotations

from typing import Final, NamedTuple

from msgspec import UNSET, UnsetType

from nous.protocol.messages import Usage

_DECIMALS: Final = 9


class Spent(NamedTuple):
    """``cost_usd`` None: some part of it is not known."""

    usage: Usage
    cost_usd: float | None

    def plus(self, other: Spent) -> Spent:
        is_known = self.cost_usd is not None and other.cost_usd is not None
        cost = round((self.cost_usd or 0.0) + (other.cost_usd or 0.0), _DECIMALS) if is_known else None
        return Spent(self.usage.plus(other.usage), cost)

    @property
    def shown_cost(self) -> float | UnsetType:
        return UNSET if self.cost_usd is None else self.cost_usd


NOTHING_SPENT: Final = Spent(Usage(), 0.0)
