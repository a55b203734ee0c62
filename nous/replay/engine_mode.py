"""Replays a trace through a fresh engine and compares every byte it says: no daemon, no task, no clock."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Final

from nous.engine.machine import RunMachine
from nous.engine.record import effect_line
from nous.replay.judge import judge
from nous.replay.recording import Header, Recorded, Said, read_lines
from nous.replay.report import Divergence, Place, Report, find_difference
from nous.store.trace_lines import BrokenTraceError, TraceCounts, TraceEnd, event_head

EVENTS_SHOWN_BEFORE: Final = 5


def replay_in_engine(path: Path) -> Report:
    """Return the verdict on one file.  Never raises for anything the file holds."""
    return judge(path, "engine", lambda header, end: EngineReplay(header).compare(path, end))


class EngineReplay:
    """One pass over a trace: inputs go into the engine, what it says is held against what follows."""

    def __init__(self, header: Header) -> None:
        self._machine = RunMachine(header.spec)
        self._actual: deque[bytes] = deque()
        self._asked = 0
        self._inputs = 0
        self._effects = 0
        self._seq = 0
        self._before: deque[bytes] = deque(maxlen=EVENTS_SHOWN_BEFORE)

    def compare(self, path: Path, end: TraceEnd) -> Divergence | None:
        """Return the first difference, or None.  An interrupted trace is compared up to where it was cut.

        Raises :class:`BrokenTraceError` for a line that is none of a trace, or if the counts at the end are not true.
        """
        for recorded in read_lines(path):
            found = self._take(recorded)
            if found is not None:
                return found
        if not end.is_cut:
            if self._actual:
                return self._difference(None, self._actual[0], "end")
            if self._machine.status != end.status:
                return self._difference(end.status.encode(), str(self._machine.status).encode(), "end")
        counts = TraceCounts(inputs=self._inputs, events=self._seq, effects=self._effects)
        if counts != end.counts:
            raise BrokenTraceError(path.name, 0, f"trace.end: it counts {end.counts}, the file has {counts}")
        return None

    def _take(self, recorded: Recorded | Said) -> Divergence | None:
        if isinstance(recorded, Recorded):
            if self._actual:
                return self._difference(recorded.line, self._actual[0], "input")
            self._step(recorded)
            return None
        actual = self._actual.popleft() if self._actual else None
        if actual != recorded.line:
            return self._difference(recorded.line, actual, recorded.kind)
        if recorded.kind == "event":
            head = event_head(recorded.line)
            self._seq = self._seq if head is None else head.seq
            self._before.append(recorded.line)
        else:
            self._effects += 1
        return None

    def _step(self, recorded: Recorded) -> None:
        self._inputs += recorded.line is not None
        self._machine.receive(recorded.stamp, recorded.item)
        self._actual.extend(event.line[:-1] for event in self._machine.take_events())
        for effect in self._machine.take_effects():
            self._asked += 1
            self._actual.append(effect_line(self._asked, effect)[:-1])

    def _difference(self, expected: bytes | None, actual: bytes | None, what: Place) -> Divergence:
        return find_difference(expected, actual, what, before=tuple(self._before))
