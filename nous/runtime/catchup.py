"""A late subscriber first reads from disk what it missed, then goes live: no hole, no repeat.

What it missed is what active runs have said so far, and the run that its own process asked for, if that has just ended.
Source: protocol v1, section 6.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anyio.lowlevel

from nous.runtime.daemon import Daemon
from nous.runtime.hub import Listener
from nous.store.trace_lines import event_head
from nous.store.trace_reader import iter_line_batches

if TYPE_CHECKING:
    from nous.runtime.driver import RunDriver

CATCH_UP_BYTES = 256 * 1024
"""How much a subscriber that reads from disk may leave unread before more is read."""


async def follow_events(daemon: Daemon, listener: Listener) -> None:
    """Bring a new listener up to date and keep it subscribed."""
    active = list(daemon.runs.values())
    ended = daemon.prompters.unseen(listener.peer_pid)
    listener.catching.update(run.run_id for run in active)
    daemon.hub.add(listener)
    if ended is not None:
        daemon.prompters.note_seen(listener.peer_pid, ended)
        await _send_events(daemon.traces_root / f"{ended}.ndjson", listener, 0, None)
    for run in active:
        await _catch_up(daemon, listener, run)


async def _catch_up(daemon: Daemon, listener: Listener, run: RunDriver) -> None:
    path = daemon.traces_root / f"{run.run_id}.ndjson"
    position = 0
    while position < run.published_offset:
        end = run.published_offset
        await _send_events(path, listener, position, end)
        position = end
    # No await since the comparison: the next event published is the first one live.
    listener.catching.discard(run.run_id)


async def _send_events(path: Path, listener: Listener, start: int, end: int | None) -> None:
    for lines in iter_line_batches(path, start, end):
        heads = ((line, event_head(line)) for line in lines)
        wanted = [line for line, head in heads if head is not None and head.is_wanted(0, listener.features)]
        if wanted:
            listener.outbox.put(b"\n".join(wanted) + b"\n")
        await listener.outbox.room(CATCH_UP_BYTES)
        await anyio.lowlevel.checkpoint()
