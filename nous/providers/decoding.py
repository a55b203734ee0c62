"""An event's data as a struct, also where a server is careless with characters, numbers or ids.  Pure.

A field that an answer needs fails it with the field's name if it is not what it should be.  A field that nobody needs
is decoded as ``Any`` and read by the functions here, which never fail an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from nous.errors import NousError
from nous.protocol.messages import Usage
from nous.providers.faults import malformed
from nous.providers.text import clean

T = TypeVar("T")

MAX_COUNT: Final = 2**53
"""No count of tokens is as high; JSON readers take integers up to here."""

_PLACE: Final = re.compile(r" - at `(\$[A-Za-z0-9_.\[\]]*)`\Z")
_DIGITS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


def decode_event(decoder: msgspec.json.Decoder[T], data: bytes, what: str) -> T:
    """Decode one event's data; ``what`` names the shape it should have.

    The fast decoder refuses what a strict one must: half a surrogate pair, bytes that are not UTF-8.  Both come
    from servers that cut characters in two, so the lenient decoder of the standard library has a second look.

    Raises:
        NousError: ``provider_error``; nothing of the data is repeated in it.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise misshapen(error, what) from None
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    import json

    try:
        return msgspec.convert(json.loads(data.decode("utf-8", "replace")), decoder.type)
    except msgspec.ValidationError as error:
        raise misshapen(error, what) from None
    except (ValueError, RecursionError):
        raise malformed("an event is not JSON") from None


def misshapen(error: msgspec.ValidationError, what: str) -> NousError:
    """Return the error for an event that is not ``what``, with the path of the field: the path is ours, no data."""
    place = _PLACE.search(str(error))
    return malformed(f"an event is not {what}" + (f": {place[1]}" if place else ""))


def encode_text(value: Any) -> str:
    """Return a decoded value as JSON text; half a surrogate pair in it becomes U+FFFD."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        import json

        return clean(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def read_index(value: object, name: str) -> int | None:
    """Return an index, also as text; None if there is none.

    Raises:
        NousError: ``provider_error`` with ``name``: which part of the answer is meant cannot be known.
    """
    if value is None or type(value) is int:
        return value
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer() and 0 <= value < MAX_COUNT:
        return int(value)
    raise malformed(f"{name} is not an index")


def read_id(value: object) -> str:
    """Return an id, also where a server numbers them; ``""`` if there is none."""
    if isinstance(value, str):
        return clean(value)
    return str(value) if type(value) is int else ""


class NotACountError(ValueError):
    """A field of a usage report is not a number of tokens."""


def read_count(found: dict[str, Any], name: str) -> int:
    """Return a number of tokens; one that is left out or null is 0.  Raises :class:`NotACountError`."""
    value = found.get(name)
    if value is None:
        return 0
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise NotACountError(name)
    return value


def read_details(found: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the object that breaks a count down; PHP writes an empty one as a list.  Raises NotACountError."""
    value = found.get(name)
    if value is None or value == []:
        return {}
    if not isinstance(value, dict):
        raise NotACountError(name)
    return value


def read_usage(found: object, read: Callable[[dict[str, Any]], Usage]) -> Usage | None:
    """Return a usage report read by ``read``; None, not known, if anything in it is not a count."""
    try:
        return read(found) if isinstance(found, dict) else None
    except NotACountError:
        return None
