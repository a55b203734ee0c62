"""A recording taken apart, for sources that answer from it: by model call, by tool call, by entry, by hook."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from nous.engine.inputs import (
    AbortRequested,
    EntryFailed,
    HookAnswered,
    Input,
    ModelDone,
    ModelFailed,
    ModelProduced,
    OutputChecked,
    PolicyAnswered,
    Stamp,
    ToolDone,
    ToolProgressed,
)
from nous.engine.record import read_input
from nous.ports.model import ModelItem, TextDelta
from nous.replay.recording import Header, Recorded, Said, read_header, read_lines
from nous.replay.sequencer import BEGINNINGS, is_command
from nous.runtime.seams import Admitted
from nous.store.trace_lines import BrokenTraceError

_BYTES_PER_CHARACTER: Final = 6
"""The most that one character takes as JSON (a control character)."""

_CALL_ID_BYTES: Final = 1024
"""More than the id that the engine gives to a tool call of its own."""


class Paced(NamedTuple):
    """A recorded input, and how long after the one before it it came, in seconds."""

    item: Input
    pause_s: float


class _Effect(msgspec.Struct):
    kind: str = ""
    data: dict[str, Any] = {}


_effects: Final = msgspec.json.Decoder(_Effect)


class ReplayedRun:
    """One recording on its way through the daemon, under a run id of its own if the recorded one is taken.

    ``asked`` are the subjects (model calls, tool calls, entries, hooks) of the recorded effects.  ``late`` are inputs
    by their ``id()``: what a model call still delivered after it was stopped; one that is stopped at once will not.

    Raises :class:`BrokenTraceError` and :class:`nous.replay.recording.NotATraceError`.
    """

    def __init__(self, path: Path, run_id: str | None = None) -> None:
        recorded = read_header(path)
        self.run_id = run_id or recorded.run_id
        self.header = _renamed(recorded, recorded.run_id, self.run_id)
        self.asked: set[tuple[str, object]] = set()
        self.late: set[int] = set()
        self.policy: dict[str, PolicyAnswered] = {}
        self.failures: dict[str, EntryFailed] = {}
        self.outputs: dict[str, OutputChecked] = {}
        self.hooks: dict[int, Paced] = {}
        self.model: defaultdict[int, list[Paced]] = defaultdict(list)
        self.tools: defaultdict[str, list[Paced]] = defaultdict(list)
        self.inputs = merge_deltas(self._read(path, recorded.run_id), recorded.spec.limits.max_message_bytes)
        self._sort()

    def _read(self, path: Path, old_id: str) -> list[Recorded]:
        """Read the inputs, and what was asked for.  Ids in them begin with the run's, and follow it."""
        out: list[Recorded] = []
        old, new = old_id.encode(), self.run_id.encode()
        called = stopped = 0
        for line in read_lines(path):
            if isinstance(line, Said):
                if line.kind == "effect":
                    effect = _read_effect(path.name, line.line.replace(old, new))
                    self.asked.update(_subjects(effect))
                    called = effect.data.get("call", called)
                    stopped = called if effect.kind == "stop_model" else stopped
                continue
            recorded = line
            if line.line is not None and old != new:
                _, stamp, item = read_input(line.line.replace(old, new))
                recorded = Recorded(stamp, item, line.line)
            if stopped and getattr(recorded.item, "call", 0) == stopped:
                self.late.add(id(recorded.item))
            out.append(recorded)
        return out

    def _sort(self) -> None:
        before = self.inputs[0].stamp if self.inputs else Stamp("", 0)
        for stamp, item in self.inputs:
            paced = Paced(item, max(0.0, _seconds(stamp) - _seconds(before)))
            if not is_command(item):
                # A command comes by itself as soon as it may: the time before it is waited for behind it.
                before = stamp
            if isinstance(item, ModelProduced | ModelDone | ModelFailed):
                self.model[item.call].append(paced)
            elif isinstance(item, ToolProgressed | ToolDone):
                self.tools[item.tool_call_id].append(paced)
            elif isinstance(item, PolicyAnswered):
                self.policy[item.tool_call_id] = item
            elif isinstance(item, OutputChecked):
                self.outputs[item.entry_id] = item
            elif isinstance(item, EntryFailed):
                self.failures[item.entry_id] = item
            elif isinstance(item, HookAnswered):
                self.hooks[item.operation] = paced


def client_commands(inputs: Sequence[Admitted]) -> list[Admitted]:
    """Return the recorded commands that one client on stdio can send again.

    Those of the daemon itself (end of input, signals, a lost client) it cannot, nor a second command of the same id:
    connections that both used it were two.
    """
    out: list[Admitted] = []
    ids = {a.item.command_id for a in inputs if isinstance(a.item, BEGINNINGS)}
    for admitted in inputs:
        item = admitted.item
        if not is_command(item):
            continue
        if isinstance(item, AbortRequested) and item.reason != "client":
            continue
        command_id = getattr(item, "command_id", None)
        if command_id is not None:
            if not command_id or command_id in ids:
                continue
            ids.add(command_id)
        out.append(admitted)
    return out


def merge_deltas(recorded: Sequence[Recorded], max_message_bytes: int) -> list[Admitted]:
    """Return the inputs in order, deltas that came at the same time as one.

    A merged input must be left out of a trace just as its parts were: near the size limit of a message none is merged
    (see :meth:`nous.engine.modelcall.ModelCalls.elides`).
    """
    out: list[Admitted] = []
    open_delta: ModelProduced | None = None
    call = left = 0
    for stamp, item, line in recorded:
        if isinstance(item, ModelProduced):
            if item.call != call:
                call, left = item.call, max_message_bytes
            left -= sum(map(_most_bytes, item.items))
        if line is not None or not isinstance(item, ModelProduced):
            open_delta = None
            out.append(Admitted(stamp, item))
        elif open_delta is not None and left > 0 and (open_delta.call, out[-1].stamp.ts) == (item.call, stamp.ts):
            open_delta.items.extend(item.items)
        else:
            open_delta = ModelProduced(item.call, [*item.items])
            out.append(Admitted(stamp, open_delta))
    return out


def _most_bytes(item: ModelItem) -> int:
    """Return more than an item can add to the size of its message."""
    if isinstance(item, TextDelta):
        return _BYTES_PER_CHARACTER * len(item.text)
    return len(msgspec.json.encode(item)) + _CALL_ID_BYTES


def _read_effect(name: str, line: bytes) -> _Effect:
    try:
        return _effects.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenTraceError(name, 0, f"effect: {error}") from None


def _subjects(effect: _Effect) -> list[tuple[str, object]]:
    return [(key, value) for key, value in effect.data.items() if isinstance(value, str | int)]


def _seconds(stamp: Stamp) -> float:
    """Return a stamp's time; 0 for one that no clock of ours writes: then nothing is waited for."""
    try:
        return datetime.fromisoformat(stamp.ts).timestamp()
    except ValueError:
        return 0.0


def _renamed(header: Header, old_id: str, new_id: str) -> Header:
    data = msgspec.json.encode(header).replace(old_id.encode(), new_id.encode())
    return msgspec.json.decode(data, type=Header)
