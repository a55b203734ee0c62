"""When an extension that keeps failing is left alone, and when it is tried again.  Pure: time is an argument.

closed --(LIMIT failures in a row)--> open --(cool-down over, one call tries)--> half_open
half_open --success--> closed      half_open --failure--> open
"""

from __future__ import annotations

from typing import Final, Literal

BreakerState = Literal["closed", "open", "half_open"]

FAILURE_LIMIT: Final = 3
"""So many failures in a row disable an extension."""


class Breaker:
    """One extension's record.  ``failures``: how many there were in a row."""

    def __init__(self, cooldown_ms: int) -> None:
        self.state: BreakerState = "closed"
        self.failures = 0
        self._cooldown_ns = cooldown_ms * 1_000_000
        self._opened_ns = 0

    def admits(self, now_ns: int) -> bool:
        """Say whether a call may be made now.  The first after the cool-down may, alone: it is the trial."""
        if self.state == "open" and now_ns - self._opened_ns >= self._cooldown_ns:
            self.state = "half_open"
            return True
        return self.state == "closed"

    def succeed(self) -> bool:
        """Note that a call was answered; true if that ends a cool-down."""
        recovered = self.state == "half_open"
        # What was under way when the breaker opened says nothing about the calls that come after the cool-down.
        if self.state != "open":
            self.state, self.failures = "closed", 0
        return recovered

    def fail(self, now_ns: int) -> bool:
        """Note a failure; true if it disables the extension (again)."""
        self.failures += 1
        if self.state == "open" or (self.state == "closed" and self.failures < FAILURE_LIMIT):
            return False
        self.state, self._opened_ns = "open", now_ns
        return True

    def forgo(self, now_ns: int) -> None:
        """Note that the call it admitted came to nothing by no fault of the extension (the run was aborted)."""
        if self.state == "half_open":
            self.state = "open"
            self._opened_ns = now_ns - self._cooldown_ns
