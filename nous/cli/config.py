"""``nous config``: what the configuration is and where each value comes from; whether it is valid; its schema."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from nous.cli.answer import print_json, succeed
from nous.cli.options import OptionParser, add_daemon_flags, add_state_flags, load_settings, parse
from nous.cli.terminal import Ink, say, say_text, say_value
from nous.config.checks import check_settings
from nous.config.keys import KEYS, SECTIONS, build_settings, find_key, flatten, suggest_key
from nous.config.layers import read_file_layer
from nous.config.load import Loaded
from nous.config.provider import resolve_secret
from nous.config.settings import Settings
from nous.config.yaml_file import read_source
from nous.errors import EXIT_OK, NousError

HIDDEN: Final = "<hidden>"

EPILOG: Final = """\
commands:
  show      every setting with its value and where that comes from
  get       the value of one setting, or of a section
  check     whether the configuration is valid, and all it names is there
  schema    the JSON Schema of a configuration file
"""


def run(arguments: Sequence[str]) -> int:
    """Run a subcommand of ``nous config``."""
    if arguments and arguments[0] in ("-h", "--help"):
        say_text(f"usage: nous config COMMAND [OPTIONS]\n\n{EPILOG}\nEach command has --help.")
        return EXIT_OK
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None:
        cause = f"there is no command {arguments[0]!r}" if arguments else "which command?"
        raise NousError("invalid_usage", cause, hint="Type: nous config --help")
    return command(arguments[1:])


def make_parser(name: str, description: str) -> OptionParser:
    """Return the parser of a subcommand with the flags that all of them take."""
    parser = OptionParser(prog=f"nous config {name}", description=description)
    add_state_flags(parser)
    parser.add_argument("--json", action="store_true", help="answer with one object")
    return parser


# -- show, get


def show(arguments: Sequence[str]) -> int:
    """Print every setting with its value and where that was given."""
    parser = make_parser("show", "Print every setting, its value, and where that was given. Takes serve's flags too.")
    add_daemon_flags(parser)
    options = parse(parser, arguments)
    loaded = load_settings(options)
    values = shown_values(loaded.settings)
    project = describe_project(loaded)
    if options.json:
        rows = {path: {"value": value, "source": loaded.sources[path]} for path, value in values.items()}
        return succeed(settings=rows, state_dir=str(loaded.state_root), project=project)
    ink = Ink()
    width = max(map(len, values))
    for path, value in values.items():
        ink.line(f"{path:<{width}}  {as_text(value)}  # {loaded.sources[path]}")
    if project is not None and project["trust"] != "trusted":
        ink.line()
        ink.line(f"{project['file']} does not count: {project['trust']} (nous trust DIR)")
    ink.flush()
    return EXIT_OK


def get(arguments: Sequence[str]) -> int:
    """Print the value of one setting."""
    parser = make_parser("get", "Print the value of one setting; of a section, an object.")
    parser.add_argument("path", metavar="PATH", help="its dotted path, for instance provider.model")
    options = parse(parser, arguments)
    loaded = load_settings(options)
    value = pick(shown_values(loaded.settings), options.path)
    if options.json:
        return succeed(path=options.path, value=value, source=loaded.sources.get(options.path))
    say_value(value if isinstance(value, str) else as_text(value))
    return EXIT_OK


def shown_values(settings: Settings) -> dict[str, Any]:
    """Return every value by its dotted path, without those that are never shown."""
    return {path: HIDDEN if is_hidden(path) else value for path, value in flatten(settings).items()}


def is_hidden(path: str) -> bool:
    """Return whether a setting's value may hold a secret."""
    key = find_key(path)
    return key is not None and key.hidden


def pick(values: dict[str, Any], path: str) -> Any:
    """Return a value, or a section's values by the rest of their paths.

    Raises:
        NousError: ``invalid_usage`` if there is no such setting, or an open mapping has no such entry.
    """
    if path in values:
        return values[path]
    below = {known.removeprefix(f"{path}."): value for known, value in values.items() if known.startswith(f"{path}.")}
    if below or path in SECTIONS or (path in KEYS and KEYS[path].is_open):
        return below
    raise NousError("invalid_usage", f"there is no setting {path!r}{suggest_key(path)}", hint="Type: nous config show")


def as_text(value: object) -> str:
    """Return a value as JSON text."""
    return msgspec.json.encode(value).decode()


def describe_project(loaded: Loaded) -> dict[str, str] | None:
    """Return the project's file and whether it is trusted; None if there is none."""
    project = loaded.project
    return None if project is None else {"file": project.source.name, "trust": project.verdict}


# -- check, schema


def check(arguments: Sequence[str]) -> int:
    """Say whether the configuration is valid; exit code 6 if it is not."""
    parser = make_parser(
        "check",
        "Read all layers, or the named files alone, and say whether they are valid. Exit code 6 if not: the message "
        "names file, line and key. Takes serve's flags too.",
    )
    parser.add_argument("files", metavar="FILE", nargs="*", type=Path, help="check these by themselves instead")
    parser.add_argument("--project", action="store_true", help="FILE is a project's file, which may set less")
    add_daemon_flags(parser)
    options = parse(parser, arguments)
    if options.files:
        for path in options.files:
            check_file(path, is_project=options.project)
        return say_valid([str(path) for path in options.files], as_json=options.json)
    loaded = load_settings(options)
    check_secrets(loaded.settings)
    return say_valid(files_of(loaded), as_json=options.json)


def check_file(path: Path, *, is_project: bool) -> None:
    """Check one file by itself.  Raises ``invalid_config``."""
    try:
        source = read_source(path)
    except FileNotFoundError:
        raise NousError("invalid_config", f"{path}: no such file") from None
    layer = read_file_layer(source, os.environ, is_project=is_project)
    settings = build_settings({key: given.value for key, given in layer.items()})
    check_settings(settings, {key: given.source for key, given in layer.items()})


def check_secrets(settings: Settings) -> None:
    """Refuse a setting that names a variable which does not hold what it should."""
    for path, variable in flatten(settings).items():
        if path.endswith("_env") and isinstance(variable, str):
            resolve_secret(variable, os.environ)


def files_of(loaded: Loaded) -> list[str]:
    """Return the files that values come from, in the order of the settings."""
    places = (source.rpartition(":") for source in loaded.sources.values())
    return list(dict.fromkeys(file for file, colon, line in places if colon and line.isdigit()))


def say_valid(files: list[str], *, as_json: bool) -> int:
    """Say which files were found valid."""
    if as_json:
        return succeed(files=files)
    say(f"valid: {', '.join(files) or 'no file sets anything'}")
    return EXIT_OK


def schema(arguments: Sequence[str]) -> int:
    """Print the JSON Schema of a configuration file."""
    from nous.config.schema import settings_schema

    options = parse(make_parser("schema", "Print the JSON Schema (2020-12) of a configuration file."), arguments)
    return succeed(schema=settings_schema()) if options.json else print_json(settings_schema())


COMMANDS: Final[dict[str, Callable[[Sequence[str]], int]]] = {
    "show": show,
    "get": get,
    "check": check,
    "schema": schema,
}
