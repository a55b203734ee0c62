"""The request to stop a daemon: who made it and how urgent it is.  :mod:`nous.runtime.drain` carries it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import anyio

StopReason = Literal["eof", "shutdown", "signal", "client_gone"]


class StopRequest:
    """Collects requests to stop.  The first one's ``reason`` is announced; a later one can only be more urgent.

    ``on_urgent`` is called once, when what still runs is to be aborted: the end has begun and is bounded from then on.
    """

    def __init__(self) -> None:
        self.requested = anyio.Event()
        self.urgent = anyio.Event()
        self.reason: StopReason = "eof"
        self.on_urgent: Callable[[], None] = lambda: None

    def request(self, reason: StopReason, *, abort: bool = False) -> None:
        """Ask the daemon to stop; with ``abort`` at once, without waiting for its runs."""
        if not self.requested.is_set():
            self.reason = reason
            self.requested.set()
        if abort and not self.urgent.is_set():
            self.urgent.set()
            self.on_urgent()
