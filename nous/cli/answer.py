"""What a command line says in the end: one object with ``--json``, else sentences on stderr."""

from __future__ import annotations

import os
import sys

import msgspec

from nous.errors import NousError


def correlation_id() -> str:
    """Return the id that ties this call to logs and traces: given by NOUS_CORRELATION_ID, or new."""
    given = os.environ.get("NOUS_CORRELATION_ID")
    return given or os.urandom(8).hex()


def fail(error: NousError, *, as_json: bool, **fields: object) -> int:
    """Report a failure and return its exit code.  ``fields`` stand in the object too."""
    if as_json:
        print_json(
            {
                "ok": False,
                "error": str(error),
                "error_code": error.code,
                "error_category": error.category,
                "retryable": error.retryable,
                "hint": error.hint,
                "correlation_id": correlation_id(),
                **fields,
            }
        )
    else:
        print(f"nous: {error}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
    return error.exit_code


def succeed(**fields: object) -> int:
    """Report success as one object and return 0."""
    print_json({"ok": True, "correlation_id": correlation_id(), **fields})
    return 0


def print_json(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()
