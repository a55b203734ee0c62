"""From a file to a verdict: what can be said of a recording before it is replayed, and what its replay comes to.

The order of the questions is the order of the verdicts: is it a trace; is it whole and unchanged; does it hold what a
replay needs; does it replay.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from nous.engine.spec import ENGINE_VERSION
from nous.errors import NousError
from nous.protocol.grammar import EventGrammar
from nous.replay.recording import (
    Header,
    NotATraceError,
    Said,
    check_seal,
    context_digest,
    read_header,
    read_lines,
)
from nous.replay.report import Divergence, Mode, Report, Verdict
from nous.store.trace_lines import BrokenTraceError, TraceEnd

Replay = Callable[[Header, TraceEnd], Divergence | None]


class UnverifiedError(NousError):
    """A recording that cannot be replayed whole; ``reason`` names what it lacks."""

    def __init__(self, reason: str) -> None:
        super().__init__("verification_failed", reason)
        self.reason = reason


def judge(path: Path, mode: Mode, replay: Replay) -> Report:
    """Examine a file, then replay it.  Never raises for anything the file holds.

    ``replay`` returns the first difference; it may raise :class:`BrokenTraceError` or :class:`UnverifiedError`.
    """
    started = time.monotonic_ns()
    report = _judge(path, mode, replay)
    return msgspec.structs.replace(report, elapsed_ms=(time.monotonic_ns() - started) // 1_000_000)


def examine(path: Path) -> tuple[Header, TraceEnd]:
    """Return the two ends of a recording that can be replayed.

    Raises :class:`NotATraceError`, :class:`BrokenTraceError`, :class:`UnverifiedError`, or what opening it raises.
    """
    header = read_header(path)
    end = check_seal(path)
    check_context(path.name, header)
    if header.missing_seams:
        raise UnverifiedError(f"missing: {', '.join(header.missing_seams)}")
    return header, end


def _judge(path: Path, mode: Mode, replay: Replay) -> Report:
    header: Header | None = None
    end: TraceEnd | None = None
    divergence: Divergence | None = None
    reason: str | None = None
    verdict: Verdict
    try:
        header, end = examine(path)
        divergence = replay(header, end)
        verdict = "identical" if divergence is None else "diverged"
        if divergence is not None:
            reason = other_engine(header)
            check_grammar(path)
    except NotATraceError as error:
        verdict, reason = "not_a_trace", error.reason
    except BrokenTraceError as error:
        verdict, reason, divergence = "broken", error.reason, None
    except UnverifiedError as error:
        verdict, reason = "unverified", error.reason
    except NousError as error:
        if header is not None:
            # The replay itself could not be carried out: that says nothing about the file.
            raise
        verdict, reason = "not_a_trace", error.cause or str(error)
    return Report(
        path=str(path),
        verdict=verdict,
        mode=mode,
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


def check_grammar(path: Path) -> None:
    """Check a recording's events against the grammar of a run.

    Raises :class:`BrokenTraceError` with the first rule that does not hold: a file that breaks one was not written by
    any engine, so its difference from one says nothing about behaviour.
    """
    grammar = EventGrammar()
    for line in read_lines(path):
        if isinstance(line, Said) and line.kind == "event":
            violation = grammar.feed(line.line)
            if violation is not None:
                raise BrokenTraceError(path.name, 0, f"grammar: event {violation}")


def other_engine(header: Header) -> str | None:
    """Say that another version of the engine made the recording, if one did: the likely reason of a difference."""
    if header.engine_version == ENGINE_VERSION:
        return None
    return f"recorded by engine version {header.engine_version}, replayed by {ENGINE_VERSION}"
