"""What the lines of a trace look like from outside: told apart by how they begin; only the two ends are decoded.

An event stands in a trace exactly as it went to the client, so its line begins ``{"v":"1","id":"<run_id>.<seq>``,
and a feature event's with another number behind; everything else begins ``{"type":"trace.``.  A line cannot begin
inside another: JSON has no raw LF in its strings.
"""

import re
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from nous.errors import NousError
from nous.protocol.events import FEATURE_EVENTS

LineKind = Literal["event", "header", "input", "effect", "end", "unknown"]

MAX_TRACE_LINE_BYTES: Final = 64 * 1024 * 1024
"""The longest line of a trace: no longer one is written, and none is read.  A command's line is at most 63 MiB."""

EVENT_PREFIX: Final = b'{"v":"1","id":"'
_EVENT: Final = re.compile(rb'\{"v":"1","id":"[^".]+\.(\d{1,18})(\.\d{1,18})?","type":"([a-z_]{1,64})"')
_KINDS: Final[tuple[tuple[bytes, LineKind], ...]] = (
    (EVENT_PREFIX, "event"),
    (b'{"type":"trace.input"', "input"),
    (b'{"type":"trace.effect"', "effect"),
    (b'{"type":"trace.header"', "header"),
    (b'{"type":"trace.end"', "end"),
)
_FEATURES: Final = {name.encode(): feature for name, (feature, _) in FEATURE_EVENTS.items()}


class TraceHeader(Struct, frozen=True, kw_only=True, tag="trace.header"):
    """The fields of a trace's first line that say whose it is; it has more."""

    trace_version: int
    run_id: str
    session_id: str
    epoch: str
    created_at: str


class TraceCounts(Struct, frozen=True, kw_only=True):
    """How many lines of each sort a trace has.  ``events`` counts those with a ``seq``: it is the last one."""

    inputs: int = 0
    events: int = 0
    effects: int = 0


class TraceEnd(Struct, frozen=True, kw_only=True, tag="trace.end"):
    """A trace's last line but for its digest.  Who closes a trace may subclass it to say more.

    ``untraced_end``: the run failed because its trace could not be written, and its ``agent_end`` is not in it.
    """

    status: str
    ended_at: str
    counts: TraceCounts
    untraced_end: bool | UnsetType = UNSET

    @property
    def is_cut(self) -> bool:
        """Whether the trace ends before its run's last event."""
        return self.status == "interrupted" or self.untraced_end is True


class BrokenTraceError(NousError):
    """A trace cannot be read: which file, near which byte, and why."""

    def __init__(self, name: str, offset: int, reason: str) -> None:
        super().__init__("verification_failed", f"{name}, byte {offset}: {reason}")
        self.offset = offset
        self.reason = reason


class EventHead(NamedTuple):
    """What is told about an event without decoding it.

    ``seq`` is its own or, for a feature event, that of the frozen event before it; ``feature`` is ``""`` for a
    frozen event.
    """

    seq: int
    feature: str

    def is_wanted(self, after_seq: int, features: frozenset[str]) -> bool:
        """Tell whether a reader that has seen everything up to ``after_seq`` asked for this."""
        if self.feature:
            return self.seq >= after_seq and self.feature in features
        return self.seq > after_seq


def end_line_head(end: TraceEnd) -> bytes:
    """Return the last line of a trace up to the value of its ``sha256``, which covers every byte before it."""
    return msgspec.json.encode(end)[:-1] + b',"sha256":"'


def kind_of(line: bytes) -> LineKind:
    """Tell what a line is by how it begins."""
    for prefix, kind in _KINDS:
        if line.startswith(prefix):
            return kind
    return "unknown"


def event_head(line: bytes) -> EventHead | None:
    """Return what an event line says about its place, or ``None`` if the line is no event."""
    match = _EVENT.match(line)
    if match is None:
        return None
    seq, k, name = match.groups()
    return EventHead(int(seq), "" if k is None else _FEATURES.get(name, "unknown"))
