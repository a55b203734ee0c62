"""The answer of a sync prompt, made from the run's events as they stand on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from nous.protocol.responses import Result
from nous.store.trace_reader import iter_events

if TYPE_CHECKING:
    from nous.runtime.driver import RunDriver

ENVELOPE_BYTES: Final = 4096

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


def run_result(driver: RunDriver, traces_root: Path, max_event_bytes: int) -> Result:
    """Return the result of a run that has ended.  ``events`` is cut where the line would pass ``max_event_bytes``."""
    output = driver.machine.calls.last_text
    budget = max_event_bytes - ENVELOPE_BYTES
    output_bytes = len(msgspec.json.encode(output))
    cut = output_bytes > budget // 2
    if cut:
        # The whole text is in the events; a line has its limit.
        output = output.encode()[: budget // 12].decode("utf-8", "ignore")
        output_bytes = len(msgspec.json.encode(output))
    budget -= output_bytes
    events: list[dict[str, Any]] = []
    truncated = False
    for line in iter_events(traces_root / f"{driver.run_id}.ndjson"):
        budget -= len(line)
        if budget < 0:
            truncated = True
            break
        events.append(flatten_event(line))
    return Result(
        output=output,
        events=events,
        session_id=driver.session_id,
        run_id=driver.run_id,
        leaf_id=driver.machine.leaf_id or UNSET,
        events_truncated=True if truncated else UNSET,
        output_truncated=True if cut else UNSET,
    )


def flatten_event(line: bytes) -> dict[str, Any]:
    """Return an event as v1's first clients know it: ``type``, ``ts``, ``turn`` and the payload's fields."""
    event = _decode(line)
    payload: dict[str, Any] = event["payload"]
    turn = payload.get("turn_id", "")
    flat: dict[str, Any] = {"type": event["type"], "ts": event["ts"], "turn": int(turn) if turn else 0}
    return flat | {k: v for k, v in payload.items() if k not in flat}
