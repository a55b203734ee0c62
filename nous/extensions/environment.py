"""What an extension may know of the daemon's environment: a few harmless variables, and those its manifest names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

CORRELATION: Final = "NOUS_CORRELATION_ID"

ALLOWED: Final = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", CORRELATION}
)
_ALLOWED_PREFIX: Final = "LC_"


def extension_environment(
    environ: Mapping[str, str], named: Collection[str], closed: Collection[str], workdir: Path
) -> dict[str, str]:
    """Return the environment of an extension.

    ``named`` are the variables of its manifest; those in ``closed`` (the daemon's own keys) it never gets.
    ``NOUS_WORKDIR`` says where the tools work.  Python writes no byte code: it would change what was trusted.
    """
    wanted = {*ALLOWED, *named}
    passed = {
        name: value
        for name, value in environ.items()
        if (name in wanted or name.startswith(_ALLOWED_PREFIX)) and name not in closed
    }
    return {**passed, "NOUS_WORKDIR": str(workdir), "PYTHONDONTWRITEBYTECODE": "1"}
