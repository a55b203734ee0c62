"""A trace as a recording: its header, and its inputs, events and effects in order.

Inputs that the trace leaves out are made again from the events that hold them, by a rule that needs no engine: after a
recorded ``model_produced`` with k text items the next k ``message_update`` events are its own; every further one stands
for an input of its own.  A summary's model call makes no events, so its items do not count.

Source: docs/runtime-trace.md.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from nous.engine.inputs import Input, ModelProduced, Stamp
from nous.engine.record import read_input
from nous.engine.spec import EMPTY_CONTEXT, RunSpec, chain_digest
from nous.errors import NousError
from nous.ports.model import TextDelta
from nous.protocol.messages import Message
from nous.store.disk import Disk
from nous.store.lines import LineTooLongError, read_first_line
from nous.store.trace_lines import MAX_TRACE_LINE_BYTES, BrokenTraceError, TraceEnd, event_head, kind_of
from nous.store.trace_reader import iter_line_batches, open_trace
from nous.system.ids import is_safe_id

TRACE_VERSION: Final = 1

Capture = Literal["recorded", "elided", "referenced", "missing"]

_HEADER_BEGIN: Final = b'{"type":"trace.header"'
_disk: Final = Disk()


class NotATraceError(NousError):
    """A file that is no trace, or one of a version this nous does not know."""

    def __init__(self, reason: str) -> None:
        super().__init__("invalid_usage", reason)
        self.reason = reason


class Context(Struct, frozen=True, kw_only=True):
    """The messages a run began with: how many, their chained digest, and in an export the messages themselves.

    ``compaction_id`` names the compaction in force, whose summary is then the first of them.
    """

    entries: int
    digest: str
    compaction_id: str = ""
    messages: tuple[Message, ...] | UnsetType = UNSET


class Header(Struct, frozen=True, kw_only=True, tag="trace.header"):
    """The first line of a trace."""

    trace_version: int
    v: str
    run_id: str
    session_id: str
    leaf_id: str
    epoch: str
    created_at: str
    server_version: str
    engine_version: int
    schema_digest: str
    config_digest: str
    provider: dict[str, str]
    active_tools: tuple[str, ...]
    limits: dict[str, int]
    capabilities: tuple[str, ...]
    spec: RunSpec
    context: Context
    capture: dict[str, Capture]
    redaction: str

    @property
    def missing_seams(self) -> tuple[str, ...]:
        """What the recording did not capture."""
        return tuple(seam for seam, state in self.capture.items() if state == "missing")


class Recorded(NamedTuple):
    """An input; ``line`` is None where the trace leaves it out."""

    stamp: Stamp
    item: Input
    line: bytes | None


class Said(NamedTuple):
    """A line the engine caused: an event's or an effect's, without LF."""

    kind: Literal["event", "effect"]
    line: bytes


class _Update(Struct):
    ts: str
    payload: _Delta


class _Delta(Struct):
    delta: str


class _Call(Struct):
    data: _CallData


class _CallData(Struct):
    call: int


_calls: Final = msgspec.json.Decoder(_Call)
_headers: Final = msgspec.json.Decoder(Header)
_ends: Final = msgspec.json.Decoder(TraceEnd)
_updates: Final = msgspec.json.Decoder(_Update)


class _Version(Struct):
    type: Any = None
    trace_version: Any = None


def read_header(path: Path) -> Header:
    """Return a trace's header.

    Raises :class:`NotATraceError`, :class:`BrokenTraceError` for a header that is cut or lacks something, or what
    opening the file raises.
    """
    with open_trace(path) as fd:
        size = os.fstat(fd).st_size
        begin = _disk.read_at(fd, len(_HEADER_BEGIN), 0)
        if not begin:
            raise NotATraceError("it is empty")
        if begin != _HEADER_BEGIN:
            raise NotATraceError("it does not begin with a trace header")
        try:
            line = read_first_line(_disk, fd, size, MAX_TRACE_LINE_BYTES)
        except LineTooLongError:
            raise BrokenTraceError(path.name, 0, f"header: longer than {MAX_TRACE_LINE_BYTES} bytes") from None
    if line is None:
        raise BrokenTraceError(path.name, 0, "cut: the header has no end")
    return parse_header(path.name, line)


def parse_header(name: str, line: bytes) -> Header:
    """Read a header's line.  Raises as :func:`read_header`."""
    try:
        version = msgspec.json.decode(line, type=_Version)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NotATraceError("it does not begin with a trace header") from None
    if version.type != "trace.header" or not isinstance(version.trace_version, int):
        raise NotATraceError("it does not begin with a trace header")
    if version.trace_version > TRACE_VERSION:
        raise NotATraceError(f"trace version {version.trace_version} is newer than this nous knows ({TRACE_VERSION})")
    try:
        header = _headers.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenTraceError(name, 0, f"header: {error}") from None
    # They name files where the run is replayed.
    if not (is_safe_id(header.run_id) and is_safe_id(header.session_id)):
        raise BrokenTraceError(name, 0, "header: an id that is none")
    spec = header.spec
    if (spec.run_id, spec.session_id, spec.leaf_id) != (header.run_id, header.session_id, header.leaf_id):
        raise BrokenTraceError(name, 0, "header: two runs, sessions or leaves")
    return header


def read_lines(path: Path) -> Iterator[Recorded | Said]:
    """Yield what follows the header, up to the last line: inputs (left out ones made again), events, effects.

    Raises :class:`BrokenTraceError` for a line that is none of these, and for an input that is not at its place.
    """
    reader = _Reader(path.name)
    for batch in iter_line_batches(path):
        for line in batch:
            yield from reader.take(line)


class _Reader:
    """Knows how far a trace has been read: which line this is, which inputs were left out."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._offset = 0
        self._is_header = True
        self._ended = False
        self._inputs = 0
        self._last_event = b""
        self._call = 0
        self._own_updates = 0

    def take(self, line: bytes) -> tuple[Recorded | Said, ...]:
        kind = kind_of(line)
        if self._ended:
            raise self._broken("a line behind trace.end")
        if self._is_header:
            self._is_header = False
            out: tuple[Recorded | Said, ...] = ()
        elif kind == "event":
            out = self._event(line)
        elif kind == "input":
            out = (self._input(line),)
        elif kind == "effect":
            out = (Said("effect", line),)
        elif kind == "end":
            self._ended = True
            out = ()
        else:
            raise self._broken(f"a line of unknown kind: {line[:60]!r}")
        self._offset += len(line) + 1
        return out

    def _event(self, line: bytes) -> tuple[Recorded | Said, ...]:
        self._last_event = line
        said = Said("event", line)
        if b'"type":"message_update"' not in line[:160]:
            return (said,)
        if self._own_updates:
            self._own_updates -= 1
            return (said,)
        return self._left_out(line), said

    def _left_out(self, line: bytes) -> Recorded:
        try:
            update = _updates.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._broken(f"message_update: {error}") from None
        return Recorded(Stamp(update.ts, 0), ModelProduced(self._call, [TextDelta(update.payload.delta)]), None)

    def _input(self, line: bytes) -> Recorded:
        try:
            record, stamp, item = read_input(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._broken(f"input: {error}") from None
        self._inputs += 1
        if record.n != self._inputs:
            raise self._broken(f"input {record.n} stands where input {self._inputs} should")
        head = event_head(self._last_event)
        if record.after_seq != (0 if head is None else head.seq):
            raise self._broken(f"input {record.n} does not stand behind event {record.after_seq}")
        if isinstance(item, ModelProduced):
            self._call = item.call
            self._own_updates = sum(isinstance(i, TextDelta) for i in item.items)
        return Recorded(stamp, item, line)

    def _broken(self, reason: str) -> BrokenTraceError:
        return BrokenTraceError(self._name, self._offset, reason)


def check_seal(path: Path) -> TraceEnd:
    """Return a trace's last line after checking its digest over every byte before it.

    Raises :class:`BrokenTraceError` for a cut trace or one that was changed.
    """
    digest = hashlib.sha256()
    held: bytes | None = None
    offset = 0
    for batch in iter_line_batches(path):
        for line in batch:
            if held is not None:
                digest.update(held + b"\n")
                offset += len(held) + 1
            held = line
    if offset + len(held or b"") + 1 != path.stat().st_size:
        raise BrokenTraceError(path.name, offset, "cut: bytes without a line end stand at its end")
    if held is None or kind_of(held) != "end":
        raise BrokenTraceError(path.name, offset, "cut: there is no trace.end")
    head, mark, seal = held.partition(b',"sha256":"')
    digest.update(head + mark)
    if seal != digest.hexdigest().encode() + b'"}':
        raise BrokenTraceError(path.name, offset, "changed: the sha256 does not fit the bytes before it")
    try:
        return _ends.decode(held)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BrokenTraceError(path.name, offset, f"trace.end: {error}") from None


def context_digest(messages: tuple[Message, ...]) -> str:
    """Return the chained digest of a run's context."""
    digest = EMPTY_CONTEXT
    for message in messages:
        digest = chain_digest(digest, message)
    return digest
