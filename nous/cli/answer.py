"""What a command line says in the end: one object with ``--json``, else sentences on stderr."""

from __future__ import annotations

import os
import re
from typing import Final

import msgspec

from nous.cli.terminal import note, write_bytes
from nous.errors import EXIT_OK, NousError
from nous.telemetry.operations import operations

CORRELATION_VARIABLE: Final = "NOUS_CORRELATION_ID"

_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


def settle_correlation_id(given: str | None) -> None:
    """Decide, once, which id ties this call to logs, traces, wire errors and children: the flag's, the variable's, new.

    From here on it stands in the environment, where every child finds it.

    Raises:
        NousError: ``invalid_usage`` if the one given cannot stand everywhere; a new one is used then.
    """
    name = CORRELATION_VARIABLE if given is None else "--correlation-id"
    wanted = os.environ.get(CORRELATION_VARIABLE) if given is None else given
    is_good = wanted is not None and _CORRELATION_ID.fullmatch(wanted) is not None
    os.environ[CORRELATION_VARIABLE] = wanted if is_good and wanted else os.urandom(8).hex()
    if wanted is not None and not is_good:
        raise NousError("invalid_usage", f"{name}: expected 1 to 128 letters, digits, dots, colons, _ and -")


def correlation_id() -> str:
    """Return the id of this call."""
    return os.environ[CORRELATION_VARIABLE]


def fail(error: NousError, *, as_json: bool, **fields: object) -> int:
    """Report a failure and return its exit code.  ``fields`` stand in the object too."""
    operations.note(error)
    if as_json:
        print_json(
            {
                "ok": False,
                "error": str(error),
                "cause": error.cause,
                "error_code": error.code,
                "error_category": error.category,
                "retryable": error.retryable,
                "hint": error.shell_hint,
                "correlation_id": correlation_id(),
                **fields,
            }
        )
    else:
        note(f"nous: {error}")
        if error.shell_hint:
            note(f"  {error.shell_hint}")
    return error.exit_code


def succeed(**fields: object) -> int:
    """Report success as one object and return 0."""
    return print_json({"ok": True, "correlation_id": correlation_id(), **fields})


def print_json(value: object) -> int:
    """Print a value as one line and return 0."""
    write_bytes(msgspec.json.encode(value) + b"\n")
    return EXIT_OK
