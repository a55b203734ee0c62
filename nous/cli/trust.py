"""``nous trust``: from now on the project's configuration file of a directory counts, as it is now."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nous.cli.answer import succeed
from nous.cli.options import OptionParser, add_state_flags, parse, state_root
from nous.cli.terminal import say
from nous.config.layers import read_file_layer
from nous.config.project import PROJECT_FILE, ProjectFile, read_project_file
from nous.errors import EXIT_OK, NousError
from nous.system.state_dir import open_state_dir
from nous.system.trust import TrustStore


def run(arguments: Sequence[str]) -> int:
    """Let a project's configuration count, or list what is trusted."""
    options = parse(make_parser(), arguments)
    root = state_root(options)
    if options.list:
        return show_all(TrustStore(root), as_json=options.json)
    if options.directory is None:
        raise NousError("invalid_usage", "which directory?", hint="Type: nous trust DIR, or nous trust --list")
    path = options.directory.absolute() / PROJECT_FILE
    if options.forget:
        was_trusted = TrustStore(open_state_dir(root).root).forget(path)
        return report(str(path), "forgotten" if was_trusted else "was not trusted", "", as_json=options.json)
    project = read_checked(options.directory, root)
    TrustStore(open_state_dir(root).root).trust(path, project.digest, project.source.data)
    return report(str(path), "trusted", project.digest, as_json=options.json)


def make_parser() -> OptionParser:
    """Return the parser of ``nous trust``."""
    parser = OptionParser(
        prog="nous trust",
        description="Let the configuration that comes with a project count, as it is now. Read it first. When it "
        "changes it has to be trusted again.",
    )
    parser.add_argument("directory", metavar="DIR", type=Path, nargs="?", help=f"the project: it has {PROJECT_FILE}")
    parser.add_argument("--forget", action="store_true", help="trust it no longer")
    parser.add_argument("--list", action="store_true", help="print all that is trusted")
    add_state_flags(parser)
    parser.add_argument("--json", action="store_true", help="answer with one object")
    return parser


def read_checked(directory: Path, root: Path) -> ProjectFile:
    """Return the project's file, if it would count once trusted: nobody trusts what is then refused.

    Raises:
        NousError: ``invalid_usage`` if there is none, ``invalid_config`` if it is not valid, ``io_failure`` if it
            cannot be read.
    """
    project = read_project_file(directory, root)
    if project is None or project.is_missing:
        raise NousError("invalid_usage", f"{directory / PROJECT_FILE}: no such file")
    if project.fault is not None:
        raise project.fault
    read_file_layer(project.source, os.environ, is_project=True)
    return project


def show_all(store: TrustStore, *, as_json: bool) -> int:
    """List all that is trusted."""
    records = store.records()
    if as_json:
        shown = [{"path": one.path, "digest": one.digest, "trusted_at": one.trusted_at} for one in records]
        return succeed(trusted=shown)
    for record in records:
        say(f"{record.trusted_at}  {record.path}")
    return EXIT_OK


def report(path: str, state: str, digest: str, *, as_json: bool) -> int:
    """Say what is trusted; return the exit code."""
    if as_json:
        return succeed(path=path, state=state, digest=digest or None)
    say(f"{state}: {path}")
    return EXIT_OK
