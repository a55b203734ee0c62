"""The encodings in which files are read as text: UTF-8, with or without a byte order mark, and UTF-16 with one.

Bytes that are not UTF-8 in a file without a byte order mark stay what they are: its encoding is not known.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from nous.tools.text import looks_binary


class TextEncoding(NamedTuple):
    """``codec`` is Python's name for it, without the byte order mark ``bom``; ``label`` is for people."""

    codec: str
    bom: bytes
    label: str


UTF_8: Final = TextEncoding("utf-8", b"", "UTF-8")
UTF_8_BOM: Final = TextEncoding("utf-8", codecs.BOM_UTF8, "UTF-8 with a byte order mark")
UTF_16_LE: Final = TextEncoding("utf-16-le", codecs.BOM_UTF16_LE, "UTF-16 (little-endian)")
UTF_16_BE: Final = TextEncoding("utf-16-be", codecs.BOM_UTF16_BE, "UTF-16 (big-endian)")

_ISO_2022: Final = re.compile(r"\x1b(?:\$(?:[@AB]|\([CDOPQ])|\(I).*?(?:\x1b\([BJ]|\Z)", re.DOTALL)
"""ISO-2022-JP leaves ASCII by one escape sequence and comes back to it by another."""


def detect_encoding(head: bytes) -> TextEncoding | None:
    """Return the encoding of a file that begins with ``head``, ``None`` if it is binary.

    ``head`` is the whole file or at least ``SNIFFED_BYTES`` of it.
    """
    for encoding in (UTF_16_LE, UTF_16_BE):
        # The byte order mark of UTF-32 begins like that of UTF-16; what follows is a NUL then.
        if head.startswith(encoding.bom):
            text = head[len(encoding.bom) :].decode(encoding.codec, "replace")
            return None if looks_binary(text.encode("utf-8", "replace")) else encoding
    if looks_binary(head):
        return None
    return UTF_8_BOM if head.startswith(UTF_8_BOM.bom) else UTF_8


def iso_2022_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where in a text characters beyond ASCII stand in ISO-2022-JP: from one escape sequence to behind the next.

    There is none in a text that is not ASCII, which ISO-2022-JP is byte by byte.
    """
    if text.isascii():
        yield from (found.span() for found in _ISO_2022.finditer(text))


def is_iso_2022(data: bytes) -> bool:
    """Return whether ``data`` is ISO-2022-JP with characters beyond ASCII in it."""
    return data.isascii() and any(iso_2022_spans(data.decode("ascii")))


def utf8_blocks(fd: int, encoding: TextEncoding, block_bytes: int) -> Iterator[bytes]:
    """Yield the text of an open file from its beginning as UTF-8, without its byte order mark, block by block.

    A character of UTF-16 that is none becomes U+FFFD.  The descriptor's position does not count and stays.
    """
    decoder = None if encoding.codec == "utf-8" else codecs.getincrementaldecoder(encoding.codec)("replace")
    at = len(encoding.bom)
    while block := os.pread(fd, block_bytes, at):
        at += len(block)
        text = block if decoder is None else decoder.decode(block).encode()
        if text:
            yield text
    if decoder is not None and (rest := decoder.decode(b"", final=True)):
        yield rest.encode()
