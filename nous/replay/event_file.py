"""Files that hold a run's events: traces, exports of both formats, and event lists of any v1 implementation.

Lines end at LF.  In an event list a CR before it, empty lines, and a last line without LF are accepted.  At most one
chunk and one line are held.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from nous.protocol.events import EVENTS, FEATURE_EVENTS
from nous.replay.recording import Header, NotATraceError, read_header
from nous.store.trace_lines import MAX_TRACE_LINE_BYTES, BrokenTraceError, kind_of
from nous.store.trace_reader import iter_line_batches, open_trace

Json = dict[str, Any]

_TRACE_BEGIN = b'{"type":"trace.'


class Line(NamedTuple):
    """A line and its number, from 1.  ``is_whole``: it ends with LF."""

    number: int
    data: bytes
    is_whole: bool = True


def is_trace(path: Path) -> bool:
    """Tell whether a file is meant to be a trace, by how it begins.

    Raises:
        NousError: ``run_not_found``, ``io_failure``.
    """
    with open_trace(path) as fd, open(fd, "rb", closefd=False) as file:
        return file.read(len(_TRACE_BEGIN)) == _TRACE_BEGIN


def read_numbered(path: Path) -> Iterator[Line]:
    """Yield every line, a last one without LF included.

    Raises:
        BrokenTraceError: a line is too long; it was not held.
        NousError: ``run_not_found``, ``io_failure``.
    """
    number = offset = 0
    for batch in iter_line_batches(path):
        for line in batch:
            number += 1
            offset += len(line) + 1
            yield Line(number, line)
    with open_trace(path) as fd, open(fd, "rb", closefd=False) as file:
        file.seek(offset)
        rest = file.read(MAX_TRACE_LINE_BYTES + 1)
    if len(rest) > MAX_TRACE_LINE_BYTES:
        raise BrokenTraceError(path.name, offset, f"a line is longer than {MAX_TRACE_LINE_BYTES} bytes")
    if rest:
        yield Line(number + 1, rest, is_whole=False)


def read_event_list(path: Path) -> Iterator[Line]:
    """Yield the lines of an event list that are not empty.

    Raises:
        NotATraceError: there is none, or the first one is no event of v1.
        NousError: what :func:`read_numbered` raises.
    """
    is_first = True
    for line in read_numbered(path):
        data = line.data.removesuffix(b"\r")
        if not data.strip():
            continue
        if is_first:
            check_first_event(data)
            is_first = False
        yield line._replace(data=data)
    if is_first:
        raise NotATraceError("it is empty")


def check_first_event(line: bytes) -> None:
    """Raise :class:`NotATraceError` unless a line is an event of v1, whatever else may be wrong with it."""
    event = decode_object(line)
    kind = None if event is None else event.get("type")
    if not isinstance(kind, str) or (kind not in EVENTS and kind not in FEATURE_EVENTS):
        raise NotATraceError("it begins with neither a trace header nor an event of protocol v1")


def read_events(path: Path) -> tuple[Header | None, Iterator[Json]]:
    """Return a trace's header and a run's events, from a trace or an event list.  Lines that are no objects are left
    out: what is wrong with a file is for ``validate``.

    Raises:
        NotATraceError: the file is neither; BrokenTraceError: a line is too long.
        NousError: ``run_not_found``, ``io_failure``.
    """
    if is_trace(path):
        return read_header(path), _traced_events(path)
    return None, _listed_events(path)


def _traced_events(path: Path) -> Iterator[Json]:
    for batch in iter_line_batches(path):
        for line in batch:
            if kind_of(line) == "event" and (event := decode_object(line)) is not None:
                yield event


def _listed_events(path: Path) -> Iterator[Json]:
    for line in read_event_list(path):
        event = decode_object(line.data)
        if event is not None:
            yield event


def decode_object(line: bytes) -> Json | None:
    """Return a line's JSON object, or None if it is none."""
    try:
        value = msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
