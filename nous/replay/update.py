"""Rewrites what a recording expects: its inputs go through the engine of today, and what that says is expected now.

For changes of behaviour that are meant.  The inputs stay as they are; events and effects are new, what may be left out
is left out anew, and the header names the engine that said it.
"""

from __future__ import annotations

import filecmp
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from nous.engine.inputs import ModelProduced
from nous.engine.machine import RunMachine
from nous.engine.spec import ENGINE_VERSION
from nous.errors import NousError
from nous.protocol.digest import SCHEMA_DIGEST
from nous.replay.engine_mode import replay_in_engine
from nous.replay.judge import examine
from nous.replay.recording import Recorded, read_header, read_lines
from nous.replay.report import Report
from nous.runtime.recorder import Recorder
from nous.store.trace_file import TraceWriter
from nous.store.trace_lines import TraceCounts, TraceEnd
from nous.store.trace_reader import iter_line_batches


class Update(Struct, frozen=True, kw_only=True):
    """What became of one file.

    ``before`` is the verdict on it as it was, with the first difference; ``reason`` says why it could not be updated.
    """

    path: str
    changed: bool
    before: Report
    events: tuple[int, int] = (0, 0)
    effects: tuple[int, int] = (0, 0)
    reason: str | None = None

    @property
    def refused(self) -> bool:
        """Whether the recording was left as it is."""
        return self.reason is not None


def update_recording(path: Path) -> Update:
    """Make the file expect what the engine says now; atomically, and only if it then replays.

    Refuses what is broken, unverified or no trace, and a run that its recorded inputs no longer bring to its end.

    Raises:
        NousError: ``io_failure``: the file could not be replaced, and is as it was.
    """
    before = replay_in_engine(path)
    if before.verdict not in ("identical", "diverged"):
        return Update(path=str(path), changed=False, before=before, reason=f"{before.verdict}: {before.reason}")
    _, end = examine(path)
    try:
        with tempfile.TemporaryDirectory(prefix=".nous-update-", dir=path.parent) as directory:
            try:
                counts = _rewrite(path, _new_header(path, before), end, TraceWriter.create(Path(directory), "new"))
            except _EndlessError as error:
                return Update(path=str(path), changed=False, before=before, reason=error.cause)
            changed = _replace(path, Path(directory) / "new.ndjson")
    except OSError as error:
        raise NousError("io_failure", f"{path}: {error.strerror}") from error
    return Update(
        path=str(path),
        changed=changed,
        before=before,
        events=(end.counts.events, counts.events),
        effects=(end.counts.effects, counts.effects),
    )


class _EndlessError(NousError):
    """The recorded inputs are used up, and the run goes on."""

    def __init__(self) -> None:
        super().__init__("verification_failed", "the recorded inputs do not bring the run to its end: record it anew")


def _rewrite(path: Path, fields: dict[str, Any], end: TraceEnd, sink: TraceWriter) -> TraceCounts:
    recorder = Recorder(sink)
    try:
        recorder.header(fields)
        machine = RunMachine(read_header(path).spec)
        for line in read_lines(path):
            if isinstance(line, Recorded):
                _step(recorder, machine, line)
        status = end.status if end.is_cut else machine.status
        if status is None:
            raise _EndlessError
        recorder.finish(status, end.ended_at, untraced_end=end.untraced_end)
        recorder.sync()
    finally:
        recorder.release()
    return TraceCounts(inputs=recorder.inputs, events=recorder.seq, effects=recorder.effects)


def _step(recorder: Recorder, machine: RunMachine, recorded: Recorded) -> None:
    item = recorded.item
    elided = isinstance(item, ModelProduced) and machine.elides(item.items)
    machine.receive(recorded.stamp, item)
    recorder.step(recorded.stamp, None if elided else item, machine.take_events(), machine.take_effects())


def _new_header(path: Path, before: Report) -> dict[str, Any]:
    """Return the fields of the header; they name today's engine and protocol only if what these say has changed."""
    line = next(batch[0] for batch in iter_line_batches(path))
    fields: dict[str, Any] = msgspec.json.decode(line)
    del fields["type"]
    if before.verdict == "identical" and fields["engine_version"] == ENGINE_VERSION:
        return fields
    return {**fields, "engine_version": ENGINE_VERSION, "schema_digest": SCHEMA_DIGEST}


def _replace(path: Path, new: Path) -> bool:
    """Put the new file in the old one's place if it differs; it must replay before it may."""
    if filecmp.cmp(new, path, shallow=False):
        return False
    after = replay_in_engine(new)
    if after.verdict != "identical":
        raise NousError("internal_error", f"the updated {path.name} does not replay: {after.verdict}")
    new.chmod(stat.S_IMODE(path.stat().st_mode))
    new.replace(path.resolve())
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return True
