"""Ends the runs of a daemon that stops, in bounded time."""

from __future__ import annotations

from typing import Final

import anyio

from nous.engine.inputs import AbortReason
from nous.runtime.daemon import Daemon
from nous.telemetry.log import get_log

log = get_log("runtime")

ABORT_MARGIN_MS: Final = 500
"""What a run's end may take beyond its abort grace: writing and syncing its last events."""


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
