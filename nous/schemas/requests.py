"""What the daemon and the worker process that evaluates schemas say to each other.

A request is four bytes of length (big-endian) and a marshalled tuple: a kind and what belongs to it.  Marshal keeps
infinity and surrogates, which JSON does not.  A reply is one line of JSON.
"""

import marshal
from typing import Any, BinaryIO, Final

import msgspec
from msgspec import Struct

RETIRE_BYTES: Final = 256 << 20
"""Resident memory: a worker that still holds more than this after a request is not used again."""

MAX_REPLY_BYTES: Final = 64 * 1024

_LENGTH_BYTES: Final = 4


class CheckReply(Struct, frozen=True):
    """What came of a request: ``fault``, or None if there is none.

    ``over_memory``: the request was given up.  ``retires``: the worker takes no further request.
    """

    fault: str | None
    over_memory: bool = False
    retires: bool = False


_replies: Final = msgspec.json.Decoder(CheckReply)


def encode_request(kind: str, *given: Any) -> bytes:
    """Return the bytes of a request.

    Raises:
        ValueError: something in it nests deeper than marshal goes (2,000 levels) or is no JSON value.
    """
    body = marshal.dumps((kind, *given))
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def read_request(stdin: BinaryIO) -> tuple[Any, ...] | None:
    """Read the next request; None at the end of the stream."""
    head = stdin.read(_LENGTH_BYTES)
    body = stdin.read(int.from_bytes(head, "big"))
    request: tuple[Any, ...] | None = marshal.loads(body) if body else None
    return request


def encode_reply(reply: CheckReply) -> bytes:
    """Return a reply as one line."""
    return msgspec.json.encode(reply) + b"\n"


def decode_reply(line: bytes | bytearray) -> CheckReply | None:
    """Return the reply on a line, or None if it is none."""
    try:
        return _replies.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
