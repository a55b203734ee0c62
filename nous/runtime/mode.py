"""How a connection is served: by protocol v1 as it is now, or as the original implementation of v1 served it."""

from __future__ import annotations

from enum import Enum


class Mode(Enum):
    """The mode of a connection.  A socket connection is ``LEGACY`` until it says ``hello``; stdio never is.

    Source: docs/compatibility.md.
    """

    CURRENT = "current"
    LEGACY = "legacy"

    @property
    def answers_in_order(self) -> bool:
        """Whether answers leave in the order of their commands."""
        return self is Mode.LEGACY

    @property
    def one_run_at_a_time(self) -> bool:
        """Whether a prompt that names no session is refused while any run is active."""
        return self is Mode.LEGACY
