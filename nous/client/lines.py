"""The daemon's lines as a client sees them: events and responses, decoded once, their bytes kept."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from nous.client.errors import CommandError, NotTheProtocolError, WireError


class Event(Struct, frozen=True, kw_only=True):
    """What happened.  ``line`` is the line as it came, without its LF.

    ``seq`` is None on feature events (they carry ``after_seq``) and on events outside any run.
    """

    id: str
    type: str
    payload: dict[str, Any]
    line: bytes
    ts: str = ""
    seq: int | None = None
    after_seq: int | None = None

    @property
    def run_id(self) -> str:
        """The run it belongs to; ``""`` for the daemon's own events."""
        run_id = self.payload.get("run_id", "")
        return run_id if isinstance(run_id, str) else ""


class Response(Struct, frozen=True, kw_only=True):
    """The answer to a command.  ``error`` is set where ``ok`` is false; ``line`` is the line as it came."""

    id: str
    type: str
    ok: bool
    payload: dict[str, Any]
    line: bytes
    error: CommandError | None = None


class _Line(Struct, frozen=True):
    id: str
    type: str
    payload: dict[str, Any] = {}
    ok: bool | UnsetType = UNSET
    error: WireError | UnsetType = UNSET
    ts: str = ""
    seq: int | None = None
    after_seq: int | None = None


_decoder = msgspec.json.Decoder(_Line)
_encoder = msgspec.json.Encoder()


def decode_line(line: bytes) -> Event | Response:
    """Return what a line says: one with ``ok`` is a response, one without is an event.

    Raises:
        NotTheProtocolError: it is neither.
    """
    try:
        found = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NotTheProtocolError(line) from None
    if found.ok is UNSET:
        return Event(
            id=found.id,
            type=found.type,
            payload=found.payload,
            line=line,
            ts=found.ts,
            seq=found.seq,
            after_seq=found.after_seq,
        )
    error = None
    if not found.ok:
        wire = WireError() if found.error is UNSET else found.error
        error = CommandError(wire, found.payload)
    return Response(id=found.id, type=found.type, ok=found.ok, payload=found.payload, line=line, error=error)


def encode_command(command_id: str, kind: str, payload: dict[str, Any]) -> bytes:
    """Return one command line, LF included.  Raises TypeError or UnicodeEncodeError for what JSON cannot hold."""
    return _encoder.encode({"v": "1", "id": command_id, "type": kind, "payload": payload}) + b"\n"
