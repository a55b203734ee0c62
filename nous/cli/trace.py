"""``nous trace``: lists the runs of a state directory, shows, exports, checks and compares them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from nous.cli.answer import fail, succeed
from nous.cli.difference import summary, write_comparison
from nous.cli.options import OptionParser, add_state_flags, load_settings, parse, state_root
from nous.cli.terminal import Ink, Style, note, say_text, say_value, write_bytes
from nous.cli.timeline import STATUS_STYLES, duration, snippet, timeline_json, write_timeline
from nous.config.keys import flatten, hidden_values
from nous.config.provider import KEY_VARIABLES
from nous.config.settings import Settings
from nous.engine.inputs import RunStarted
from nous.engine.record import read_input
from nous.errors import EXIT_OK, EXIT_REGRESSION, EXIT_USAGE, EXIT_VERIFICATION, NousError
from nous.replay.diff import compare_runs
from nous.replay.export import Export, export, find_trace
from nous.replay.show import Timeline, read_timeline
from nous.replay.validate import RULES, Validation, validate
from nous.store.trace_lines import BrokenTraceError
from nous.store.trace_reader import TraceSummary, iter_line_batches, scan
from nous.system.ids import is_safe_id
from nous.system.state_dir import StateDir, is_dead, state_paths
from nous.tools.environment import SECRET_WORDS

DEFAULT_RUNS: Final = 50
_PROMPT_WITHIN_BYTES: Final = 64 * 1024
_PROMPT_CHARACTERS: Final = 48
_COPY_BYTES: Final = 1024 * 1024
_MIN_SUSPECT_CHARACTERS: Final = 8

EPILOG: Final = """\
commands:
  list      the runs of the state directory, the newest first
  show      what happened in a run, on a timeline
  export    one file of a run, without secrets: for a bug report or a test
  validate  whether a file is whole, unchanged, and keeps the grammar of events
  diff      what two runs did differently
"""


def run(arguments: Sequence[str]) -> int:
    """Run a subcommand of ``nous trace``."""
    usage = f"usage: nous trace COMMAND [OPTIONS]\n\n{EPILOG}\nEach command has --help."
    if not arguments or arguments[0] in ("-h", "--help"):
        if arguments:
            say_text(usage)
            return EXIT_OK
        raise NousError("invalid_usage", "which command?", hint="Type: nous trace --help")
    command = COMMANDS.get(arguments[0])
    if command is None:
        raise NousError("invalid_usage", f"there is no command {arguments[0]!r}", hint="Type: nous trace --help")
    return command(arguments[1:])


def make_parser(name: str, description: str) -> OptionParser:
    """Return the parser of a subcommand with the flags that all of them take."""
    parser = OptionParser(prog=f"nous trace {name}", description=description)
    add_state_flags(parser)
    parser.add_argument("--json", action="store_true", help="answer with one object")
    return parser


# -- list


def list_runs(arguments: Sequence[str]) -> int:
    """List runs, the newest first."""
    parser = make_parser("list", "List runs, the newest first.")
    parser.add_argument("--session", metavar="ID", help="only runs of this session")
    parser.add_argument(
        "--limit", metavar="N", type=int, default=DEFAULT_RUNS, help=f"at most (default {DEFAULT_RUNS})"
    )
    options = parse(parser, arguments)
    if options.limit < 1:
        raise NousError("invalid_usage", "--limit: expected a positive number")
    state = state_paths(state_root(options))
    runs, unreadable = find_runs(state, options.session, options.limit)
    if options.json:
        return succeed(runs=[_run_json(run) for run in runs], unreadable=unreadable)
    write_runs(Ink(), state, runs)
    for name in unreadable:
        note(f"nous: not a trace: {name}")
    return EXIT_OK


def find_runs(state: StateDir, session_id: str | None, limit: int) -> tuple[list[TraceSummary], list[str]]:
    """Return the runs, the newest first, and the names of files met that are no traces."""
    runs: list[TraceSummary] = []
    unreadable: list[str] = []
    # Run ids begin with their time.
    for path in sorted(state.traces.glob("*.ndjson"), reverse=True):
        if len(runs) == limit:
            break
        try:
            found = scan(path, partial(is_dead, state.daemons))
        except BrokenTraceError:
            unreadable.append(path.name)
            continue
        if session_id in (None, found.header.session_id):
            runs.append(found)
    return runs, unreadable


def _run_json(run: TraceSummary) -> dict[str, Any]:
    return {
        "run_id": run.header.run_id,
        "session_id": run.header.session_id,
        "status": run.status,
        "started_at": run.header.created_at,
        "ended_at": run.ended_at,
        "events": run.events,
    }


def write_runs(ink: Ink, state: StateDir, runs: Sequence[TraceSummary]) -> None:
    """Write a page of runs."""
    if not runs:
        ink.line("no runs in ", str(state.root))
    else:
        width = max(len(run.header.run_id) for run in runs)
        ink.line((f"{'RUN':<{width}}  {'STATUS':<11}  {'STARTED':<24}  {'TOOK':>7}  {'EVENTS':>6}  PROMPT", "dim"))
        for run in runs:
            style = STATUS_STYLES.get(run.status, "plain")
            took = duration(_elapsed_ms(run))
            prompt = read_prompt(state.traces / f"{run.header.run_id}.ndjson")
            ink.line(
                (f"{run.header.run_id:<{width}}  ", "bold"),
                (f"{run.status:<11}  ", style),
                f"{run.header.created_at:<24}  {took:>7}  {run.events:>6}  {snippet(prompt, _PROMPT_CHARACTERS)}",
            )
    ink.flush()


def _elapsed_ms(run: TraceSummary) -> int | None:
    try:
        start, end = (datetime.fromisoformat(ts) for ts in (run.header.created_at, run.ended_at or ""))
        # The wall clock may have been set back during the run: then the time it took is not known.
        return elapsed if (elapsed := round((end - start).total_seconds() * 1000)) >= 0 else None
    except (ValueError, TypeError):
        return None


def read_prompt(path: Path) -> str:
    """Return what a run began with, or "" if that is long or not there: for a list it need not be found."""
    batch = next(iter_line_batches(path, end_offset=_PROMPT_WITHIN_BYTES), [])
    try:
        first = read_input(batch[1])[2]
    except (IndexError, msgspec.DecodeError):
        return ""
    return first.text if isinstance(first, RunStarted) else ""


# -- show


def show(arguments: Sequence[str]) -> int:
    """Show what happened in a run."""
    parser = make_parser("show", "Show what happened in a run, on a timeline.")
    parser.add_argument("source", metavar="RUN|FILE", help="a run's id, or a trace or event list")
    options = parse(parser, arguments)
    run_shown = load(state_paths(state_root(options)), options.source)
    if options.json:
        return succeed(run=timeline_json(run_shown))
    write_timeline(Ink(), run_shown)
    return EXIT_OK


def find_source(state: StateDir, source: str) -> Path:
    """Return the file that is meant by a path or a run's id.  Raises ``run_not_found`` or ``invalid_usage``."""
    path = Path(source)
    if path.exists():
        return path
    if not is_safe_id(source):
        raise NousError("invalid_usage", f"{source}: there is no such file")
    return find_trace(state, source)


def load(state: StateDir, source: str) -> Timeline:
    """Return a run's timeline.  One without an end is running, or was interrupted."""
    path = find_source(state, source)
    timeline = read_timeline(path)
    if not timeline.status and timeline.header is not None:
        timeline.status = scan(path, partial(is_dead, state.daemons)).status
    return timeline


# -- export


def export_run(arguments: Sequence[str]) -> int:
    """Write one file of a run."""
    parser = make_parser("export", "Write one file of a run that can be handed on and replayed: to standard output.")
    parser.add_argument("run_id", metavar="RUN_ID", help="the run's id, as nous trace list shows it")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-o", "--out", metavar="FILE", help="write it to this file; - for standard output")
    where.add_argument("--save", action="store_true", help="write it below exports/ and print its path (--json: too)")
    parser.add_argument("--format", choices=("fixture", "events"), default="fixture", help="all of it, or events alone")
    parser.add_argument("--redact", choices=("default", "none"), default="default", help="none: leave secrets in")
    parser.add_argument(
        "--max-text-bytes", metavar="N", type=int, help="with --format events: leave out longer texts of messages"
    )
    options = parse(parser, arguments)
    check_text_bound(options.max_text_bytes, options.format)
    write = partial(
        export,
        state_root(options),
        options.run_id,
        options.format,
        redact=options.redact == "default",
        held_secrets=held_secrets(load_settings(options).settings, os.environ),
        max_text_bytes=options.max_text_bytes,
    )
    # One object cannot say what was exported and be it.
    if options.out == "-" or not (options.out or options.save or options.json):
        return _stream(write)
    exported = write(out=None if options.out is None else Path(options.out))
    if options.json:
        return succeed(**{**msgspec.structs.asdict(exported), "path": str(exported.path.absolute())})
    say_value(str(exported.path))
    note(_about(exported))
    return EXIT_OK


def check_text_bound(max_text_bytes: int | None, form: str) -> None:
    """Check ``--max-text-bytes``.  Raises ``invalid_usage``."""
    if max_text_bytes is None:
        return
    if max_text_bytes < 1:
        raise NousError("invalid_usage", "--max-text-bytes: expected a positive number")
    if form != "events":
        raise NousError(
            "invalid_usage", "--max-text-bytes: a fixture has to hold every text", hint="Add --format events."
        )


def held_secrets(settings: Settings, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the secrets that this process holds: what no export may contain, whatever it looks like.

    Those the configuration names, and of the other variables those whose name says so, as for the tools' environment.
    """
    named = {str(value) for path, value in flatten(settings).items() if path.endswith("_env") and value}
    values = {environ.get(name, "") for name in (*named, *KEY_VARIABLES.values())} | hidden_values(settings)
    for name, value in environ.items():
        is_closed = any(word in name.upper() for word in SECRET_WORDS)
        # Not every such variable holds a secret: a path or a word is left alone.
        if is_closed and len(value) >= _MIN_SUSPECT_CHARACTERS and not value.startswith("/"):
            values.add(value)
    return tuple(sorted(values - {""}))


def _stream(write: Callable[..., Export]) -> int:
    with tempfile.TemporaryDirectory(prefix="nous-export-") as directory:
        exported = write(out=Path(directory) / "export.ndjson")
        with exported.path.open("rb") as file:
            while chunk := file.read(_COPY_BYTES):
                write_bytes(chunk)
    return EXIT_OK


def _about(exported: Export) -> str:
    places = "1 place" if exported.secrets == 1 else f"{exported.secrets} places"
    context = "" if exported.context == "recorded" else "; its context is gone, so a replay cannot be verified"
    return f"{exported.status}, {exported.events} events, {places} redacted{context}"


# -- validate


def validate_files(arguments: Sequence[str]) -> int:
    """Check whether files are whole and unchanged."""
    parser = make_parser(
        "validate",
        "Check whether files are whole, unchanged, and keep the grammar of events. Exit code: 0 all are; else 2 if "
        "one is broken or cut, 6 if one is no trace.",
    )
    parser.add_argument("sources", metavar="FILE", nargs="+", help="traces, event lists, or ids of runs")
    options = parse(parser, arguments)
    state = state_paths(state_root(options))
    found = [validate(_path_of(state, source)) for source in options.sources]
    exit_code = worst_exit_code(found)
    if options.json:
        return _answer_validations(found, exit_code)
    ink = Ink()
    for each in found:
        write_validation(ink, each)
    ink.flush()
    return exit_code


def worst_exit_code(found: Sequence[Validation]) -> int:
    """Return the exit code of several files: 2 if one is broken or cut, else 6 if one is no trace, else 0."""
    codes = {each.exit_code for each in found}
    return next((code for code in (EXIT_VERIFICATION, EXIT_USAGE) if code in codes), EXIT_OK)


def _path_of(state: StateDir, source: str) -> Path:
    """Return the file that is meant; for a check one that is not there is a finding, not an error."""
    path = Path(source)
    traced = state.traces / f"{source}.ndjson"
    return traced if not path.exists() and is_safe_id(source) and traced.exists() else path


def write_validation(ink: Ink, found: Validation) -> None:
    """Write what the check of a file found."""
    style: Style = "green" if found.verdict == "valid" else "red"
    about = ", ".join(filter(None, (found.kind, found.status, f"{found.events} events" if found.kind else "")))
    ink.line((f"{found.verdict:<11}  ", style), found.path, (f"  {found.reason or about}", "dim"))
    for finding in found.findings:
        ink.line("    ", f"line {finding.line}: ", (finding.rule, "bold"), f": {finding.detail}")
        ink.line("        ", (RULES[finding.rule], "dim"))
    if found.more_findings:
        ink.line("    ", f"and {found.more_findings} more")


def _answer_validations(found: Sequence[Validation], exit_code: int) -> int:
    files = [msgspec.to_builtins(each) for each in found]
    if exit_code == EXIT_OK:
        return succeed(files=files)
    bad = sum(each.exit_code != EXIT_OK for each in found)
    code = "verification_failed" if exit_code == EXIT_VERIFICATION else "invalid_usage"
    return fail(NousError(code, f"{bad} of {len(found)} files"), as_json=True, files=files)


# -- diff


def diff(arguments: Sequence[str]) -> int:
    """Compare what two runs did; exit code 5 if it differs."""
    parser = make_parser("diff", "Compare what two runs did. Exit 0: the same, 5: different.")
    parser.add_argument("left", metavar="A", help="a run's id, or a trace or event list")
    parser.add_argument("right", metavar="B", help="the other one")
    options = parse(parser, arguments)
    state = state_paths(state_root(options))
    found = compare_runs(load(state, options.left), load(state, options.right))
    if not options.json:
        write_comparison(Ink(), found)
        return EXIT_OK if found.is_same else EXIT_REGRESSION
    fields = {"same": found.is_same, **msgspec.to_builtins(found)}
    if found.is_same:
        return succeed(**fields)
    return fail(NousError("replay_diverged", f"the runs differ: {summary(found)}"), as_json=True, **fields)


COMMANDS: Final[dict[str, Callable[[Sequence[str]], int]]] = {
    "list": list_runs,
    "show": show,
    "export": export_run,
    "validate": validate_files,
    "diff": diff,
}
