"""``nous ext``: which extensions there are, whether their manifests are right, trusting them, trying them out."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import anyio
import msgspec
from msgspec import to_builtins

from nous.cli.answer import print_json, succeed
from nous.cli.options import OptionParser, add_state_flags, load_settings, parse, state_root
from nous.cli.serve import secret_variables
from nous.cli.terminal import exact_line, many_lines, note, say, say_text, write_stderr
from nous.config.settings import Settings
from nous.config.yaml_file import read_source
from nous.errors import EXIT_OK, NousError
from nous.extensions.clearance import check_command, find_distrust
from nous.extensions.copies import copy_extension
from nous.extensions.discovery import Installed, find_installed, look_at, origin_of
from nous.extensions.extension import Extension, ExtensionFailedError
from nous.extensions.host import Surroundings, make_extension
from nous.extensions.lapsed import Lapsed, find_removed
from nous.extensions.manifest import MANIFEST_NAME, Manifest, parse_manifest
from nous.extensions.pending import CallFailedError, Question
from nous.extensions.places import place_of, project_directory
from nous.extensions.policy import KEYS, policy_in_force
from nous.extensions.wire import CallKind, HelloLine, ResultLine
from nous.system.clock import SystemClock
from nous.system.state_dir import open_state_dir
from nous.system.trust import TrustStore
from nous.telemetry.log import configure

EPILOG: Final = """\
commands:
  list      the extensions of this project and of the user, and whether they may run
  check     whether manifests are valid; runs nothing
  trust     let a project's extension run, as it is now; read it first
  run       start one, show what it has, and try a tool, a hook or a command of it
"""


def run(arguments: Sequence[str]) -> int:
    """Run a subcommand of ``nous ext``."""
    if arguments and arguments[0] in ("-h", "--help"):
        say_text(f"usage: nous ext COMMAND [OPTIONS]\n\n{EPILOG}\nEach command has --help.")
        return EXIT_OK
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None:
        cause = f"there is no command {arguments[0]!r}" if arguments else "which command?"
        raise NousError("invalid_usage", cause, hint="Type: nous ext --help")
    return command(arguments[1:])


def make_parser(name: str, description: str) -> OptionParser:
    """Return the parser of a subcommand with the flags that all of them take."""
    parser = OptionParser(prog=f"nous ext {name}", description=description)
    add_state_flags(parser)
    parser.add_argument("--workdir", metavar="DIR", type=Path, help="the project (default: here)")
    parser.add_argument("--json", action="store_true", help="answer with one object")
    return parser


def workdir_of(options: argparse.Namespace) -> Path:
    """Return the project's directory."""
    return (options.workdir or Path.cwd()).resolve()


# -- list, check


def list_extensions(arguments: Sequence[str]) -> int:
    """List the extensions that are installed, and the trusted ones that are gone."""
    options = parse(make_parser("list", "List extensions, the user's first."), arguments)
    settings = load_settings(options).settings
    store = TrustStore(state_root(options))
    found = find_installed(workdir_of(options), os.environ)
    shown = [describe(one, store, settings) for one in found]
    shown += [describe_removed(one) for one in find_removed(workdir_of(options), store, settings.extensions, found)]
    if options.json:
        return succeed(extensions=shown)
    for line in shown:
        hooks = ", ".join(line["hooks"]) or "no hooks"
        say(f"{line['name']:<20} {line['origin']:<8} {line['state']:<10} {line['error'] or hooks}")
    if not shown:
        note("no extensions")
    return EXIT_OK


def describe(one: Installed, store: TrustStore, settings: Settings) -> dict[str, Any]:
    """Return what ``list`` shows of an extension; ``state`` is ``ready`` if a daemon would start it."""
    manifest = one.manifest
    line: dict[str, Any] = {"name": one.name, "origin": one.origin, "directory": str(one.directory), "error": None}
    if manifest is None:
        return {**line, "state": "invalid", "error": str(one.fault), "hooks": []}
    distrust = find_distrust(one, store)
    skipped = not settings.extensions.enabled or one.name in settings.extensions.skip
    state = "skipped" if skipped else "ready" if distrust is None else "untrusted"
    policy = to_builtins(policy_in_force(one.name, manifest, settings.extensions))
    error = None if distrust is None else distrust.cause
    return {**line, "state": state, "error": error, "hooks": manifest.hooks, "env": manifest.env, "policy": policy}


def describe_removed(lapsed: Lapsed) -> dict[str, Any]:
    """Return what ``list`` shows of an extension that was trusted and is gone: its hooks may block."""
    line = {"name": lapsed.name, "origin": "project", "directory": str(lapsed.directory), "error": lapsed.reason}
    return {**line, "state": "removed", "hooks": sorted(lapsed.on_failure)}


def check(arguments: Sequence[str]) -> int:
    """Check manifests; nothing is run."""
    parser = make_parser("check", "Check manifests. Nothing is run.")
    parser.add_argument("directories", metavar="DIR", type=Path, nargs="*", help="default: all that are installed")
    options = parse(parser, arguments)
    given: list[Path] = options.directories
    if given:
        found = [look_at(directory, "project") for directory in given]
    else:
        found = find_installed(workdir_of(options), os.environ)
    for one in found:
        if one.fault is not None:
            raise one.fault
    if options.json:
        return succeed(checked=[{"name": one.name, "directory": str(one.directory)} for one in found])
    for one in found:
        say(f"ok: {one.name} ({one.directory / MANIFEST_NAME})")
    return EXIT_OK


def valid(directory: Path) -> tuple[Installed, Manifest]:
    """Return the extension of a directory.  Raises as :func:`nous.extensions.manifest.read_manifest`."""
    one = look_at(directory.resolve(), origin_of(directory, os.environ))
    if one.fault is not None or one.manifest is None:
        raise one.fault or NousError("internal_error")
    return one, one.manifest


# -- trust


def trust(arguments: Sequence[str]) -> int:
    """Let an extension run as it is now."""
    parser = make_parser(
        "trust",
        "Let the extension in a directory run, as it is now, with everything in it. Read it first. When any file "
        "changes it has to be trusted again.",
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help=f"the extension: it has {MANIFEST_NAME}")
    parser.add_argument("--forget", action="store_true", help="trust it no longer")
    options = parse(parser, arguments)
    settings = load_settings(options).settings
    root = open_state_dir(state_root(options)).root
    store = TrustStore(root)
    directory: Path = options.directory.resolve()
    if options.forget:
        state = "forgotten" if store.forget(directory) else "was not trusted"
        if options.json:
            return succeed(path=str(directory), state=state, digest=None)
        say(f"{state}: {directory}")
        return EXIT_OK
    valid(directory)
    # What is shown, recorded and later run is one copy: the directory may change at any moment.
    copy = copy_extension(directory, root)
    source = read_source(copy.directory / MANIFEST_NAME)
    manifest = parse_manifest(source)
    check_command(manifest, directory)
    store.trust(directory, copy.digest, source.data, places_of(options.directory, workdir_of(options), store))
    granted = describe_grant(manifest, settings)
    if options.json:
        return succeed(path=str(directory), state="trusted", digest=copy.digest, **granted)
    say(exact_line(f"{manifest.name} may run: {shlex.join(manifest.command)}"))
    for name, text in (("hooks", "hooks"), ("env", "gets the variables"), ("withheld", "does not get, they hold keys")):
        if granted[name]:
            say(f"{text}: {', '.join(granted[name])}")
    say(f"trusted: {directory}")
    return EXIT_OK


def places_of(given: Path, workdir: Path, store: TrustStore) -> set[Path]:
    """Return where an extension is installed by links: here, now, and in other projects as recorded before."""
    directory, top = given.resolve(), project_directory(workdir)
    linked = top.iterdir() if top.is_dir() else ()
    here = {place_of(path) for path in (given, *linked) if path.resolve() == directory}
    record = store.find(directory)
    before = () if record is None else record.installed_at
    return here | {Path(path) for path in before if Path(path).parent != top}


def describe_grant(manifest: Manifest, settings: Settings) -> dict[str, Any]:
    """Return what trusting an extension lets run and passes to it; ``withheld`` is what it asks for and never gets."""
    closed = secret_variables(settings)
    return {
        "name": manifest.name,
        "command": manifest.command,
        "hooks": manifest.hooks,
        "env": [name for name in manifest.env if name not in closed],
        "withheld": [name for name in manifest.env if name in closed],
    }


# -- run


def try_out(arguments: Sequence[str]) -> int:
    """Start an extension, show what it has, or call one thing of it."""
    parser = make_parser("run", "Start an extension that may run, show what it has, or try one thing of it.")
    parser.add_argument("directory", metavar="DIR", type=Path, help=f"the extension: it has {MANIFEST_NAME}")
    what = parser.add_mutually_exclusive_group()
    for kind in get_args(CallKind):
        what.add_argument(f"--{kind}", metavar="NAME", help=f"call this {kind}")
    parser.add_argument("--input", metavar="JSON", default="{}", help="what it is called with (default {})")
    options = parse(parser, arguments)
    settings = load_settings(options).settings
    configure(settings.daemon.log_level)
    one, manifest = valid(options.directory)
    distrust = find_distrust(one, TrustStore(state_root(options)))
    if distrust is not None:
        raise distrust
    around = Surroundings(
        state_root=state_root(options),
        workdir=workdir_of(options),
        environ=os.environ,
        closed_names=secret_variables(settings),
        settings=settings.extensions,
        clock=SystemClock(),
    )
    answer = anyio.run(_Trial(around, one, manifest, options).run)
    if isinstance(answer, NousError):
        raise answer
    if options.json:
        return succeed(**answer)
    print_json(answer)
    return EXIT_OK


class _Trial:
    """One extension, started for one question."""

    def __init__(self, around: Surroundings, one: Installed, manifest: Manifest, options: argparse.Namespace) -> None:
        self._extension = make_extension(around, one, manifest, self._note)
        self._question = make_question(self._extension, options)

    async def run(self) -> dict[str, Any] | NousError:
        """Return what came of it, after the extension has ended."""
        answer: dict[str, Any] | NousError
        async with anyio.create_task_group() as tasks:
            self._extension.bind(tasks)
            answer = await self._answer()
            tasks.cancel_scope.cancel()
        return answer

    async def _answer(self) -> dict[str, Any] | NousError:
        extension = self._extension
        await extension.start()
        if extension.hello is None:
            return failure(extension, extension.last_error)
        if self._question is None:
            return {"hello": to_builtins(extension.hello), "policy": {k: getattr(extension.policy, k) for k in KEYS}}
        try:
            return {"value": await extension.call(self._question)}
        except ExtensionFailedError as failed:
            return failure(
                extension, failed.reason, "timeout" if failed.code == "extension_timeout" else "internal_error"
            )

    async def _note(self, extension: Extension, hello: HelloLine) -> None:
        """A trial registers nothing."""


def failure(extension: Extension, reason: str, code: str = "internal_error") -> NousError:
    """Return the error for an extension that failed."""
    return NousError(code, f"the extension {extension.name}: {reason}", hint="What it wrote to stderr is above.")


def make_question(extension: Extension, options: argparse.Namespace) -> Question[dict[str, Any]] | None:
    """Return what the command line asks, if it asks anything."""
    for kind in get_args(CallKind):
        name = getattr(options, kind)
        if name is not None:
            policy = extension.policy
            return Question(
                kind=kind,
                name=name,
                given=read_input(options.input),
                context={"workdir": str(workdir_of(options))},
                timeout_ms=policy.hook_timeout_ms if kind == "hook" else policy.tool_timeout_ms,
                read=read_value,
                progress=show_progress,
            )
    return None


def read_input(text: str) -> Any:
    """Return the value of ``--input``.  Raises ``invalid_usage``."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise NousError("invalid_usage", "--input: not JSON") from None


def read_value(result: ResultLine) -> dict[str, Any]:
    """Return the value of a result.  Raises :class:`CallFailedError` if it is an error."""
    if result.error is not None:
        raise CallFailedError("extension_error", f"it answered with an error: {result.error}")
    return result.value


async def show_progress(text: str) -> None:
    """Show a piece of progress on standard error."""
    write_stderr(many_lines(text).encode())


Command = Callable[[Sequence[str]], int]

COMMANDS: Final[dict[str, Command]] = {"list": list_extensions, "check": check, "trust": trust, "run": try_out}
