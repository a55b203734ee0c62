"""Durations as people type them on a command line: ``500ms``, ``30s``, ``2m``, ``1h``.  Pure."""

from __future__ import annotations

import re
from typing import Final

from nous.errors import NousError

_MS_BY_UNIT: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
# Nine digits of hours still fit a float's exact integers; what is sensible is for the setting to say.
_DURATION: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h)", re.ASCII)


def parse_duration_ms(text: str) -> int:
    """Return ``text`` in milliseconds.

    A whole number and its unit, nothing else: no sign, no space, no fraction, no number without a unit (which would
    be read as seconds by one and as milliseconds by another).

    Raises:
        NousError: ``invalid_usage``.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        shown = ascii(text if len(text) <= 40 else text[:40] + "...")
        raise NousError("invalid_usage", f"{shown} is not a duration", hint="Type for instance 500ms, 30s, 2m or 1h.")
    return int(match[1]) * _MS_BY_UNIT[match[2]]
