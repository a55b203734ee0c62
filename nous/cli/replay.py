"""``nous replay``: replays recordings and says whether the same inputs still give the same events."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from nous.cli.answer import fail, succeed
from nous.cli.options import OptionParser, add_state_flags, parse
from nous.cli.terminal import Ink, Style, say
from nous.errors import EXIT_OK, NousError
from nous.replay.describe import count_verdicts, describe_update, explain, failure_text, headline, verdict_word
from nous.replay.report import EXIT_BY_VERDICT, WORST_FIRST, Report, Verdict, worst_exit_code
from nous.replay.run_many import find_files, replay_many
from nous.replay.update import Update, update_recording
from nous.system.atomic import replace_file

_CODES: Final[dict[Verdict, str]] = {
    "diverged": "replay_diverged",
    "broken": "verification_failed",
    "unverified": "verification_failed",
    "not_a_trace": "invalid_usage",
}
"""The error code of the worst verdict among the files; its exit code is the verdict's."""

_STYLES: Final[dict[Verdict, Style]] = {
    "identical": "green",
    "diverged": "bold red",
    "broken": "red",
    "unverified": "yellow",
    "not_a_trace": "yellow",
}
_VERDICT_WIDTH: Final = max(map(len, EXIT_BY_VERDICT))


def run(arguments: Sequence[str]) -> int:
    """Replay recordings; the exit code is that of the worst verdict."""
    options = parse(make_parser(), arguments)
    if options.update:
        return run_update(options)
    reports: list[Report] = []
    for report in replay_many(find_files(options.paths), options.mode, options.jobs):
        reports.append(report)
        if not options.json:
            print_report(report)
    if options.junit is not None:
        write_junit(options.junit, reports)
    if options.json:
        return answer_json(reports, mode=options.mode)
    if len(reports) > 1:
        say(", ".join(f"{count} {word.replace('_', ' ')}" for word, count in count_verdicts(reports).items()))
    return worst_exit_code(reports)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``nous replay``."""
    parser = OptionParser(
        prog="nous replay",
        description="Replay recorded runs. Exit code: 0 all identical; else the worst of 5 diverged, 2 broken or "
        "unverified, 6 not a trace, in this order.",
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="a trace, or a directory of *.trace.ndjson")
    parser.add_argument(
        "--mode", choices=("engine", "daemon"), default="engine", help="a bare engine, or a whole daemon"
    )
    parser.add_argument("-j", "--jobs", metavar="N", type=positive, default=1, help="how many at a time")
    parser.add_argument("--junit", metavar="FILE", type=Path, help="write the verdicts as JUnit XML too")
    parser.add_argument("--update", action="store_true", help="expect from now on what the engine says today")
    parser.add_argument("--json", action="store_true", help="print one object")
    add_state_flags(parser)
    return parser


def positive(text: str) -> int:
    """Read a number of jobs."""
    if not text.isdecimal() or not 0 < int(text) <= 1024:
        raise argparse.ArgumentTypeError("expected a number from 1 to 1024")
    return int(text)


# -- for people


def print_report(report: Report) -> None:
    """Print a verdict as one line, and a divergence below it."""
    ink = Ink()
    word = f"{verdict_word(report):<{_VERDICT_WIDTH}}"
    ink.line((word, _STYLES[report.verdict]), f"  {report.path}  {headline(report)}")
    styles: dict[str, Style] = {"  expected": "green", "  actual": "red", "  before": "dim"}
    for line in explain(report):
        ink.line((line, next((style for begin, style in styles.items() if line.startswith(begin)), "plain")))
    ink.flush()


# -- for machines


def answer_json(reports: Sequence[Report], *, mode: str) -> int:
    """Print all reports as one object; return the exit code."""
    fields = {"mode": mode, "counts": count_verdicts(reports), "reports": reports}
    worst = worst_of(reports)
    if worst == "identical":
        return succeed(**fields)
    bad = [report for report in reports if report.verdict == worst]
    error = NousError(_CODES[worst], f"{bad[0].path}: {verdict_word(bad[0])}: {headline(bad[0])}")
    fail(error, as_json=True, **fields)
    return EXIT_BY_VERDICT[worst]


def worst_of(reports: Iterable[Report]) -> Verdict:
    """Return the worst verdict."""
    found = {report.verdict for report in reports}
    return next((verdict for verdict in WORST_FIRST if verdict in found), "identical")


def write_junit(path: Path, reports: Sequence[Report]) -> None:
    """Write the verdicts as a JUnit test suite: a divergence is a failure, everything else not identical an error."""
    bad = [report for report in reports if report.verdict != "identical"]
    failures = sum(report.verdict == "diverged" for report in bad)
    suite = ElementTree.Element(
        "testsuite",
        name="nous replay",
        tests=str(len(reports)),
        failures=str(failures),
        errors=str(len(bad) - failures),
        time=_seconds(sum(report.elapsed_ms for report in reports)),
    )
    for report in reports:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"replay.{report.mode}", name=report.path, time=_seconds(report.elapsed_ms)
        )
        if report.verdict != "identical":
            kind = "failure" if report.verdict == "diverged" else "error"
            said = ElementTree.SubElement(case, kind, type=report.verdict, message=_xml_text(headline(report)))
            said.text = _xml_text(failure_text(report))
    replace_file(path, ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True) + b"\n", mode=None)


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.3f}"


def _xml_text(text: str) -> str:
    """Replace what XML 1.0 cannot hold."""
    return "".join(c if c in "\t\n" or "\x20" <= c <= "\ufffd" or c > "\uffff" else "\ufffd" for c in text)


# -- --update


def run_update(options: argparse.Namespace) -> int:
    """Write recordings anew from what the engine does now."""
    if options.mode == "daemon" or options.junit is not None:
        raise NousError("invalid_usage", "--update goes with neither --mode daemon nor --junit")
    updates: list[Update] = []
    for path in find_files(options.paths):
        updates.append(update_recording(path))
        if not options.json:
            print_update(updates[-1])
    refused = [update for update in updates if update.refused]
    code = worst_exit_code(update.before for update in refused if update.before.verdict != "diverged")
    if not refused:
        return succeed(updates=updates) if options.json else EXIT_OK
    if options.json:
        error = NousError("verification_failed", f"{refused[0].path}: {refused[0].reason}")
        fail(error, as_json=True, updates=updates)
    return code or NousError("verification_failed").exit_code


def print_update(update: Update) -> None:
    """Say what became of a recording."""
    say(f"{update.path}  {describe_update(update)}")
    for line in explain(update.before) if update.changed else []:
        say(line)
