"""Writes a run's trace: every input, event and effect, in the order the engine saw and said them.

Source: docs/runtime-trace.md.  One write per step; an input that its event holds whole is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio
import msgspec
from msgspec import UNSET, UnsetType

from nous.engine.effects import Effect
from nous.engine.emitter import EmittedEvent
from nous.engine.inputs import Input, Stamp
from nous.engine.record import effect_line, input_line
from nous.store.disk import remove_quietly
from nous.store.sync_job import SyncJob
from nous.store.trace_file import TraceWriter
from nous.store.trace_lines import TraceCounts, TraceEnd
from nous.store.trace_repair import close_broken
from nous.system.threads import run_in_thread
from nous.telemetry.log import get_log

log = get_log("runtime")

CLOSE_SECONDS: Final = 2.0
"""How long closing the trace of a failed run may keep its end from being told."""

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
        """How many bytes the trace has."""
        return self._sink.offset

    def header(self, header: dict[str, object]) -> None:
        """Write the trace's first line."""
        self._sink.append(_encode({"type": "trace.header", **header}) + b"\n")

    def step(self, stamp: Stamp, item: Input | None, events: Sequence[EmittedEvent], effects: Sequence[Effect]) -> None:
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

    def finish(self, status: str, ended_at: str, *, untraced_end: bool | UnsetType = UNSET) -> None:
        """Write the last line.  Not yet synced."""
        counts = TraceCounts(inputs=self.inputs, events=self.seq, effects=self.effects)
        self._sink.write_end(TraceEnd(status=status, ended_at=ended_at, counts=counts, untraced_end=untraced_end))

    def release(self) -> None:
        """Close the file: nothing more will be written or synced.  May be repeated.  Never raises."""
        try:
            self._sink.release()
        except OSError as error:
            log.warning("trace_not_closed", trace=self._sink.path, error=repr(error))

    def discard(self) -> None:
        """Remove the trace of a run that was refused.  Never raises."""
        self.release()
        remove_quietly(self._sink.path)

    async def close_broken(self, offset: int, ended_at: str) -> None:
        """Cut the trace at ``offset`` and end it as ``failed``, as far as the disk lets us.  Never raises.

        A disk that hangs is given :data:`CLOSE_SECONDS`.
        """
        self.release()
        with anyio.move_on_after(CLOSE_SECONDS):
            try:
                await run_in_thread(close_broken, Path(self._sink.path), offset, ended_at)
            except Exception as error:
                # The file stays as it is, and a later daemon closes it as interrupted.
                log.warning("trace_not_closed", trace=self._sink.path, error=repr(error))
