"""P: the protocol is frozen.  ``frozen.json`` holds what version 1 promised when it was frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from nous.protocol.codec import CommandDecoder, Refused
from nous.protocol.schema import documents
from scripts.check_drift import drifted
from scripts.gate.checks import ROOT, Place, Table, expect

FROZEN: Final = Path(__file__).with_name("frozen.json")

_LOOSE: Final = {"description", "default", "examples", "title"}
"""What a schema may change without changing what is promised."""


def shape(schema: Any) -> Any:
    """Return what a schema promises: the same for two that differ in words only."""
    if isinstance(schema, dict):
        return {key: shape(value) for key, value in sorted(schema.items()) if key not in _LOOSE or key == "properties"}
    return [shape(item) for item in schema] if isinstance(schema, list) else schema


def fields_of(line: dict[str, Any]) -> dict[str, Any]:
    """Return a type's fields, those of its envelope and ``payload.`` ones: each with its shape and whether required."""
    found: dict[str, Any] = {}
    payload = line["properties"].get("payload", {})
    for prefix, part in (("", line), ("payload.", payload)):
        required = part.get("required", [])
        for name, schema in part.get("properties", {}).items():
            if f"{prefix}{name}" != "payload":
                found[f"{prefix}{name}"] = {"required": name in required, "shape": shape(schema)}
    return found


def current() -> dict[str, dict[str, Any]]:
    """Return every type of every document and its fields, as the code has them now."""
    return {
        name: {
            ref["$ref"].rpartition("/")[2]: fields_of(document["$defs"][ref["$ref"].rpartition("/")[2]])
            for ref in document["oneOf"]
        }
        for name, document in documents().items()
    }


def keeps(was: Any, now: Any) -> bool:
    """Return whether what a schema promised still holds: it is the same, but a list of values may have grown."""
    if isinstance(was, dict) and isinstance(now, dict):
        return was.keys() == now.keys() and all(
            set(old) <= set(now[key]) if key == "enum" and isinstance(old, list) else keeps(old, now[key])
            for key, old in was.items()
        )
    if isinstance(was, list) and isinstance(now, list):
        return len(was) == len(now) and all(keeps(*pair) for pair in zip(was, now, strict=True))
    return bool(was == now)


def broken_promises(frozen: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> list[str]:
    """Return what was promised and does not hold any more.  New types, optional fields and values break nothing."""
    out: list[str] = []
    for document, types in frozen.items():
        for kind, fields in types.items():
            have = now.get(document, {}).get(kind)
            if have is None:
                out.append(f"{document}: {kind} is gone")
                continue
            out += [
                f"{document}: {kind}.{name} is not what it was"
                for name, was in fields.items()
                if not keeps(was, have.get(name))
            ]
            # A command that begins to demand a field refuses what it took before.
            demands = [
                name for name in have if name not in fields and have[name]["required"] and "commands" in document
            ]
            out += [f"{document}: {kind}.{name} is demanded" for name in demands]
    return out


async def frozen_tables(place: Place) -> str:
    frozen = msgspec.json.decode(FROZEN.read_bytes())
    broken = broken_promises(frozen, current())
    expect(not broken, "; ".join(broken[:5]))
    return f"{sum(map(len, frozen.values()))} types as they were frozen"


async def schema_is_published(place: Place) -> str:
    stale = drifted(ROOT)
    expect(not stale, f"stale: {', '.join(map(str, stale))}")
    return "protocol/v1 is what the code speaks"


async def examples_are_taken(place: Place) -> str:
    lines = (ROOT / "protocol" / "v1" / "examples" / "commands.ndjson").read_bytes()
    items = list(CommandDecoder(1 << 20).feed(lines))
    refused = [item for item in items if isinstance(item, Refused)]
    expect(bool(items) and not refused, f"{len(refused)} of {len(items)} example commands are refused")
    return f"{len(items)} example commands are taken"


CHECKS: Table = {
    "P.1": ("what was frozen of protocol v1 is as it was", frozen_tables),
    "P.2": ("the published schema is the code's", schema_is_published),
    "P.3": ("the published examples are taken", examples_are_taken),
}
