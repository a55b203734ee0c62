"""Clock and ids: everything that makes one run differ from another enters through here."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Reads the time."""

    def now(self) -> str:
        """Wall time, RFC 3339 UTC with milliseconds: ``2026-11-21T10:00:00.000Z``."""
        ...

    def mono_ns(self) -> int:
        """Monotonic time in nanoseconds, for durations."""
        ...


class Ids(Protocol):
    """Makes ids, each unique."""

    def run_id(self) -> str:
        """Return an id for a run."""

    def session_id(self) -> str:
        """Return an id for a session."""

    def entry_id(self) -> str:
        """Return the id of a session entry that belongs to no run."""
        ...
