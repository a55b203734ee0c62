"""The lines of a session's file, and the chain that ties them together.

    {"type":"session","format":1,"id":...,"created_at":...,"parent_id"?,"copied"?,"pruned"?,"models"?, CHAIN}
    {"type":"message", ... as nous.protocol.messages.Message ...,                            CHAIN}
    {"type":"leaf","id":...,"parent_id"?,"leaf_id":...,"created_at":...,                     CHAIN}
    {"type":"compaction", ... as nous.protocol.entries.Compaction ...,                       CHAIN}
    {"type":"model", ... as nous.protocol.entries.ModelChange ...,                           CHAIN}
    {"type":"checkpoint","id":...,"parent_id"?,"created_at":...,                             CHAIN}

    CHAIN = "n":<its number in the session, the header is 0>,"prev":<digest of the line before>,"digest":<its own>

``digest`` is the first half of the SHA-256, in hex, over every byte of the line before its value; behind it stand only
``"}`` and LF.  The digest covers ``prev``, so each line vouches for all before it.  A line's kind is its ``type``: new
kinds may come, and a reader that meets one it does not know refuses the session instead of guessing what it means.
The header may begin at another ``n`` than 0 with a ``prev`` of its own: a file that was pruned goes on counting where
the old one ended, and its ``prev`` is the digest of the old one's last line.
"""

from hashlib import sha256
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from nous.protocol.entries import Compaction, ModelChange
from nous.protocol.messages import Message

FORMAT: Final = 1

MAX_LINE_BYTES: Final = 256 * 1024 * 1024
"""Longer than any message may be (32 MiB of text, every byte of it escaped, and its images)."""

_DIGEST_CHARS: Final = 32
_TAIL: Final = b'"}'
SEAL_BYTES: Final = _DIGEST_CHARS + len(_TAIL)
"""What ends a line (without its LF) and is not covered by its digest: the digest itself, a quote and a brace."""


class SessionHeader(Struct, frozen=True, kw_only=True, tag="session", omit_defaults=True):
    """The first line.  ``parent_id`` names the session this one was branched from; ``copied`` counts the entries that
    were written with the header: a file with fewer is a branch that was never finished, so there is no such session.
    ``pruned`` names removed messages that are still pointed to, each with the compaction whose summary covers it;
    ``models`` the change of the model they were added under, if there was one.
    """

    format: int
    id: str
    created_at: str
    parent_id: str = ""
    copied: int = 0
    pruned: dict[str, str] = {}
    models: dict[str, ModelChange] = {}


class LeafMove(Struct, frozen=True, kw_only=True, tag="leaf", omit_defaults=True):
    """The active leaf became ``leaf_id``; ``parent_id`` is what it was before."""

    id: str
    parent_id: str = ""
    leaf_id: str
    created_at: str


class Checkpoint(Struct, frozen=True, kw_only=True, tag="checkpoint", omit_defaults=True):
    """What stands before may be pruned, if it was compacted; the active leaf was ``parent_id``."""

    id: str
    parent_id: str = ""
    created_at: str


Entry = Message | LeafMove | Compaction | ModelChange | Checkpoint


class EntryLink(NamedTuple):
    """A line's place in the chain: its number and its digest (hex)."""

    n: int
    digest: bytes


ORIGIN: Final = EntryLink(-1, b"")
"""What the header of a new session follows."""


class UnreadableLineError(Exception):
    """A line is not what a session's file holds; ``reason`` says why.  ``newer``: intact, but of an unknown kind."""

    def __init__(self, reason: str, *, newer: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.newer = newer


class _HeaderLink(Struct, frozen=True):
    n: int
    prev: str


_encode = msgspec.json.Encoder().encode
_entries: Final[msgspec.json.Decoder[Entry]] = msgspec.json.Decoder(Entry)
_headers = msgspec.json.Decoder(SessionHeader)
_header_links = msgspec.json.Decoder(_HeaderLink)


def encode_line(content: SessionHeader | Entry, before: EntryLink) -> tuple[bytes, EntryLink]:
    """Return the line (LF included) that follows ``before`` in the chain, and its own place there."""
    return chain_line(_encode(content)[:-1], before)


def chain_line(content: bytes, before: EntryLink) -> tuple[bytes, EntryLink]:
    """Do the same with a line's own part: what :func:`unchained` returns."""
    body = content + _chain(before)
    digest = _digest(body)
    return body + digest + b'"}\n', EntryLink(before.n + 1, digest)


def unchained(line: bytes, before: EntryLink) -> bytes:
    """Return the own part, byte for byte, of a line (without LF) that was found intact behind ``before``."""
    return line[: -SEAL_BYTES - len(_chain(before))]


def check_line(line: bytes, before: EntryLink) -> EntryLink:
    """Return the place in the chain of a line (without LF) that follows ``before``.

    Raises:
        UnreadableLineError: it does not follow, or its bytes are not those that were written.
    """
    body = line[:-SEAL_BYTES]
    digest = _digest(body)
    if line[-SEAL_BYTES:] != digest + _TAIL:
        raise UnreadableLineError("its digest does not fit its bytes")
    if not body.endswith(_chain(before)):
        raise UnreadableLineError("it does not follow the line before it")
    return EntryLink(before.n + 1, digest)


def decode_entry(line: bytes) -> Entry:
    """Decode a line that :func:`check_line` found intact."""
    try:
        return _entries.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableLineError("this version of nous does not know what it is", newer=True) from None


def decode_header(line: bytes) -> tuple[SessionHeader, EntryLink]:
    """Decode and check the first line."""
    try:
        link = _header_links.decode(line)
        before = EntryLink(link.n - 1, link.prev.encode())
        checked = check_line(line, before)
        header = _headers.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise UnreadableLineError("it is not the header of a session") from None
    if header.format != FORMAT:
        raise UnreadableLineError(f"format {header.format} is not known to this version of nous", newer=True)
    return header, checked


def _chain(before: EntryLink) -> bytes:
    return b',"n":%d,"prev":"%b","digest":"' % (before.n + 1, before.digest)


def _digest(body: bytes) -> bytes:
    return sha256(body).hexdigest()[:_DIGEST_CHARS].encode()
