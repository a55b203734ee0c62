"""An event's data as a struct, also where a server is careless with characters.  Pure."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from nous.providers.faults import malformed

T = TypeVar("T")


def decode_event(decoder: msgspec.json.Decoder[T], data: bytes, what: str) -> T:
    """Decode one event's data; ``what`` names the shape it should have.

    The fast decoder refuses what a strict one must: half a surrogate pair, bytes that are not UTF-8.  Both come
    from servers that cut characters in two, so the lenient decoder of the standard library has a second look.

    Raises:
        NousError: ``provider_error``; nothing of the data is repeated in it.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise malformed(f"an event is not {what}") from None
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    import json

    try:
        return msgspec.convert(json.loads(data.decode("utf-8", "replace")), decoder.type)
    except msgspec.ValidationError:
        raise malformed(f"an event is not {what}") from None
    except (ValueError, RecursionError):
        raise malformed("an event is not JSON") from None


def encode_text(value: Any) -> str:
    """Return a decoded value as JSON text; half a surrogate pair in it becomes U+FFFD."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        import json

        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
