"""The tables of all codes of events, from :mod:`nous.protocol.event_codes`, for docs/codes.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

from nous.protocol.event_codes import START_WARNING_CODES, STATUS_CODES, WARNING_CODES, EventCode
from scripts.pages import table

PAGE: Final = Path("docs/codes.md")
Code = TypeVar("Code", bound=str)


def reference() -> str:
    """Return a section for each kind of event."""
    return "\n\n".join(
        [
            _section("Codes of `warning`", WARNING_CODES),
            _section("Codes of `status`", STATUS_CODES),
            _section("Codes in the `warnings` of `ready`", START_WARNING_CODES),
        ]
    )


def _section(title: str, codes: Mapping[Code, EventCode]) -> str:
    rows: list[tuple[str, ...]] = [(f"`{code}`", codes[code].meaning, codes[code].action) for code in sorted(codes)]
    return f"## {title}\n\n{table(('code', 'what happened', 'what to do'), rows)}"
