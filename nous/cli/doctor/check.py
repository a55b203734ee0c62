"""What a check is: a name, a look at the situation, and where something can be done about it, a repair."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from nous.cli.doctor.machine import Machine
from nous.config.load import Loaded
from nous.config.settings import Settings
from nous.errors import NousError, as_nous_error, bound_text
from nous.system.state_dir import StateDir
from nous.telemetry.log import get_log

log = get_log("cli")

Status = Literal["pass", "warn", "fail"]

MAX_NAMED: Final = 5
"""A message names so many of what it found; the rest is counted."""

_MAX_MESSAGE_BYTES: Final = 1024


class Finding(Struct, frozen=True):
    """What a check found.  ``fix`` is a command, or a sentence that says what to do."""

    status: Status
    message: str
    fix: str | None = None


class Situation(NamedTuple):
    """All that checks look at.

    ``loaded`` is None where the configuration cannot be used (``config_error`` says why): ``settings`` are then the
    defaults, so that everything else can be checked all the same.
    """

    machine: Machine
    environ: Mapping[str, str]
    settings: Settings
    loaded: Loaded | None
    config_error: NousError | None
    state: StateDir
    workdir: Path
    sockets: tuple[Path, ...] = ()


class Check(NamedTuple):
    """``repair`` puts right what can be without losing anything, and returns what it did, a sentence each."""

    name: str
    examine: Callable[[Situation], Finding]
    repair: Callable[[Situation], list[str]] | None = None


class Row(Struct, frozen=True):
    """A check's finding, as ``nous doctor --json`` prints it."""

    name: str
    status: Status
    message: str
    fix: str | None


def passed(message: str) -> Finding:
    """Return the finding of a check that passed."""
    return Finding("pass", message)


def warned(message: str, fix: str) -> Finding:
    """Return the finding of a check that warns."""
    return Finding("warn", message, fix)


def failed(message: str, fix: str) -> Finding:
    """Return the finding of a check that failed."""
    return Finding("fail", message, fix)


def perform(check: Check, situation: Situation) -> Row:
    """Examine.  A check that cannot look has failed: what nobody can read, nobody can use."""
    try:
        found = check.examine(situation)
    except (NousError, OSError) as caught:
        error = describe_error(caught)
        found = failed(str(error), error.hint or "Look at the file that is named, and at its modes.")
    except Exception as error:
        log.error("check_crashed", check=check.name, error=error)
        found = failed(f"the check itself failed ({type(error).__name__})", "Please report it with the logs.")
    return Row(check.name, found.status, bound_text(found.message, _MAX_MESSAGE_BYTES), found.fix)


def describe_error(error: NousError | OSError) -> NousError:
    """Return an error that names the file in question."""
    if isinstance(error, OSError) and error.filename is not None:
        return NousError("io_failure", f"{error.filename}: {error.strerror}")
    return as_nous_error(error)


def enumerate_names(names: list[str]) -> str:
    """Return some names in one line: the first few, and how many more."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
