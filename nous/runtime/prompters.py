"""Which process asked for which run: a run that has ended is shown only to the process that asked for it.

A script that sends a prompt and subscribes afterwards may come when its run is over already; any other subscriber that
was shown that run would take it for the one that is active.  Source: protocol v1, section 6.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from msgspec import Struct

from nous.ports.system import Clock

RECENT_RUN_SECONDS: Final = 5.0
"""For so long after its end a run is still shown to the process that asked for it."""


class _Asked(Struct):
    run_id: str
    ended_ns: int | None = None


class Prompters:
    """For each process, the run that it asked for last, until it has seen the end of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asked: dict[int, _Asked] = {}

    def note_prompt(self, pid: int | None, run_id: str) -> None:
        """Note that a process asked for a run (None: the system does not tell which process)."""
        if pid is not None:
            self._asked[pid] = _Asked(run_id)

    def note_end(self, run_id: str, seen_by: Collection[int]) -> None:
        """Note that a run has ended, and which processes were told so."""
        now = self._clock.mono_ns()
        for pid, asked in tuple(self._asked.items()):
            if asked.run_id == run_id:
                asked.ended_ns = now
            if _is_over(asked, now) or (asked.run_id == run_id and pid in seen_by):
                del self._asked[pid]

    def note_seen(self, pid: int | None, run_id: str) -> None:
        """Note that a process has seen the end of a run."""
        if pid is not None and pid in self._asked and self._asked[pid].run_id == run_id:
            del self._asked[pid]

    def unseen(self, pid: int | None) -> str | None:
        """Return the run that a process asked for last, if that ended a moment ago and the process was not told."""
        asked = None if pid is None else self._asked.get(pid)
        if asked is None or asked.ended_ns is None or _is_over(asked, self._clock.mono_ns()):
            return None
        return asked.run_id


def _is_over(asked: _Asked, now_ns: int) -> bool:
    return asked.ended_ns is not None and now_ns - asked.ended_ns > RECENT_RUN_SECONDS * 1e9
