"""Checks a file by itself: is it a trace or an event list, is it whole and unchanged, do its events keep the grammar.

Nothing is replayed.  Every finding names a rule and a line; the rules for events are those of
:mod:`nous.protocol.grammar`.  Source: docs/runtime-trace.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from nous.engine.record import read_input
from nous.errors import EXIT_OK, EXIT_USAGE, EXIT_VERIFICATION, NousError, bound_text
from nous.protocol.grammar import RULES as EVENT_RULES
from nous.protocol.grammar import EventGrammar, Violation
from nous.replay.event_file import is_trace, read_event_list, read_numbered
from nous.replay.judge import check_context
from nous.replay.recording import Header, NotATraceError, parse_header
from nous.store.trace_lines import BrokenTraceError, TraceCounts, TraceEnd, event_head, kind_of

Verdict = Literal["valid", "broken", "cut", "not_a_trace"]

EXIT_BY_VERDICT: Final[dict[Verdict, int]] = {
    "valid": EXIT_OK,
    "broken": EXIT_VERIFICATION,
    "cut": EXIT_VERIFICATION,
    "not_a_trace": EXIT_USAGE,
}

RULES: Final[dict[str, str]] = {
    **EVENT_RULES,
    "trace.header": "A trace begins with its header, and the header is whole.",
    "trace.context": "The context in the header is the one that its digests stand for.",
    "trace.run_id": "The events are of the run that the header names.",
    "trace.line": "A line is an input, an event, an effect, or the end; none is longer than 64 MiB.",
    "trace.input": "Inputs can be read, count from 1, and name the event before them.",
    "trace.effect": "Effects can be read, and count from 1.",
    "trace.after_end": "Nothing follows trace.end.",
    "trace.counts": "trace.end counts the lines before it.",
    "trace.seal": "The sha256 of trace.end is that of every byte before it.",
}
"""Every rule by its name, which is stable."""

_SEAL_MARK: Final = b',"sha256":"'

MAX_FINDINGS: Final = 20
"""So many are told; the others are counted."""


class TraceViolation(Struct, frozen=True):
    """A rule that does not hold, the line where, and what stands there."""

    line: int
    rule: str
    detail: str


class Validation(Struct, frozen=True, kw_only=True):
    """What was found of one file.

    ``cut``: no rule is broken, but a trace has no end; ``events`` is how far it was read.  ``status`` is the run's.
    """

    path: str
    verdict: Verdict
    kind: Literal["trace", "events", ""] = ""
    run_id: str = ""
    status: str = ""
    events: int = 0
    reason: str | None = None
    findings: tuple[TraceViolation, ...] = ()
    more_findings: int = 0

    @property
    def exit_code(self) -> int:
        """The exit code for the verdict."""
        return EXIT_BY_VERDICT[self.verdict]


def validate(path: Path) -> Validation:
    """Check one file.  Never raises for anything the file holds, or if it is not there."""
    try:
        check: _TraceCheck | _ListCheck = _TraceCheck(path) if is_trace(path) else _ListCheck(path)
        return check.run()
    except NotATraceError as error:
        return Validation(path=str(path), verdict="not_a_trace", reason=error.reason)
    except NousError as error:
        reason = "there is no such file" if error.code == "run_not_found" else error.cause or str(error)
        return Validation(path=str(path), verdict="not_a_trace", reason=reason)


class _Findings:
    def __init__(self) -> None:
        self.kept: list[TraceViolation] = []
        self.more = 0

    def add(self, line: int, rule: str, detail: str) -> None:
        if len(self.kept) < MAX_FINDINGS:
            self.kept.append(TraceViolation(line, rule, bound_text(detail, 512)))
        else:
            self.more += 1

    def add_all(self, violations: Iterable[Violation]) -> None:
        for violation in violations:
            self.add(violation.line, violation.rule, violation.detail)


class _ListCheck:
    """Checks an event list, leniently: any implementation of v1 may have written it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._findings = _Findings()

    def run(self) -> Validation:
        grammar = EventGrammar(lenient=True)
        count = 0
        try:
            for line in read_event_list(self._path):
                count += 1
                violation = grammar.feed(line.data, line.number)
                self._findings.add_all(() if violation is None else (violation,))
            self._findings.add_all(grammar.finish())
        except BrokenTraceError as error:
            if not count:
                raise NotATraceError(error.reason) from None
            self._findings.add(count + 1, "trace.line", error.reason)
        return Validation(
            path=str(self._path),
            verdict="broken" if self._findings.kept else "valid",
            kind="events",
            events=count,
            findings=tuple(self._findings.kept),
            more_findings=self._findings.more,
        )


class _TraceCheck:
    """Checks a trace line by line, in one pass and in memory that does not depend on its length."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._findings = _Findings()
        self._grammar = EventGrammar()
        self._digest = hashlib.sha256()
        self._header: Header | None = None
        self._end: TraceEnd | None = None
        self._line = 0
        self._seq = 0
        self._inputs = 0
        self._effects = 0

    def run(self) -> Validation:
        """Check all of it.  Raises :class:`NotATraceError` if it is none, or a newer one."""
        try:
            for line in read_numbered(self._path):
                if line.is_whole or self._end is not None:
                    self._line = line.number
                    self._check(line.data)
        except _UnreadableHeaderError:
            pass
        except BrokenTraceError as error:
            self._findings.add(self._line + 1, "trace.line", error.reason)
        return self._report()

    def _check(self, line: bytes) -> None:
        if self._end is not None:
            self._note("trace.after_end", _shown(line))
            return
        kind = kind_of(line)
        if kind == "end" and self._header is not None:
            self._check_end(line)
            return
        self._digest.update(line + b"\n")
        if self._header is None:
            self._header = self._read_header(line)
        elif kind == "event":
            self._check_event(line)
        elif kind == "input":
            self._check_input(line)
        elif kind == "effect":
            self._check_effect(line)
        else:
            self._note("trace.line", _shown(line))

    def _note(self, rule: str, detail: str) -> None:
        self._findings.add(self._line, rule, detail)

    def _read_header(self, line: bytes) -> Header:
        """Return the header.  Raises :class:`NotATraceError`; without one that can be read nothing else is."""
        try:
            header = parse_header(self._path.name, line)
        except BrokenTraceError as error:
            self._note("trace.header", error.reason.removeprefix("header: "))
            raise _UnreadableHeaderError from None
        try:
            check_context(self._path.name, header)
        except BrokenTraceError as error:
            self._note("trace.context", error.reason)
        return header

    def _check_event(self, line: bytes) -> None:
        assert self._header is not None
        head = event_head(line)
        if head is not None:
            self._seq = head.seq
        if not line.startswith(b'{"v":"1","id":"%b.' % self._header.run_id.encode()):
            self._note("trace.run_id", f"{_shown(line)} in the trace of {self._header.run_id}")
        violation = self._grammar.feed(line, self._line)
        self._findings.add_all(() if violation is None else (violation,))

    def _check_input(self, line: bytes) -> None:
        self._inputs += 1
        try:
            record, _, _ = read_input(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._note("trace.input", str(error))
            return
        if record.n != self._inputs:
            self._note("trace.input", f"input {record.n} stands where input {self._inputs} should")
            self._inputs = record.n
        if record.after_seq != self._seq:
            self._note("trace.input", f"input {record.n} came after event {record.after_seq}, not {self._seq}")

    def _check_effect(self, line: bytes) -> None:
        self._effects += 1
        try:
            effect = msgspec.json.decode(line, type=_Effect)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._note("trace.effect", str(error))
            return
        if effect.n != self._effects:
            self._note("trace.effect", f"effect {effect.n} stands where effect {self._effects} should")
            self._effects = effect.n

    def _check_end(self, line: bytes) -> None:
        head, mark, seal = line.partition(_SEAL_MARK)
        self._digest.update(head + mark)
        try:
            self._end = end = msgspec.json.decode(line, type=TraceEnd)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._note("trace.seal", str(error))
            self._end = TraceEnd(status="", ended_at="", counts=TraceCounts())
            return
        if not end.is_cut:
            self._findings.add_all(self._grammar.finish())
        counts = TraceCounts(inputs=self._inputs, events=self._seq, effects=self._effects)
        if end.counts != counts:
            self._note("trace.counts", f"{_counted(end.counts)}; there are {_counted(counts)}")
        if seal != self._digest.hexdigest().encode() + b'"}':
            self._note("trace.seal", "the file was changed")

    def _report(self) -> Validation:
        kept = tuple(self._findings.kept)
        verdict: Verdict = "broken" if kept else "cut" if self._end is None else "valid"
        return Validation(
            path=str(self._path),
            verdict=verdict,
            kind="trace",
            run_id="" if self._header is None else self._header.run_id,
            status="" if self._end is None else self._end.status,
            events=self._seq,
            reason=f"it has no end; its events were read up to line {self._line}" if verdict == "cut" else None,
            findings=kept,
            more_findings=self._findings.more,
        )


class _UnreadableHeaderError(Exception):
    """The rest of the file cannot be understood."""


class _Effect(Struct):
    n: int
    kind: str
    digest: str


def _counted(counts: TraceCounts) -> str:
    return f"{counts.inputs} inputs, {counts.events} events, {counts.effects} effects"


def _shown(line: bytes) -> str:
    return bound_text(line[:80].decode("utf-8", "replace"), 80) or "an empty line"
