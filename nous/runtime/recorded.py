"""Answers from what was written to disk: a run's events, the list of runs, an export.

A client that died, or a daemon that restarted, loses nothing that was published (protocol v1, section 6).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET

from nous.errors import NousError
from nous.protocol import commands as c
from nous.protocol.bounds import bound_event
from nous.protocol.responses import Events, Runs, RunSummary, Sessions, TraceAnswer
from nous.runtime.pages import ENVELOPE_BYTES
from nous.store.trace_lines import BrokenTraceError
from nous.store.trace_reader import TraceSummary, iter_events, scan
from nous.store.trace_repair import close_broken
from nous.system.ids import is_safe_id
from nous.system.threads import run_in_thread

if TYPE_CHECKING:
    from nous.runtime.daemon import Daemon
    from nous.runtime.handlers import Call

DEFAULT_RUNS: Final = 50
MAX_RUNS: Final = 500

_PLACE: Final = re.compile(rb'^\{"v":"1","id":"[^"]*?\.(\d+)(?:\.(\d+))?","type"')


async def get_events(call: Call, payload: c.GetEvents) -> Events:
    """Return a page of a run's events, from its trace."""
    daemon = call.connection.daemon
    if not daemon.knows_run(payload.run_id):
        raise NousError("run_not_found")
    return await run_in_thread(_read_page, daemon, payload)


def _read_page(daemon: Daemon, payload: c.GetEvents) -> Events:
    path = trace_path(daemon, payload.run_id)
    run = daemon.runs.get(payload.run_id)
    # What is on disk but not published yet will come on the live stream.
    end = None if run is None else run.published_offset
    status = "running" if run is not None else _status(daemon, scan(path, daemon.is_dead))
    budget = daemon.settings.daemon.max_event_bytes - ENVELOPE_BYTES
    after = (payload.after_seq or 0, payload.after_k or 0)
    last = after
    out: list[msgspec.Raw] = []
    for place, line in _lines_after(path, after, frozenset(payload.features or ()), end):
        # The first one is shortened if it is longer than a page: a page always advances.
        shown = line if out else bound_event(line, budget)
        budget -= len(shown) + 1
        if (budget < 0 and out) or len(out) == payload.limit:
            return _page(payload.run_id, out, last, done=False)
        out.append(msgspec.Raw(shown[:-1]))
        last = place
    return _page(payload.run_id, out, last, done=status != "running")


def _page(run_id: str, events: list[msgspec.Raw], last: tuple[int, int], *, done: bool) -> Events:
    if done:
        return Events(run_id=run_id, events=events, done=True)
    seq, k = last
    return Events(run_id=run_id, events=events, done=False, next_after_seq=seq, next_after_k=k or UNSET)


def _lines_after(
    path: Path, after: tuple[int, int], features: frozenset[str], end: int | None
) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield events behind a place in the stream: a ``seq``, and how many feature events behind it were seen."""
    for line in iter_events(path, after[0], features, end):
        match = _PLACE.match(line)
        if match is None:
            continue
        place = (int(match.group(1)), int(match.group(2) or 0))
        if place > after:
            yield place, line


async def list_runs(call: Call, payload: c.ListRuns) -> Runs:
    """Return a page of the runs on disk, the newest first."""
    daemon = call.connection.daemon
    if payload.cursor is not None and not is_safe_id(payload.cursor):
        raise NousError("invalid_payload", "cursor: not one that nous gave")
    return await run_in_thread(_list_runs, daemon, payload)


def _list_runs(daemon: Daemon, payload: c.ListRuns) -> Runs:
    """Newest first: run ids begin with their time."""
    limit = min(payload.limit or DEFAULT_RUNS, MAX_RUNS)
    out: list[RunSummary] = []
    ids = sorted((p.name.removesuffix(".ndjson") for p in daemon.traces_root.glob("*.ndjson")), reverse=True)
    for run_id in ids:
        if payload.cursor is not None and run_id >= payload.cursor:
            continue
        summary = _summarise(daemon, run_id)
        if summary is None or payload.session_id not in (None, summary.session_id):
            continue
        if len(out) == limit:
            return Runs(runs=out, next_cursor=out[-1].run_id)
        out.append(summary)
    return Runs(runs=out)


def _status(daemon: Daemon, found: TraceSummary) -> str:
    """Return how a run ended that is not active here.

    If this daemon wrote its trace and it has no end, it could not be written: the run failed.
    """
    return "failed" if found.status == "running" and found.header.epoch == daemon.epoch else found.status


def _summarise(daemon: Daemon, run_id: str) -> RunSummary | None:
    """Return one run's line; None for a file that is no trace (``nous doctor`` says which)."""
    try:
        found = scan(trace_path(daemon, run_id), daemon.is_dead)
    except (BrokenTraceError, NousError):
        return None
    run = daemon.runs.get(run_id)
    return RunSummary(
        run_id=run_id,
        session_id=found.header.session_id,
        status="running" if run is not None else _status(daemon, found),
        started_at=found.header.created_at,
        events=found.events if run is None else run.published_seq,
        ended_at=found.ended_at or UNSET,
    )


async def list_sessions(call: Call, payload: c.ListSessions) -> Sessions:
    """Newest first, as many as were asked for and fit a line."""
    daemon = call.connection.daemon
    limit = min(payload.limit or DEFAULT_RUNS, MAX_RUNS)
    page = await run_in_thread(daemon.sessions.list_sessions, limit, payload.cursor)
    return Sessions(sessions=page.sessions, next_cursor=UNSET if page.next_cursor is None else page.next_cursor)


async def export_trace(call: Call, payload: c.ExportTrace) -> TraceAnswer:
    """Export a run's trace to a file of the daemon's choice, under its state directory."""
    daemon = call.connection.daemon
    if not daemon.knows_run(payload.run_id):
        raise NousError("run_not_found")
    if payload.run_id in daemon.runs:
        raise NousError("command_rejected", "run_in_progress")
    if daemon.exporter is None:
        raise NousError("capability_unavailable", "export_trace")
    await run_in_thread(_end_trace, daemon, payload.run_id)
    path = await run_in_thread(daemon.exporter, payload.run_id, payload.format or "fixture")
    return TraceAnswer(run_id=payload.run_id, path=str(path.relative_to(daemon.state_root)))


def _end_trace(daemon: Daemon, run_id: str) -> None:
    """End the trace of a run that failed here because the disk took no end of it: it may take one by now."""
    path = trace_path(daemon, run_id)
    found = scan(path, daemon.is_dead)
    if found.status == "running" and found.header.epoch == daemon.epoch:
        close_broken(path, None, None)


def trace_path(daemon: Daemon, run_id: str) -> Path:
    """Return where a run's trace is, or would be."""
    return daemon.traces_root / f"{run_id}.ndjson"
