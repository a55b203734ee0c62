"""When a model call that failed in passing is made again, and how long is waited before.

A failure passes if its category is ``network_transient`` and nothing of the answer was shown.  The pauses double up to
a bound, each shortened by up to a half, so that many runs that failed together do not come back together; a provider's
own Retry-After is waited for in full.  What is drawn comes from the run's seed and the call's number: a replay waits
for the same.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from msgspec import UNSET

from nous.engine.effects import StartTimer
from nous.engine.inputs import ModelFailed
from nous.engine.run_state import RunState
from nous.engine.spec import EngineLimits
from nous.engine.steps import Await
from nous.engine.transitions import Phase
from nous.errors import WIRE_CODES
from nous.protocol.events import WarningCode

_DRAWS: Final = 1 << 16


def is_transient(code: str) -> bool:
    """Return whether an error code's category is ``network_transient``."""
    return code in WIRE_CODES and WIRE_CODES[code].category == "network_transient"


def backoff_ms(limits: EngineLimits, attempt: int, call: int) -> int:
    """Return how long to wait before the ``attempt``-th retry (from 1) of what failed as model call ``call``."""
    whole_ms = min(limits.retry_first_delay_ms << min(attempt - 1, 32), limits.retry_max_delay_ms)
    digest = hashlib.sha256(f"{limits.retry_seed}:{call}".encode()).digest()
    drawn = int.from_bytes(digest[:2], "big")
    return whole_ms - whole_ms * drawn // (2 * _DRAWS)


class RetryPart:
    """Part of a run machine: counts the retries since a model last began to answer."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._limits = run.spec.limits
        self._made = 0
        self._waited_ms = 0

    def reset(self) -> None:
        """The model answers: what fails from now on is another failure."""
        self._made = self._waited_ms = 0

    def begin(self, item: ModelFailed) -> Await | None:
        """Wait before the call is made again.  None: it is not made again, and the caller fails the run."""
        limits = self._limits
        if not limits.max_retries or not is_transient(item.code):
            return None
        delay_ms = max(backoff_ms(limits, self._made + 1, item.call), item.retry_after_ms or 0)
        if self._made >= limits.max_retries or self._waited_ms + delay_ms > limits.retry_total_ms:
            self._warn(item, "provider_retry_exhausted", "The model call is not made again.")
            return None
        self._made += 1
        self._warn(item, "provider_retry", "The model call failed; it is made again.", delay_ms=delay_ms)
        self._waited_ms += delay_ms
        self._run.effects.append(StartTimer("provider_retry", delay_ms))
        return Await(Phase.AWAITING_RETRY)

    def _warn(self, item: ModelFailed, code: WarningCode, message: str, **fields: Any) -> None:
        """Say which retry it is (or how many there were), of how many, and what was waited so far."""
        self._run.warn(
            code,
            message,
            cause=item.code if item.cause is None else f"{item.code}: {item.cause}",
            attempt=self._made,
            limit=self._limits.max_retries,
            waited_ms=self._waited_ms,
            retry_after_ms=UNSET if item.retry_after_ms is None else item.retry_after_ms,
            **fields,
        )
