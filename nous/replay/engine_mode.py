"""Replays a trace through a fresh engine and compares every byte it says: no daemon, no task, no clock."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Final

import msgspec

from nous.engine.machine import RunMachine
from nous.engine.record import effect_line
from nous.engine.spec import ENGINE_VERSION
from nous.errors import NousError
from nous.protocol.grammar import EventGrammar
from nous.replay.recording import (
    Header,
    NotATraceError,
    Recorded,
    Said,
    check_seal,
    context_digest,
    read_header,
    read_lines,
)
from nous.replay.report import Divergence, Place, Report, Verdict, find_json_path, shown
from nous.store.trace_lines import BrokenTraceError, TraceEnd, event_head

EVENTS_SHOWN_BEFORE: Final = 5


def replay_in_engine(path: Path) -> Report:
    """Return the verdict on one file.  Never raises for anything the file holds."""
    started = time.monotonic_ns()
    report = _judge(path)
    elapsed_ms = (time.monotonic_ns() - started) // 1_000_000
    return msgspec.structs.replace(report, elapsed_ms=elapsed_ms)


def _judge(path: Path) -> Report:
    try:
        header = read_header(path)
        end = check_seal(path)
        check_context(path.name, header)
        if header.missing_seams:
            return _report(path, "unverified", header, reason=f"missing: {', '.join(header.missing_seams)}")
        replayed = EngineReplay(header)
        divergence = replayed.compare(path, end)
        if divergence is None:
            return _report(path, "identical", header, end)
        broken_rule = find_broken_rule(path)
        if broken_rule is not None:
            return _report(path, "broken", header, reason=broken_rule)
        reason = None
        if header.engine_version != ENGINE_VERSION:
            reason = f"recorded by engine version {header.engine_version}, replayed by {ENGINE_VERSION}"
        return _report(path, "diverged", header, end, reason=reason, divergence=divergence)
    except NotATraceError as error:
        return _report(path, "not_a_trace", None, reason=error.reason)
    except BrokenTraceError as error:
        return _report(path, "broken", None, reason=error.reason)
    except NousError as error:
        return _report(path, "not_a_trace", None, reason=str(error))


def _report(
    path: Path,
    verdict: Verdict,
    header: Header | None,
    end: TraceEnd | None = None,
    *,
    reason: str | None = None,
    divergence: Divergence | None = None,
) -> Report:
    return Report(
        path=str(path),
        verdict=verdict,
        mode="engine",
        run_id="" if header is None else header.run_id,
        status="" if end is None else end.status,
        events=0 if end is None else end.counts.events,
        reason=reason,
        divergence=divergence,
    )


def check_context(name: str, header: Header) -> None:
    """Check that the messages a trace carries are those its digest stands for.  Raises :class:`BrokenTraceError`."""
    context = header.context
    if context.digest != header.spec.context_digest:
        raise BrokenTraceError(name, 0, "header: two digests of the context")
    if isinstance(context.messages, tuple):
        if len(context.messages) != context.entries:
            raise BrokenTraceError(name, 0, "header: the context lacks messages")
        if context_digest(context.messages) != context.digest:
            raise BrokenTraceError(name, 0, "header: the context's messages do not fit its digest")


def find_broken_rule(path: Path) -> str | None:
    """Return the first rule of the event grammar that a trace's events break, if any."""
    grammar = EventGrammar()
    for line in read_lines(path):
        if isinstance(line, Said) and line.kind == "event":
            violation = grammar.feed(line.line)
            if violation is not None:
                return f"grammar: {violation}"
    return None


class EngineReplay:
    """One pass over a trace: inputs go into the engine, what it says is held against what follows."""

    def __init__(self, header: Header) -> None:
        self._machine = RunMachine(header.spec)
        self._actual: deque[bytes] = deque()
        self._effects = 0
        self._seq = 0
        self._inputs = 0
        self._before: deque[str] = deque(maxlen=EVENTS_SHOWN_BEFORE)

    def compare(self, path: Path, end: TraceEnd) -> Divergence | None:
        """Return the first difference, or None.  An interrupted trace is compared up to where it was cut."""
        for recorded in read_lines(path):
            found = self._take(recorded)
            if found is not None:
                return found
        if self._actual and end.status != "interrupted":
            return self._difference(None, self._actual[0], "end")
        if self._machine.status != (None if end.status == "interrupted" else end.status):
            return self._difference(end.status.encode(), str(self._machine.status).encode(), "end")
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
            self._before.append(recorded.line.decode("utf-8", "replace")[:200])
        return None

    def _step(self, recorded: Recorded) -> None:
        self._machine.receive(recorded.stamp, recorded.item)
        self._actual.extend(event.line[:-1] for event in self._machine.take_events())
        for effect in self._machine.take_effects():
            self._effects += 1
            self._actual.append(effect_line(self._effects, effect)[:-1])

    def _difference(self, expected: bytes | None, actual: bytes | None, what: Place) -> Divergence:
        head = event_head(expected or b"") or event_head(actual or b"")
        return Divergence(
            seq=self._seq if head is None else head.seq,
            what=what,
            expected=shown(expected),
            actual=shown(actual),
            json_path=find_json_path(expected, actual) if expected and actual else "$",
            before=tuple(self._before),
        )
