"""Bounds the length of outgoing lines: a payload that is too long is shortened, and says which of its fields were.

Source: protocol v1, section 1.
"""

from typing import Any, Final

import msgspec

ENVELOPE_BYTES: Final = 4096
"""Room for everything around the payload of a line: its envelope, and an id of up to 256 characters."""

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode

_PAYLOAD: Final = b',"payload":'


def bound_payload(payload: bytes, max_bytes: int) -> bytes:
    """Return the payload of a line that is to be no longer than ``max_bytes``, which is at least 64 KiB.

    ``payload`` is a JSON object whose own field names are short.  If it is too long, its longest fields are cut: texts
    and lists to what fits, other values to an empty object or null.  ``truncated_fields`` then names them.
    """
    budget = max_bytes - ENVELOPE_BYTES
    if len(payload) <= budget:
        return payload
    fields = _decode(payload)
    fields.pop("truncated_fields", None)
    sizes = {name: len(_encode(value)) for name, value in fields.items()}
    cut: list[str] = []
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        fields["truncated_fields"] = cut = [*cut, name]
        value, fields[name] = fields[name], None
        fields[name] = _shorten(value, budget - len(_encode(fields)))
        if len(encoded := _encode(fields)) <= budget:
            return encoded
    return _encode({"truncated_fields": cut})


def bound_event(line: bytes, max_bytes: int) -> bytes:
    """Return an event line (LF included), its payload bounded as by :func:`bound_payload`."""
    if len(line) <= max_bytes - ENVELOPE_BYTES:
        return line
    head, mark, payload = line.rstrip(b"\n").partition(_PAYLOAD)
    return head + mark + bound_payload(payload[:-1], max_bytes) + b"}\n"


def _shorten(value: Any, max_bytes: int) -> Any:
    """Return what of a JSON value fits ``max_bytes``."""
    if isinstance(value, str):
        size = max(max_bytes, 0)
        while len(_encode(text := value.encode()[:size].decode("utf-8", "ignore"))) > max_bytes and size:
            size //= 2
        return text
    if isinstance(value, list):
        kept: list[Any] = []
        left = max_bytes - 2
        for item in value:
            left -= len(_encode(item)) + 1
            if left < 0:
                break
            kept.append(item)
        return kept
    return {} if isinstance(value, dict) else None
