"""What a command may know of the daemon's environment: everything but keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

SECRET_WORDS: Final = ("KEY", "TOKEN", "SECRET", "PASSWORD")
"""A variable with one of these in its name stays with the daemon (docs/hardening, Boundaries)."""


def open_environment(environ: Mapping[str, str], closed_names: Collection[str]) -> dict[str, str]:
    """Return ``environ`` without ``closed_names`` (those that settings ending in ``_env`` name) and without secrets."""
    return {
        name: value
        for name, value in environ.items()
        if name not in closed_names and not any(word in name.upper() for word in SECRET_WORDS)
    }
