"""``nous doctor``: examines, prints one line per check, repairs on request; exit code 2 if a check fails."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nous.cli.answer import fail, succeed
from nous.cli.doctor import extensions, home, host, production, records, settings
from nous.cli.doctor.check import Check, Row, Situation, describe_error, perform
from nous.cli.doctor.machine import Machine
from nous.cli.options import OptionParser, add_daemon_flags, add_state_flags, given_flags, load_settings, parse
from nous.cli.terminal import Ink, Style
from nous.config.load import Loaded
from nous.config.settings import Settings
from nous.errors import EXIT_OK, NousError
from nous.system.state_dir import default_state_dir, read_bootstrap_record, state_paths

CHECKS: Final = (
    Check("python", host.check_python),
    Check("packages", host.check_packages),
    Check("disk_space", host.check_disk_space),
    Check("temp_directory", host.check_temp_directory),
    Check("ripgrep", host.check_ripgrep),
    Check("git_hooks", host.check_git_hooks),
    Check("state_directory", home.check_state_directory, home.close_to_others),
    Check("leftovers", home.check_leftovers, home.remove_leftovers),
    Check("locks", home.check_locks, home.remove_dead_locks),
    Check("sessions", records.check_sessions, records.repair_sessions),
    Check("traces", records.check_traces, records.repair_traces),
    Check("session_index", records.check_index, records.drop_index),
    Check("configuration", settings.check_configuration),
    Check("key_sources", settings.check_key_sources),
    Check("provider_key", settings.check_provider_key),
    Check("extensions", extensions.check_extensions),
)
ONLINE_CHECKS: Final = (Check("endpoint", settings.check_endpoint),)
PRODUCTION_CHECKS: Final = (
    Check("production.profile", production.check_profile),
    Check("production.provider", production.check_provider),
    Check("production.consent", production.check_consent),
    Check("production.line_size", production.check_line_size),
    Check("production.retention", production.check_retention),
    Check("production.sockets", production.check_sockets),
    Check("production.redaction", production.check_redaction),
    Check("production.extensions", extensions.check_all_trusted),
)

_STYLES: Final[dict[str, Style]] = {"pass": "green", "warn": "yellow", "fail": "red"}


def run(arguments: Sequence[str]) -> int:
    """Run the checks."""
    options = parse(make_parser(), arguments)
    situation = look(options)
    checks = chosen(options)
    done = repair(checks, situation) if options.repair else []
    rows = [perform(check, situation) for check in checks]
    return report(rows, done, repaired=options.repair, as_json=options.json)


def make_parser() -> OptionParser:
    """Return the parser of ``nous doctor``."""
    parser = OptionParser(
        prog="nous doctor",
        description="Check the machine, the state directory, all that is recorded there, and the configuration. Reads "
        "only, unless told to repair, and asks no server, unless told to. Takes serve's flags too. Exit code 2 if a "
        "check fails.",
    )
    parser.add_argument("--repair", action="store_true", help="put right what can be; nothing recorded is removed")
    parser.add_argument("--online", action="store_true", help="also ask the provider")
    parser.add_argument("--production-readiness", action="store_true", help="also check what production asks for")
    parser.add_argument(
        "--socket", metavar="PATH", type=Path, action="append", default=[], help="check this socket of a daemon too"
    )
    add_state_flags(parser)
    add_daemon_flags(parser)
    parser.add_argument("--json", action="store_true", help="answer with one object")
    return parser


def chosen(options: argparse.Namespace) -> list[Check]:
    """Return the checks that were asked for."""
    online = ONLINE_CHECKS if options.online else ()
    return [*CHECKS, *online, *(PRODUCTION_CHECKS if options.production_readiness else ())]


def look(options: argparse.Namespace) -> Situation:
    """Return what there is to look at.  A configuration that is not valid is a finding, not an error."""
    loaded: Loaded | None = None
    config_error: NousError | None = None
    try:
        loaded = load_settings(options)
    except (NousError, OSError) as error:
        config_error = describe_error(error)
    named = given_flags(options).get("state_dir") or os.environ.get("NOUS_STATE_DIR")
    fallback = default_state_dir(os.environ) if named is None else Path(str(named))
    return Situation(
        machine=Machine(os.environ),
        environ=os.environ,
        settings=Settings() if loaded is None else loaded.settings,
        loaded=loaded,
        config_error=config_error,
        state=state_paths(fallback.absolute() if loaded is None else loaded.state_root),
        workdir=(options.workdir or Path.cwd()).absolute(),
        sockets=tuple(path.absolute() for path in options.socket),
    )


def repair(checks: Sequence[Check], situation: Situation) -> list[str]:
    """Repair what does not pass; return what was done, and what could not be, a sentence each."""
    if read_bootstrap_record(situation.state.root) is None:
        return []
    done: list[str] = []
    for check in checks:
        if check.repair is None or perform(check, situation).status == "pass":
            continue
        try:
            done += check.repair(situation)
        except (NousError, OSError) as error:
            done.append(f"{check.name} could not be repaired: {describe_error(error)}")
    return done


def report(rows: Sequence[Row], done: Sequence[str], *, repaired: bool, as_json: bool) -> int:
    """Show what was found; return the exit code, 2 if a check failed."""
    failures = [row.name for row in rows if row.status == "fail"]
    error = NousError("verification_failed", ", ".join(failures), hint=_first_fix(rows)) if failures else None
    repairs = {"repairs": done} if repaired else {}
    if as_json:
        return succeed(checks=rows, **repairs) if error is None else fail(error, as_json=True, checks=rows, **repairs)
    write_rows(Ink(), rows, done)
    return EXIT_OK if error is None else error.exit_code


def _first_fix(rows: Sequence[Row]) -> str | None:
    return next((row.fix for row in rows if row.status == "fail"), None)


def write_rows(ink: Ink, rows: Sequence[Row], done: Sequence[str]) -> None:
    """Write the findings as a table."""
    width = max(len(row.name) for row in rows)
    for line in done:
        ink.line(("repaired  ", "bold"), line)
    for row in rows:
        ink.line((f"{row.status}  ", _STYLES[row.status]), f"{row.name:<{width}}  {row.message}")
        if row.fix is not None:
            ink.line(" " * (width + 8), ("fix: ", "bold"), row.fix)
    ink.flush()
