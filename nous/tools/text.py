"""Bytes of a file as text for a model."""

from __future__ import annotations

import os
from typing import Final

from nous.tools.failure import ToolFailure

_CHUNK_BYTES: Final = 1024 * 1024

SNIFFED_BYTES: Final = 8192
"""A NUL among the first this many bytes makes a file binary, as in git."""


def looks_binary(head: bytes) -> bool:
    """Return whether the beginning of a file has a NUL byte."""
    return b"\0" in head[:SNIFFED_BYTES]


def count_lines(data: bytes) -> int:
    """Return the number of lines; one that has no LF at the end of the data counts too."""
    return data.count(b"\n") + (bool(data) and not data.endswith(b"\n"))


def decode(data: bytes) -> str:
    """Return ``data`` as text; what is not UTF-8 becomes U+FFFD."""
    return data.decode("utf-8", "replace")


def printable_name(name: str) -> str:
    """Return a file's name as text: bytes that are not UTF-8 become U+FFFD, control characters stay escaped."""
    clean = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(c if c >= " " and c != "\x7f" else f"\\x{ord(c):02x}" for c in clean)


def encode(text: str, field: str) -> bytes:
    """Return what the model gave for ``field`` as UTF-8.

    Raises:
        ToolFailure: there is a lone surrogate in it.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ToolFailure(f"`{field}` has a lone surrogate in it, which is not a character.") from None


def read_bytes(fd: int, limit: int) -> bytes:
    """Return what there is to read, up to ``limit`` bytes."""
    chunks: list[bytes] = []
    while limit > 0 and (chunk := os.read(fd, min(limit, _CHUNK_BYTES))):
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)
