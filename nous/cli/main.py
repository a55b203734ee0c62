"""The command ``nous``: finds the subcommand, runs it, turns what goes wrong into one answer and an exit code."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from nous import __version__
from nous.cli.answer import fail, settle_correlation_id
from nous.cli.terminal import OutputClosedError, say_text
from nous.errors import EXIT_OK, EXIT_RUNTIME, EXIT_USAGE, NousError, as_nous_error
from nous.system.prctl import set_non_dumpable
from nous.system.python import other_distribution
from nous.telemetry.log import get_log
from nous.telemetry.operations import operations

EXIT_OUTPUT_CLOSED: Final = 141
"""As a shell reports a program that SIGPIPE ended."""

Command = Callable[[Sequence[str]], int]


def _serve(arguments: Sequence[str]) -> int:
    # Serve turns it on, once all that it needs is there (see nous.cli.start).
    gc.disable()
    try:
        from nous.cli.serve import run

        return run(arguments)
    finally:
        gc.enable()


def _prompt(arguments: Sequence[str]) -> int:
    from nous.cli.prompt import run

    return run(arguments)


def _ctl(arguments: Sequence[str]) -> int:
    from nous.cli.ctl import run

    return run(arguments)


def _schema(arguments: Sequence[str]) -> int:
    from nous.cli.schema import run

    return run(arguments)


def _session(arguments: Sequence[str]) -> int:
    from nous.cli.session import run

    return run(arguments)


def _ext(arguments: Sequence[str]) -> int:
    from nous.cli.ext import run

    return run(arguments)


def _models(arguments: Sequence[str]) -> int:
    from nous.cli.models import run

    return run(arguments)


def _auth(arguments: Sequence[str]) -> int:
    from nous.cli.auth import run

    return run(arguments)


def _init(arguments: Sequence[str]) -> int:
    from nous.cli.init import run

    return run(arguments)


def _config(arguments: Sequence[str]) -> int:
    from nous.cli.config import run

    return run(arguments)


def _doctor(arguments: Sequence[str]) -> int:
    from nous.cli.doctor.command import run

    return run(arguments)


def _trust(arguments: Sequence[str]) -> int:
    from nous.cli.trust import run

    return run(arguments)


def _replay(arguments: Sequence[str]) -> int:
    from nous.cli.replay import run

    return run(arguments)


def _trace(arguments: Sequence[str]) -> int:
    from nous.cli.trace import run

    return run(arguments)


def _gc(arguments: Sequence[str]) -> int:
    from nous.cli.gc import run

    return run(arguments)


COMMANDS: Final[dict[str, tuple[str, Command]]] = {
    "serve": ("run the daemon: commands on stdin or a socket, events out", _serve),
    "prompt": ("one run from the shell", _prompt),
    "ctl": ("send one command to a daemon's socket", _ctl),
    "trace": ("list, show, export, validate and compare recorded runs", _trace),
    "session": ("list, show, check, compact and export sessions", _session),
    "ext": ("list, check, trust and try out extensions", _ext),
    "models": ("list providers and what is known of their models", _models),
    "auth": ("say which providers have their keys", _auth),
    "init": ("make the state directory", _init),
    "config": ("show, look up and check the configuration", _config),
    "trust": ("let a project's configuration count", _trust),
    "gc": ("remove what is too old", _gc),
    "doctor": ("check everything, and repair what can be", _doctor),
    "replay": ("replay recorded runs and compare", _replay),
    "schema": ("print or write the protocol's JSON Schema", _schema),
}
"""Each subcommand with its one line of help.  What a subcommand needs is imported when it is called."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (docs/errors.md)."""
    _fill_standard_descriptors()
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if (other := other_distribution()) is not None:
        return _run("start", lambda _: _refuse_beside(other), argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        return _run("help", lambda _: _answer(usage(), EXIT_OK if argv else EXIT_USAGE), [])
    if argv[0] in ("-V", "--version"):
        return _run("version", lambda _: _answer(f"nous {__version__}", EXIT_OK), [])
    gc.enable()
    exit_code = EXIT_RUNTIME
    operations.call(argv[0])
    try:
        exit_code = _run(argv[0], _find_command(argv[0]), argv[1:])
    finally:
        operations.end(exit_code)
    return exit_code


def _answer(text: str, exit_code: int) -> int:
    say_text(text)
    return exit_code


def _find_command(name: str) -> Command:
    found = COMMANDS.get(name)
    return _unknown(name) if found is None else found[1]


def _refuse_beside(other: str) -> int:
    cause = f"the distribution {other} is installed here too, and writes into the same directory"
    raise NousError("invalid_usage", cause, hint="Uninstall nous and nous-core, then install nous-core alone.")


def _unknown(name: str) -> Command:
    def refuse(arguments: Sequence[str]) -> int:
        raise NousError("invalid_usage", f"there is no command {name!r}", hint="Type: nous --help")

    return refuse


def _run(name: str, command: Command, rest: list[str]) -> int:
    """Run a command.  Every failure becomes one answer and an exit code, also one of writing the answer."""
    as_json = "--json" in rest
    try:
        try:
            settle_correlation_id(_find_correlation_id(rest))
            if name != "serve":  # which does so right after its first answer: see nous.cli.serve
                set_non_dumpable()
            return command(rest)
        except Exception as error:
            return _report(name, error, as_json=as_json)
    except OutputClosedError:
        return EXIT_OUTPUT_CLOSED
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        # Not even the failure could be written to stdout.
        return fail(as_nous_error(error), as_json=False)


def _report(name: str, error: Exception, *, as_json: bool) -> int:
    if isinstance(error, OutputClosedError):
        raise error
    if not isinstance(error, NousError | OSError):
        # A mistake of ours.  Where it happened goes to the log, and what it says (perhaps content) nowhere.
        get_log("cli").error("command_crashed", command=name, error=error)
    return fail(as_nous_error(error), as_json=as_json)


def _fill_standard_descriptors() -> None:
    """Put /dev/null where a standard descriptor came closed: else the first file we open would become our output."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is taken, and those below are filled already.
            os.open(os.devnull, os.O_RDWR)


def _find_correlation_id(arguments: Sequence[str]) -> str | None:
    """Find the flag before anything is parsed: a wrong command line is answered with the id it came with too."""
    found = None
    for index, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument.startswith("--correlation-id="):
            found = argument.partition("=")[2]
        elif argument == "--correlation-id" and index + 1 < len(arguments):
            found = arguments[index + 1]
    return found


def usage() -> str:
    """Return the overview of all commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (text, _) in COMMANDS.items()]
    return "\n".join(["usage: nous COMMAND [OPTIONS]", "", *lines, "", "Each command has --help."])
