"""What ``write`` does about the encoding of the file that it replaces: a known one is kept, another is never lost."""

from __future__ import annotations

import codecs
import os
from typing import Final

from nous.tools.blocking import Stop
from nous.tools.encodings import UTF_8, detect_encoding, is_iso_2022
from nous.tools.failure import ToolFailure, describe, quoted
from nous.tools.paths import Place
from nous.tools.text import SNIFFED_BYTES

_READ_BYTES: Final = 1024 * 1024
_BOM: Final = "\ufeff"


def encode_like(place: Place, content: str, stop: Stop) -> tuple[bytes, str]:
    """Return ``content`` in the encoding of the file at ``place``, and what the result says about it (often ``""``).

    UTF-16 and UTF-8 with a byte order mark are kept.  A new file and a binary one become UTF-8.

    Raises:
        ToolFailure: the file's encoding is not known, and ``content`` is not ASCII; or the file cannot be read.
    """
    if not place.is_regular():
        return content.encode(), ""
    fd = place.open_regular()
    try:
        encoding = detect_encoding(os.pread(fd, SNIFFED_BYTES, 0))
        if encoding is None:
            return content.encode(), " It was a binary file before and is UTF-8 text now."
        if encoding != UTF_8:
            data = encoding.bom + content.removeprefix(_BOM).encode(encoding.codec)
            return data, f" Its encoding is {encoding.label}, as before."
        if not content.isascii() and not _is_utf8(fd, stop):
            raise ToolFailure(
                f"{quoted(place.given)} is not UTF-8, and its encoding is not known: only ASCII text can replace it. "
                "Convert it to UTF-8 with a command (iconv) first, or remove it."
            )
    except OSError as error:
        raise describe(place.given, error) from None
    finally:
        os.close(fd)
    return content.encode(), ""


def _is_utf8(fd: int, stop: Stop) -> bool:
    """Return whether the whole file is UTF-8; ISO-2022-JP, whose bytes are ASCII, is not."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    at, last = 0, b""
    try:
        while block := os.pread(fd, _READ_BYTES, at):
            stop.check()
            at += len(block)
            decoder.decode(block)
            if is_iso_2022(last + block):
                return False
            last = block[-8:]
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
