"""What a command may know of the daemon's environment: everything but keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

CONSENT_VARIABLE: Final = "NOUS_ALLOW_BOOTSTRAP"

SECRET_WORDS: Final = ("KEY", "TOKEN", "SECRET", "PASSWORD")
"""A variable with one of these in its name stays with the daemon (docs/tools.md, "Commands")."""


def open_environment(environ: Mapping[str, str], closed_names: Collection[str]) -> dict[str, str]:
    """Return ``environ`` without ``closed_names`` (those that settings ending in ``_env`` name) and without secrets.

    Also without the permission to make a state directory: it was given to this daemon, not to what a model starts.
    """
    return {
        name: value
        for name, value in environ.items()
        if name not in (*closed_names, CONSENT_VARIABLE) and not any(word in name.upper() for word in SECRET_WORDS)
    }
