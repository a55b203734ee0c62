"""The recorded runs of the project, and ways to tamper with them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.support.home import ROOT

RUNS: Final = ROOT / "fixtures" / "runs"
FIXTURES: Final = tuple(sorted(RUNS.glob("*.trace.ndjson")))

Json = dict[str, Any]


def fixture(name: str) -> Path:
    return RUNS / f"{name}.trace.ndjson"


def read_lines(path: Path) -> list[bytes]:
    """Return a trace's lines, LF excluded."""
    *lines, rest = path.read_bytes().split(b"\n")
    assert rest == b""
    return lines


def seal(lines: Iterable[bytes]) -> bytes:
    """Return the bytes of a trace with these lines, its last one sealed anew: what one does who means to deceive."""
    *body, end = lines
    head = b"".join(line + b"\n" for line in body) + end[: end.rindex(b',"sha256":"')] + b',"sha256":"'
    return head + hashlib.sha256(head).hexdigest().encode() + b'"}\n'


def write_sealed(path: Path, lines: Iterable[bytes]) -> Path:
    path.write_bytes(seal(lines))
    return path


def edited(line: bytes, edit: Callable[[Json], object]) -> bytes:
    """Return a line after a change of what it says."""
    data = msgspec.json.decode(line)
    edit(data)
    return msgspec.json.encode(data)


def position(lines: Sequence[bytes], kind: str, nth: int = 0) -> int:
    """Return the index of the nth line whose ``type``, or whose ``kind``, is this."""
    decoded = (msgspec.json.decode(line) for line in lines)
    found = [index for index, data in enumerate(decoded) if kind in (data["type"], data.get("kind"))]
    return found[nth]


def cut(lines: Sequence[bytes]) -> list[bytes]:
    """Return a trace that was cut behind these lines, as a later daemon closes it."""
    kinds = [msgspec.json.decode(line) for line in lines]
    counts = {
        "inputs": sum(k["type"] == "trace.input" for k in kinds),
        "events": sum("seq" in k for k in kinds),
        "effects": sum(k["type"] == "trace.effect" for k in kinds),
    }
    end = {"type": "trace.end", "status": "interrupted", "ended_at": "2026-11-21T10:00:00.000Z", "counts": counts}
    return [*lines, msgspec.json.encode({**end, "sha256": ""})]
