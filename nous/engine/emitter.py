"""Numbers events and writes their lines.  ``seq`` counts frozen events; feature events hang after one."""

from __future__ import annotations

import sys
from typing import NamedTuple

from msgspec import Struct

from nous.protocol.bounds import bound_event
from nous.protocol.events import DeltaTemplate, Feature, encode_json, event_line, feature_line


class EmittedEvent(NamedTuple):
    """One event as it goes out: ``line`` is the envelope with its LF; ``feature`` who must have asked for it."""

    type: type[Struct]
    seq: int
    feature: Feature | None
    line: bytes


class Emitter:
    """``max_event_bytes`` bounds each line but those of deltas, which are short by themselves; 0: no bound."""

    def __init__(self, run_id: str, max_event_bytes: int = 0) -> None:
        self._run_id = run_id.encode()
        self._max_bytes = max_event_bytes or sys.maxsize
        self.seq = 0
        self._k = 0
        self.ts = b""
        self.out: list[EmittedEvent] = []

    def emit(self, payload: Struct) -> None:
        """Emit a frozen event: it takes the next ``seq``."""
        self.seq += 1
        self._k = 0
        line = event_line(self._run_id, self.seq, self.ts, payload)
        self.out.append(EmittedEvent(type(payload), self.seq, None, bound_event(line, self._max_bytes)))

    def emit_feature(self, feature: Feature, payload: Struct) -> None:
        """Emit an event for those who asked for ``feature``: it takes the next ``k`` behind the last ``seq``."""
        self._k += 1
        line = feature_line(self._run_id, self.seq, self._k, self.ts, payload)
        self.out.append(EmittedEvent(type(payload), self.seq, feature, bound_event(line, self._max_bytes)))

    def emit_delta(self, kind: type[Struct], template: DeltaTemplate, text: str) -> int:
        """Emit one text delta by its template; return the size of ``text`` as JSON, in bytes."""
        delta = encode_json(text)
        self.seq = seq = self.seq + 1
        self._k = 0
        self.out.append(EmittedEvent(kind, seq, None, template.line(seq, self.ts, delta)))
        return len(delta) - 2
