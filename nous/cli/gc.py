"""``nous gc``: removes what the retention settings say is too old, and what dead daemons left behind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nous.cli.answer import succeed
from nous.cli.options import OptionParser, add_state_flags, load_settings, parse, state_root
from nous.cli.terminal import say
from nous.config.settings import RetentionSettings
from nous.errors import EXIT_OK
from nous.extensions.copies import find_stale, remove_copy
from nous.store.disk import io_failure
from nous.store.retention import Collector, Keep, Kind, Plan, Unit
from nous.system.state_dir import dead_epochs, is_dead, remove_dead_locks, state_paths


def run(arguments: Sequence[str]) -> int:
    """Remove what is too old."""
    parser = OptionParser(
        prog="nous gc",
        description="Remove sessions, traces and tool outputs that the settings under retention call too old. "
        "Without such settings these stay. Copies of extensions that nobody trusts any more always go. "
        "What is in use, what was changed within the last hour, and sessions "
        "that kept traces need for their context are never touched.",
    )
    add_state_flags(parser)
    parser.add_argument("--json", action="store_true", help="answer with one object")
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    options = parse(parser, arguments)
    state = state_paths(state_root(options))
    collector = Collector(
        sessions=state.sessions, traces=state.traces, outputs=state.outputs, is_dead=partial(is_dead, state.daemons)
    )
    try:
        plan = collector.plan(rules(load_settings(options).settings.retention))
        gone = plan.remove if options.dry_run else [unit for unit in plan.remove if collector.remove(unit)]
        locks = dead_epochs(state.daemons) if options.dry_run else remove_dead_locks(state.daemons)
        stale = find_stale(state.root)
        copies = [str(path.relative_to(state.root)) for path in stale if options.dry_run or remove_copy(path)]
    except OSError as error:
        raise io_failure(error, str(error.filename or state.root)) from error
    return report(plan, gone, locks, copies, is_dry=options.dry_run, as_json=options.json)


def rules(settings: RetentionSettings) -> dict[Kind, Keep]:
    """Return what the settings say about each kind."""
    return {
        "session": Keep(days=settings.max_session_days, count=settings.max_sessions),
        "trace": Keep(days=settings.max_trace_days, count=settings.max_traces),
        "output": Keep(days=settings.max_output_days, count=settings.max_outputs),
    }


def report(plan: Plan, gone: list[Unit], locks: list[str], copies: list[str], *, is_dry: bool, as_json: bool) -> int:
    """Say what was removed and what stays; return the exit code."""
    freed_bytes = sum(unit.size_bytes for unit in gone)
    left = {
        kind: count + sum(u.kind == kind for u in plan.remove if u not in gone) for kind, count in plan.kept.items()
    }
    if as_json:
        return succeed(
            dry_run=is_dry,
            removed=gone,
            kept=left,
            recent=plan.recent,
            dead_daemons=locks,
            extension_copies=copies,
            freed_bytes=freed_bytes,
        )
    verb = "would go" if is_dry else "removed"
    for unit in gone:
        say(f"{verb}: {unit.kind} {unit.name} ({unit.size_bytes} bytes)")
    for epoch in locks:
        say(f"{verb}: lock of the dead daemon {epoch}")
    for path in copies:
        say(f"{verb}: copy of an extension that is not trusted as it was, {path}")
    kept = ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in left.items())
    say(f"{verb}: {len(gone)} of {len(plan.remove)}, {freed_bytes} bytes; kept: {kept}")
    if plan.recent:
        say(f"{plan.recent} more were changed within the last hour and stay until they are older.")
    return EXIT_OK
