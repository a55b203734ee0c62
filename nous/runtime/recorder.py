"""Writes a run's trace: every input, event and effect, in the order the engine saw and said them.

Source: docs/runtime-trace.md.  One write per step; an input that its event holds whole is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from nous.engine.effects import Effect
from nous.engine.emitter import Event
from nous.engine.inputs import Input, Stamp
from nous.engine.record import effect_line, input_line
from nous.store.sync_job import SyncJob
from nous.store.trace_file import TraceWriter
from nous.store.trace_lines import TraceCounts, TraceEnd

_encode: Final = msgspec.json.Encoder().encode


class Recorder:
    """Counts and writes.  Every method may raise ``io_failure``: then the trace is what was written before."""

    def __init__(self, sink: TraceWriter) -> None:
        self._sink = sink
        self.inputs = 0
        self.effects = 0
        self.seq = 0

    @property
    def offset(self) -> int:
        return self._sink.offset

    def header(self, header: dict[str, object]) -> None:
        self._sink.append(_encode({"type": "trace.header", **header}) + b"\n")

    def step(self, stamp: Stamp, item: Input | None, events: Sequence[Event], effects: Sequence[Effect]) -> None:
        """Write one step; ``item`` is None where the input is elided."""
        parts: list[bytes] = []
        if item is not None:
            self.inputs += 1
            parts.append(input_line(self.inputs, self.seq, stamp, item))
        if events:
            parts.extend([e.line for e in events])
            self.seq = events[-1].seq
        for effect in effects:
            self.effects += 1
            parts.append(effect_line(self.effects, effect))
        if parts:
            self._sink.append(b"".join(parts))

    def sync(self) -> None:
        """Make what was written durable.  Blocks."""
        self._sink.sync()

    def begin_sync(self) -> SyncJob:
        """Return what makes durable what was written."""
        return self._sink.begin_sync()

    def finish(self, status: str, ended_at: str) -> None:
        """Write the last line.  Not yet synced."""
        counts = TraceCounts(inputs=self.inputs, events=self.seq, effects=self.effects)
        self._sink.write_end(TraceEnd(status=status, ended_at=ended_at, counts=counts))

    def release(self) -> None:
        """Close the file: nothing more will be written or synced."""
        self._sink.release()
