"""What a list shows of a session, read from its file without decoding it, and going on where an earlier look ended.

This is no check: whether a session can be used is for whoever opens it.
"""

from typing import Final

import msgspec
from msgspec import Struct

from nous.protocol.entries import SessionInfo
from nous.store.disk import Disk
from nous.store.lines import LineTooLongError, read_first_line, read_lines
from nous.store.session_format import MAX_LINE_BYTES, SEAL_BYTES, UnreadableLineError, decode_header

SNIPPET_CHARACTERS: Final = 80

_MESSAGE: Final = b'{"type":"message",'
_COMPACTION: Final = b'{"type":"compaction",'
_CHECKPOINT: Final = b'{"type":"checkpoint",'
_MODEL: Final = b'{"type":"model",'
_LEAFLESS: Final = (_COMPACTION, _MODEL)


class Scan(Struct, frozen=True, gc=False, kw_only=True, array_like=True):
    """What a look at a file found.  ``info`` is None where there is no session, or one that cannot be read.

    ``end`` is behind the last whole line, ``seal`` what stands before it: that tells a file that only grew.
    """

    end: int
    seal: str
    info: SessionInfo | None


class _Peek(Struct, frozen=True):
    """The fields of an entry that a list needs, whatever else the entry holds."""

    created_at: str
    id: str = ""
    parent_id: str = ""
    leaf_id: str = ""


class _Words(Struct, frozen=True):
    text: str = ""
    summary: str = ""


_peek: Final = msgspec.json.Decoder(_Peek).decode
_words: Final = msgspec.json.Decoder(_Words).decode

NOTHING: Final = Scan(end=0, seal="", info=None)


def scan_session(disk: Disk, fd: int, session_id: str, size: int, known: Scan | None) -> Scan:
    """Look at the first ``size`` bytes of a session's file, from where ``known`` ended if that is still a part of it.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        if known is None or known.info is None or not _is_part_of(known, disk, fd, size):
            known = _scan_header(disk, fd, session_id, size)
        return NOTHING if known.info is None else _scan_on(disk, fd, known, known.info, size)
    except (LineTooLongError, UnreadableLineError, msgspec.DecodeError, UnicodeError, RecursionError):
        return NOTHING


def _is_part_of(known: Scan, disk: Disk, fd: int, size: int) -> bool:
    if known.end > size:
        return False
    return disk.read_at(fd, SEAL_BYTES + 1, known.end - SEAL_BYTES - 1) == known.seal.encode()


def _scan_header(disk: Disk, fd: int, session_id: str, size: int) -> Scan:
    """Begin a scan behind the header and the entries that were written with it, which are only counted."""
    line = read_first_line(disk, fd, size, MAX_LINE_BYTES)
    if line is None:
        return NOTHING
    header, _ = decode_header(line)
    if header.id != session_id or not _is_finished(disk, fd, len(line) + 1, size, header.copied):
        return NOTHING
    info = SessionInfo(
        session_id=session_id,
        parent_id=header.parent_id,
        created_at=header.created_at,
        updated_at=header.created_at,
        message_count=0,
    )
    return Scan(end=len(line) + 1, seal=_seal(line), info=info)


def _is_finished(disk: Disk, fd: int, start: int, size: int, copied: int) -> bool:
    found = 0
    for lines in read_lines(disk, fd, start, size, MAX_LINE_BYTES) if copied else ():
        found += len(lines)
        if found >= copied:
            break
    return found >= copied


def _scan_on(disk: Disk, fd: int, known: Scan, info: SessionInfo, size: int) -> Scan:
    end = known.end
    count, snippet = info.message_count, info.snippet
    last = leaf = touched = b""
    for lines in read_lines(disk, fd, known.end, size, MAX_LINE_BYTES):
        for line in lines:
            end += len(line) + 1
            if line.startswith(_MESSAGE):
                count += 1
                leaf = touched = line
                snippet = snippet or _snippet(line)
            elif line.startswith(_CHECKPOINT):
                leaf = line
            elif line.startswith(_LEAFLESS):
                touched = line
                snippet = snippet or (_snippet(line) if line.startswith(_COMPACTION) else "")
            else:
                leaf = touched = line
            last = line
    if not last:
        return known
    info = msgspec.structs.replace(
        info,
        message_count=count,
        snippet=snippet,
        leaf_id=_leaf_id(leaf) if leaf else info.leaf_id,
        updated_at=_peek(touched).created_at if touched else info.updated_at,
    )
    return Scan(end=end, seal=_seal(last), info=info)


def _leaf_id(line: bytes) -> str:
    entry = _peek(line)
    if line.startswith(_CHECKPOINT):
        return entry.parent_id
    return entry.leaf_id or entry.id


def _snippet(line: bytes) -> str:
    words = _words(line)
    text = words.text or words.summary
    return " ".join(text[: SNIPPET_CHARACTERS * 2].split())[:SNIPPET_CHARACTERS]


def _seal(line: bytes) -> str:
    return (line[-SEAL_BYTES:] + b"\n").decode("ascii")
