"""The stop of a daemon: who asked for it, how urgently, and the bounded steps that end its runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

import anyio

from nous.engine.inputs import AbortReason
from nous.telemetry.log import get_log

if TYPE_CHECKING:
    from nous.runtime.daemon import Daemon

log = get_log("runtime")

StopReason = Literal["eof", "shutdown", "signal", "client_gone"]

ABORT_MARGIN_MS: Final = 500
"""What a run's end may take beyond its abort grace: writing and syncing its last events."""


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
        if not self.requested.is_set():
            self.reason = reason
            self.requested.set()
        if abort and not self.urgent.is_set():
            self.urgent.set()
            self.on_urgent()


async def end_runs(daemon: Daemon, drain_ms: int) -> None:
    """Take no more prompts and bring every run to its end.

    Waits up to ``drain_ms`` (less if the stop becomes urgent), then aborts what is left; an aborted run ends within its
    grace, so this returns within ``drain_ms`` + the grace + half a second.
    """
    daemon.accepting = False
    with anyio.move_on_after(drain_ms / 1000):
        await _idle_or_urgent(daemon)
    daemon.stop.request(daemon.stop.reason, abort=True)
    if not daemon.runs:
        return
    reason: AbortReason = daemon.stop.reason
    daemon.abort_all(reason)
    with anyio.move_on_after((daemon.settings.daemon.abort_grace_ms + ABORT_MARGIN_MS) / 1000) as scope:
        await daemon.wait_idle()
    if scope.cancelled_caught:
        log.error("runs_did_not_end", count=len(daemon.runs))


async def _idle_or_urgent(daemon: Daemon) -> None:
    async def wait_urgent(scope: anyio.CancelScope) -> None:
        await daemon.stop.urgent.wait()
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_urgent, tasks.cancel_scope)
        await daemon.wait_idle()
        tasks.cancel_scope.cancel()
