"""Checks of what is recorded: sessions, traces, and the index of sessions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from nous.cli.doctor.check import Finding, Situation, enumerate_names, failed, passed, warned
from nous.errors import NousError
from nous.replay.validate import Validation, validate
from nous.store.quarantine import QUARANTINE_DIR, cut_torn_tail, quarantine_session, set_aside
from nous.store.session_index import INDEX_NAME, look_at_index
from nous.store.trace_reader import read_header
from nous.store.trace_repair import interrupt_dead, is_headerless
from nous.store.verify import VerifyReport, verify_session
from nous.system.ids import is_safe_id
from nous.system.state_dir import is_dead, list_epochs

REPAIR = "nous doctor --repair"


# -- sessions


def check_sessions(situation: Situation) -> Finding:
    """Every session is what was written, line by line; a cut end is cut off by the next who writes."""
    reports = list(_verify_sessions(situation))
    damaged = [_place(report) for report in reports if not report.ok and not report.newer]
    if damaged:
        return failed(f"damaged: {enumerate_names(damaged)}", f"{REPAIR} (moves them to {QUARANTINE_DIR}/)")
    newer = [report.session_id for report in reports if report.newer]
    if newer:
        return warned(f"written by a newer version of nous: {enumerate_names(newer)}", "Install that version.")
    torn = [report.session_id for report in reports if report.torn is not None]
    if torn:
        return warned(f"cut within their last line: {enumerate_names(torn)}", REPAIR)
    return passed(f"{len(reports)} sessions")


def repair_sessions(situation: Situation) -> list[str]:
    """Move damaged sessions to quarantine and cut torn tails; return what was done."""
    sessions = situation.state.sessions
    done = []
    for report in _verify_sessions(situation):
        if not report.ok and not report.newer:
            done.append(f"moved the session {report.session_id} to {quarantine_session(sessions, report.session_id)}")
        elif report.torn is not None:
            kept = cut_torn_tail(sessions, report.session_id)
            done += [] if kept is None else [f"cut the session {report.session_id}; its last line is in {kept}"]
    return done


def _verify_sessions(situation: Situation) -> Iterator[VerifyReport]:
    for path in sorted(situation.state.sessions.glob("*.ndjson")):
        if is_safe_id(path.stem):
            yield verify_session(path)


def _place(report: VerifyReport) -> str:
    damage = report.damage
    return report.file if damage is None else f"{report.file}, line {damage.line}: {damage.reason}"


# -- traces


def check_traces(situation: Situation) -> Finding:
    """Every trace of an ended run is whole and unchanged; those of killed daemons are closed."""
    paths = list(_closed_traces(situation))
    cut = [path.stem for path in paths if _is_headerless(path)]
    found = [validate(path) for path in paths if path.stem not in cut]
    broken = [_reason(each) for each in found if each.verdict in ("broken", "not_a_trace")]
    if broken:
        return failed(f"damaged: {enumerate_names(broken)}", f"{REPAIR} (moves them to {QUARANTINE_DIR}/)")
    cut += [Path(each.path).stem for each in found if each.verdict == "cut"]
    if cut:
        return warned(f"runs of killed daemons, not closed yet: {enumerate_names(cut)}", REPAIR)
    interrupted = sum(each.status == "interrupted" for each in found)
    return passed(f"{len(found)} traces" + (f", {interrupted} of interrupted runs" if interrupted else ""))


def repair_traces(situation: Situation) -> list[str]:
    """Close the traces of dead daemons and move broken ones to quarantine; return what was done."""
    state = situation.state
    found = interrupt_dead(state.traces, partial(is_dead, state.daemons))
    done = [f"closed the trace of {trace.run_id}: it was interrupted" for trace in found.closed]
    done += [f"moved a trace that was cut within its header to {path}" for path in found.set_aside]
    for each in map(validate, _closed_traces(situation)):
        if each.verdict in ("broken", "not_a_trace"):
            done.append(f"moved {each.path} to {set_aside(Path(each.path), state.root / QUARANTINE_DIR)}")
    return done


def _closed_traces(situation: Situation) -> Iterator[Path]:
    """Yield all traces but those that a living daemon writes: these have no end yet."""
    daemons = situation.state.daemons
    anybody = any(not is_dead(daemons, epoch) for epoch in list_epochs(daemons))
    for path in sorted(situation.state.traces.glob("*.ndjson")):
        epoch = None
        with suppress(NousError):
            epoch = read_header(path).epoch
        # A file that does not say whose it is may be anybody's who lives.
        is_being_written = anybody if epoch is None else not is_dead(daemons, epoch)
        if is_safe_id(path.stem) and not is_being_written:
            yield path


def _is_headerless(path: Path) -> bool:
    """Tell whether a trace was cut within its header; what cannot be read is for its validation to say."""
    with suppress(NousError):
        return is_headerless(path)
    return False


def _reason(found: Validation) -> str:
    rules = ", ".join(dict.fromkeys(finding.rule for finding in found.findings))
    return f"{Path(found.path).name} ({found.reason or rules})"


# -- the index


def check_index(situation: Situation) -> Finding:
    """The index is only a cache: it costs time where it is behind, and nothing else."""
    state, changed = look_at_index(situation.state.sessions)
    path = situation.state.sessions / INDEX_NAME
    if state == "damaged":
        return failed(f"{path} cannot be read", REPAIR)
    if state == "behind":
        return warned(f"{path} is behind: {changed} sessions changed since", REPAIR)
    return passed("none yet" if state == "absent" else f"fresh, but for {changed} sessions" if changed else "fresh")


def drop_index(situation: Situation) -> list[str]:
    """Remove the index of sessions, which is made again; return what was done."""
    path = situation.state.sessions / INDEX_NAME
    if path.is_dir():
        return [f"moved {path} to {set_aside(path, situation.state.root / QUARANTINE_DIR)}"]
    path.unlink(missing_ok=True)
    return [f"removed {path}: it is made again when it is needed"]
