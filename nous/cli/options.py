"""Flags that several subcommands share, and how a command line becomes settings."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

from nous import __version__
from nous.cli.answer import correlation_id
from nous.cli.terminal import say_text
from nous.config.durations import parse_duration_ms
from nous.config.load import Loaded, load
from nous.errors import NousError
from nous.system.state_dir import read_bootstrap_record
from nous.telemetry.operations import operations


class HelpFormatter(argparse.HelpFormatter):
    """argparse's, which makes one for every flag, and each asks shutil for the width: long to load, and not needed."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=terminal_width() - 2)


@cache
def terminal_width() -> int:
    """Return how many characters a line of help may have: as ``COLUMNS`` says, else as the terminal does, else 80."""
    width = 0
    with suppress(ValueError):
        width = int(os.environ.get("COLUMNS", "0"))
    if width <= 0:
        with suppress(OSError):
            width = os.get_terminal_size(1).columns
    return width if width > 0 else 80


class OptionParser(argparse.ArgumentParser):
    """Like argparse's, but a wrong command line is an error of the taxonomy (exit 6), not an exit."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=HelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Raise ``invalid_usage``."""
        raise NousError("invalid_usage", message, hint=f"Type: {self.prog} --help")

    def _print_message(self, message: str, file: object = None) -> None:
        say_text(message.rstrip("\n"))


def duration_ms(text: str) -> int:
    """Read a duration; return milliseconds."""
    try:
        return parse_duration_ms(text)
    except NousError as error:
        raise argparse.ArgumentTypeError(error.cause or str(error)) from None


def tool_list(text: str) -> tuple[str, ...]:
    """Read names of tools, separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


SETTING_FLAGS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    (
        "--provider",
        "provider.name",
        {"metavar": "NAME", "help": "who answers: nous models lists them; or mock, replay"},
    ),
    ("--model", "provider.model", {"metavar": "NAME", "help": "the model's name"}),
    ("--api-base", "provider.api_base", {"metavar": "URL", "help": "base URL of a compatible server"}),
    ("--script", "provider.script", {"metavar": "FILE", "help": "what the mock provider answers (YAML or NDJSON)"}),
    ("--replay-from", "provider.replay_from", {"metavar": "PATH", "help": "a recorded run for the provider replay"}),
    ("--replay-speed", "provider.replay_speed", {"choices": ("full", "recorded"), "help": "how fast it is replayed"}),
    ("--replay-drive", "provider.replay_drive", {"choices": ("recording", "client"), "help": argparse.SUPPRESS}),
    ("--faults", "daemon.faults", {"metavar": "FILE", "help": "what goes wrong on purpose: a plan, for tests"}),
    ("--tools", "tools.active", {"metavar": "LIST", "type": tool_list, "help": "tools active at start: read,bash"}),
    ("--on-eof", "daemon.on_eof", {"choices": ("finish", "abort"), "help": "what the end of stdin means for runs"}),
    ("--drain-timeout", "daemon.drain_timeout_ms", {"metavar": "TIME", "type": duration_ms, "help": "30s, 500ms"}),
    ("--command-timeout", "daemon.command_timeout_ms", {"metavar": "TIME", "type": duration_ms, "help": "30s"}),
    ("--max-line-bytes", "daemon.max_line_bytes", {"metavar": "N", "type": int, "help": "longest line taken"}),
    ("--log-level", "daemon.log_level", {"metavar": "LEVEL", "help": "debug, info, warning, error"}),
)
"""Flags that set a setting: flag, dotted path, how argparse reads it."""


def add_state_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every command takes."""
    parser.add_argument("--state-dir", metavar="DIR", type=Path, help="where nous keeps its state")
    parser.add_argument("--config", metavar="FILE", type=Path, help="a configuration file on top of the others")
    parser.add_argument("--correlation-id", metavar="ID", help="found again in logs, traces and errors")


def add_daemon_flags(parser: argparse.ArgumentParser) -> None:
    """Add what a daemon is started with."""
    parser.add_argument("--workdir", metavar="DIR", type=Path, help="where tools work (default: here)")
    parser.add_argument("--bootstrap", action="store_true", help="make the state directory if it is missing")
    for flag, _, options in SETTING_FLAGS:
        parser.add_argument(flag, default=None, **options)


def given_flags(options: argparse.Namespace) -> dict[str, object]:
    """Return the settings that were given as flags, by dotted path."""
    values = vars(options)
    named = ((path, values.get(flag.removeprefix("--").replace("-", "_"))) for flag, path, _ in SETTING_FLAGS)
    given = {path: value for path, value in named if value is not None}
    return given if values.get("state_dir") is None else {"state_dir": str(options.state_dir), **given}


def daemon_arguments(options: argparse.Namespace) -> list[str]:
    """Return the command line that hands these options on to ``nous serve``."""
    out: list[str] = []
    values = vars(options)
    passed = ("--state-dir", "--config", "--workdir", "--correlation-id", *(f for f, _, _ in SETTING_FLAGS))
    for flag in passed:
        value = values.get(flag.removeprefix("--").replace("-", "_"))
        if value is not None:
            out += [flag, _as_argument(flag, value)]
    if values.get("bootstrap"):
        out.append("--bootstrap")
    return out


def _as_argument(flag: str, value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value}ms" if flag in ("--drain-timeout", "--command-timeout") else str(value)


def load_settings(options: argparse.Namespace) -> Loaded:
    """Return the configuration of this call: all layers, the project's file of ``--workdir`` or of here."""
    workdir: Path | None = vars(options).get("workdir")
    loaded = load(
        environ=os.environ,
        flags=given_flags(options),
        config_file=options.config,
        workdir=Path.cwd() if workdir is None else workdir,
    )
    if loaded.settings.operations.log and read_bootstrap_record(loaded.state_root) is not None:
        operations.start(loaded.state_root, correlation_id(), __version__)
    return loaded


def state_root(options: argparse.Namespace) -> Path:
    """Return where this call's state directory is, or would be."""
    return load_settings(options).state_root


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options.  Raises ``invalid_usage``."""
    return parser.parse_args(arguments)
