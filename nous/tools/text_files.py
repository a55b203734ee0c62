"""The files that a search looks at: those that hold text, short ones read whole, long ones left open."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from typing import Final, NamedTuple

from nous.tools.encodings import UTF_8, TextEncoding, detect_encoding, utf8_blocks

MAX_SHORT_BYTES: Final = 256 * 1024
"""A file of at most this size is read whole, so that it is opened and read once whatever is done with it."""

_FIRST_BYTES: Final = 64 * 1024
"""What is read first; most files end within it."""
_READ_BYTES: Final = 1024 * 1024
_BATCH_FILES: Final = 2000
_BATCH_BYTES: Final = 8 * 1024 * 1024
_BATCH_LONG_FILES: Final = 100
"""Each keeps a descriptor open."""


class TextFile(NamedTuple):
    """A file that holds text; ``path`` is how it is named.

    Of a short file ``data`` is the whole text as UTF-8, without a byte order mark.  A long one is open at ``fd``, which
    is -1 otherwise, and has ``encoding``.
    """

    path: str
    data: bytes | None
    fd: int = -1
    encoding: TextEncoding = UTF_8

    def blocks(self) -> Iterator[bytes]:
        """Yield the text as UTF-8, block by block, up to where the file cannot be read any more."""
        if self.data is not None:
            yield self.data
            return
        try:
            yield from utf8_blocks(self.fd, self.encoding, _READ_BYTES)
        except OSError:
            return

    def close(self) -> None:
        """Close the file."""
        if self.fd >= 0:
            os.close(self.fd)


def text_batches(files: Iterable[tuple[str, int]]) -> Generator[list[TextFile], None, None]:
    """Yield the files that hold text (given are pairs of path and descriptor), as many as may be held at once.

    Every descriptor is closed here: those of a batch when the next one is asked for, or the iterator is closed.
    """
    batch: list[TextFile] = []
    held_bytes = long_files = 0
    try:
        for path, fd in files:
            file = _read(path, fd)
            if file is None:
                continue
            batch.append(file)
            if file.data is None:
                long_files += 1
            else:
                held_bytes += len(file.data)
            if len(batch) >= _BATCH_FILES or held_bytes >= _BATCH_BYTES or long_files >= _BATCH_LONG_FILES:
                yield batch
                _close(batch)
                batch, held_bytes, long_files = [], 0, 0
        if batch:
            yield batch
    finally:
        _close(batch)


def _close(batch: list[TextFile]) -> None:
    for file in batch:
        file.close()


def _read(path: str, fd: int) -> TextFile | None:
    """Return the file, ``None`` if it is binary, empty or unreadable.  Its descriptor is closed unless it is kept."""
    try:
        head = os.pread(fd, _FIRST_BYTES, 0)
        encoding = detect_encoding(head)
        data = None if encoding is None else _rest(fd, head)
    except OSError:
        encoding = data = None
    if encoding is not None and data is None:
        return TextFile(path, None, fd, encoding)
    os.close(fd)
    text = b"" if encoding is None or data is None else _as_utf8(data, encoding)
    return TextFile(path, text) if text else None


def _rest(fd: int, head: bytes) -> bytes | None:
    """Return the whole content, which begins with ``head``; ``None`` if it is long."""
    data = head
    while len(data) <= MAX_SHORT_BYTES:
        block = os.pread(fd, _FIRST_BYTES, len(data))
        if not block:
            return data
        data += block
    return None


def _as_utf8(data: bytes, encoding: TextEncoding) -> bytes:
    text = data[len(encoding.bom) :]
    return text if encoding.codec == "utf-8" else text.decode(encoding.codec, "replace").encode()
