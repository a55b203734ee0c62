"""The answer of a sync prompt, made from the run's events as they stand on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from nous.errors import NousError
from nous.protocol.responses import Result
from nous.store.trace_reader import iter_events

if TYPE_CHECKING:
    from nous.runtime.driver import RunDriver

ENVELOPE_BYTES: Final = 4096

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_decode_result: Final = msgspec.json.Decoder(Result).decode


def run_result(driver: RunDriver, traces_root: Path, max_event_bytes: int) -> Result:
    """Return the result of a run that has ended.  ``events`` is cut where the line would pass ``max_event_bytes``."""
    output = driver.last_text
    budget = max_event_bytes - ENVELOPE_BYTES
    output_bytes = len(msgspec.json.encode(output))
    cut = output_bytes > budget // 2
    if cut:
        # The whole text is in the events; a line has its limit.
        output = output.encode()[: budget // 12].decode("utf-8", "ignore")
        output_bytes = len(msgspec.json.encode(output))
    budget -= output_bytes
    events, truncated = _read_events(traces_root, driver.run_id, budget)
    return Result(
        output=output,
        events=events,
        session_id=driver.session_id,
        run_id=driver.run_id,
        leaf_id=driver.leaf_id or UNSET,
        events_truncated=True if truncated else UNSET,
        output_truncated=True if cut else UNSET,
    )


def with_events(payload: bytes, traces_root: Path, max_event_bytes: int) -> bytes:
    """Return the payload of a result that was kept without its events, with them.  Blocks.

    Of a run whose trace is gone by now there are none: ``events_truncated`` says so.
    """
    kept = _decode_result(payload)
    try:
        events, truncated = _read_events(traces_root, kept.run_id, max_event_bytes - ENVELOPE_BYTES - len(payload))
    except NousError:
        events, truncated = [], True
    result = msgspec.structs.replace(kept, events=events, events_truncated=True if truncated else UNSET)
    return msgspec.json.encode(result)


def _read_events(traces_root: Path, run_id: str, budget: int) -> tuple[list[dict[str, Any]], bool]:
    """Return a run's events as far as ``budget`` bytes go, and whether there are more."""
    events: list[dict[str, Any]] = []
    for line in iter_events(traces_root / f"{run_id}.ndjson"):
        budget -= len(line)
        if budget < 0:
            return events, True
        events.append(flatten_event(line))
    return events, False


def flatten_event(line: bytes) -> dict[str, Any]:
    """Return an event as v1's first clients know it: ``type``, ``ts``, ``turn`` and the payload's fields."""
    event = _decode(line)
    payload: dict[str, Any] = event["payload"]
    turn = payload.get("turn_id", "")
    flat: dict[str, Any] = {"type": event["type"], "ts": event["ts"], "turn": int(turn) if turn else 0}
    return flat | {k: v for k, v in payload.items() if k not in flat}
