"""The table of all error codes, from :mod:`nous.errors`, for docs/errors.md."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nous.errors import CODES, WIRE_CODES, NousError
from scripts.pages import table

PAGE: Final = Path("docs/errors.md")


def reference() -> str:
    columns = ("code", "category", "retryable", "exit", "message", "hint, if it has none of its own", "in a shell")
    return table(columns, rows())


def rows() -> list[tuple[str, ...]]:
    errors = [NousError(code) for code in CODES]
    return [
        (
            f"`{error.code}`" + ("" if error.code in WIRE_CODES else " (command line only)"),
            f"`{error.category}`",
            "yes" if error.retryable else "no",
            str(error.exit_code),
            error.message,
            error.hint or "",
            error.info.shell_hint or "",
        )
        for error in errors
    ]
