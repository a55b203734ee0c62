"""What a client sees: one line of the wire, checked against everything that holds for every line.

A test that reads through here tests sections 1 and 2 of protocol v1 as well, whatever else it is about.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgspec

from nous.errors import CODES
from nous.protocol.events import EVENTS, FEATURE_EVENTS
from nous.protocol.responses import ANSWERS, WireError

MAX_EVENT_BYTES: Final = 1 << 20

_HEAD: Final = re.compile(rb'\{"v":"1","id":"(?:[^"\\]|\\.)*","type":"[a-z_]+",')


class _Envelope(msgspec.Struct):
    payload: msgspec.Raw


_envelopes: Final = msgspec.json.Decoder(_Envelope)
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@dataclass(frozen=True)
class Line:
    """One line out of nous: ``raw`` without its LF, ``data`` decoded."""

    raw: bytes
    data: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.data["id"])

    @property
    def type(self) -> str:
        return str(self.data["type"])

    @property
    def payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = self.data["payload"]
        return payload

    @property
    def is_answer(self) -> bool:
        return "ok" in self.data

    @property
    def run_id(self) -> str:
        return str(self.payload.get("run_id", ""))

    @property
    def code(self) -> str:
        """The code of an error response; ``""`` of a success."""
        return str(self.data["error"]["code"]) if "error" in self.data else ""

    @property
    def cause(self) -> str:
        return str(self.data["error"].get("cause", ""))

    def __repr__(self) -> str:
        return self.raw[:400].decode("utf-8", "replace")


def read_line(raw: bytes, max_event_bytes: int = MAX_EVENT_BYTES) -> Line:
    """Decode one line (without its LF); an AssertionError says which rule of every line it breaks."""
    assert len(raw) < max_event_bytes, f"a line of {len(raw) + 1} bytes"
    assert _HEAD.match(raw), f"v, id and type come first: {raw[:200]!r}"
    data = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    json.dumps(data, ensure_ascii=False).encode("utf-8")  # raises on a lone surrogate
    line = Line(raw, data)
    if line.is_answer:
        _check_answer(line)
    else:
        _check_event(line)
    return line


def _check_answer(line: Line) -> None:
    data = line.data
    if data["ok"]:
        assert list(data) == ["v", "id", "type", "payload", "ok"], line
        msgspec.json.decode(_envelopes.decode(line.raw).payload, type=ANSWERS[line.type])
        return
    assert list(data) == ["v", "id", "type", "payload", "ok", "error"], line
    assert line.type == "error", line
    error = msgspec.convert(data["error"], WireError)
    info = CODES[error.code]
    is_key_missing = error.code == "provider_auth" and (error.cause or "").endswith(": not set")
    sentence = "The provider's key is not set." if is_key_missing else info.message
    reason = "" if error.cause is None else f" ({error.cause})"
    assert (error.category, error.message) == (info.category, sentence + reason), line


def _check_event(line: Line) -> None:
    data, kind = line.data, line.type
    assert _TIMESTAMP.fullmatch(data["ts"]), line
    if kind in FEATURE_EVENTS:
        assert list(data) == ["v", "id", "type", "after_seq", "ts", "payload"], line
        assert re.fullmatch(rf"{re.escape(line.run_id)}\.{data['after_seq']}\.[1-9][0-9]*", line.id), line
        msgspec.convert(line.payload, FEATURE_EVENTS[kind][1])
        return
    msgspec.convert(line.payload, EVENTS[kind])
    if line.run_id and "untraced" not in line.id:
        assert list(data) == ["v", "id", "type", "seq", "ts", "payload"], line
        assert line.id == f"{line.run_id}.{data['seq']}", line
    elif not line.run_id:
        assert list(data) == ["v", "id", "type", "ts", "payload"], line
        assert re.fullmatch(r"evt-[1-9][0-9]*", line.id), line


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    assert len(out) == len(pairs), "a key stands there twice"
    return out


def _no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


def types(lines: list[Line]) -> list[str]:
    return [line.type for line in lines]


def joined_deltas(lines: list[Line], kind: str = "message_update") -> str:
    """Return the deltas of one type of event, joined."""
    return "".join(line.payload["delta"] for line in lines if line.type == kind)


VOLATILE: Final = frozenset(
    {"run_id", "session_id", "message_id", "leaf_id", "command_id", "command_ids", "tool_call_id", "duration_ms"}
)
"""Fields of events that differ from run to run, whatever happened."""


def normal(lines: list[Line]) -> list[tuple[str, dict[str, Any]]]:
    """Return events without what makes one run differ from the same run once more."""
    return [(line.type, {k: v for k, v in line.payload.items() if k not in VOLATILE}) for line in lines]


def of_type(lines: list[Line], *kinds: str) -> list[Line]:
    return [line for line in lines if line.type in kinds]
