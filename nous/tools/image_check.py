"""Checks an image before it is stored: what a vendor would refuse must never get into a conversation.  Pure.

Type, size in pixels and bytes are checked for every format.  A PNG is inflated whole and its checksums are compared; of
JPEG, GIF and WebP the structure is followed to the image data and to the end.  Memory is bounded, and so is time: at
most ``MAX_SIDE`` pixels squared are inflated.  Sources: PNG (RFC 2083), GIF89a, JPEG (ITU T.81), WebP (RFC 9649).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Final

from nous.protocol.messages import IMAGE_TYPES
from nous.tools.images import HEAD_BYTES, identify_image

MAX_IMAGE_BYTES: Final = 3_750_000
"""As base64 it is what the strictest vendor takes (5 MB)."""

MAX_SIDE: Final = 8000
"""Pixels; the strictest vendor takes no more.  Source: Anthropic, "Vision", image limits."""

_PIECE_BYTES: Final = 256 * 1024
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PASSES: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

Check = Callable[[], object]
"""Called again and again; what it raises ends the examination."""


class _BrokenError(Exception):
    """The image cannot be decoded."""


def find_image_fault(data: bytes, check: Check = lambda: None) -> str | None:
    """Return why ``data`` cannot be sent to a model as an image, as the end of a sentence; None if it can."""
    image = identify_image(data[:HEAD_BYTES])
    if image is None or image.mime_type not in IMAGE_TYPES:
        return f"only {', '.join(sorted(IMAGE_TYPES))} can be shown"
    if len(data) > MAX_IMAGE_BYTES:
        return f"it is longer than {MAX_IMAGE_BYTES} bytes"
    if max(image.width, image.height) > MAX_SIDE:
        return f"it has {image.width}x{image.height} pixels, and no side may have more than {MAX_SIDE}"
    if min(image.width, image.height) < 1:
        return "it is damaged: it has no pixels"
    try:
        _EXAMINERS[image.mime_type](data, check)
    except (_BrokenError, zlib.error, IndexError):
        return "it is damaged"
    return None


def _require(condition: bool) -> None:
    if not condition:
        raise _BrokenError


def _png(data: bytes, check: Check) -> None:
    chunks = _png_chunks(data)
    kind, header = next(chunks, (b"", b""))
    _require(kind == b"IHDR" and len(header) == 13)
    left = _png_bytes(header)
    inflate = zlib.decompressobj()
    is_ended = False
    for kind, body in chunks:
        check()
        if kind == b"IDAT":
            left -= _inflate(inflate, body, left, check)
        is_ended = kind == b"IEND"
    _require(is_ended and left == 0 and inflate.eof)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        end = at + 12 + size
        _require(end <= len(data))
        kind, body = data[at + 4 : at + 8], data[at + 8 : end - 4]
        _require(zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big"))
        yield kind, body
        if kind == b"IEND":
            return
        at = end


def _png_bytes(header: bytes) -> int:
    """Return how many bytes the image data must inflate to."""
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    depth, color, compression, filtering, interlace = header[8:]
    _require(depth in _DEPTHS.get(color, ()) and compression == filtering == 0 and interlace in (0, 1))
    bits = depth * _CHANNELS[color]

    def rows(columns: int, lines: int) -> int:
        return lines * (1 + (columns * bits + 7) // 8) if columns > 0 else 0

    if not interlace:
        return rows(width, height)
    return sum(rows(-((x - width) // dx), max(0, -((y - height) // dy))) for x, y, dx, dy in _PASSES)


def _inflate(inflate: zlib._Decompress, body: bytes, most: int, check: Check) -> int:
    """Return how many bytes ``body`` inflates to; more than ``most`` are an error."""
    count = 0
    while body and not inflate.eof:
        check()
        piece = inflate.decompress(body, _PIECE_BYTES)
        count += len(piece)
        _require(count <= most)
        body = inflate.unconsumed_tail
        if not piece and not body:
            break
    return count


def _jpeg(data: bytes, check: Check) -> None:
    at, has_scan = 2, False
    while at < len(data):
        _require(data[at] == 0xFF)
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == 0xD9:
            return _require(has_scan)
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:
            at += 2
        else:
            size = int.from_bytes(data[at + 2 : at + 4], "big")
            _require(size >= 2)
            at += 2 + size
            if marker == 0xDA:
                has_scan = True
                at = _behind_scan(data, at)
        check()
    raise _BrokenError


def _behind_scan(data: bytes, at: int) -> int:
    """Return where the next marker stands that is neither a stuffed byte nor a restart."""
    while (at := data.find(b"\xff", at)) >= 0:
        if data[at + 1] and not 0xD0 <= data[at + 1] <= 0xD7:
            return at
        at += 2
    raise _BrokenError


def _gif(data: bytes, check: Check) -> None:
    at = 13 + _palette_bytes(data[10])
    has_image = False
    while data[at] != 0x3B:
        check()
        if data[at] == 0x2C:
            at += 11 + _palette_bytes(data[at + 9])
            _require(data[at] > 0)
            has_image = True
        else:
            _require(data[at] == 0x21)
            at += 2
        while size := data[at]:
            at += 1 + size
        at += 1
    _require(has_image)


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(data: bytes, check: Check) -> None:
    end = 8 + int.from_bytes(data[4:8], "little")
    _require(end <= len(data))
    at, kinds = 12, set()
    while at + 8 <= end:
        check()
        kinds.add(data[at : at + 4])
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        _require(at + 8 + size <= end)
        at += 8 + size + (size & 1)
    _require(bool(kinds & {b"VP8 ", b"VP8L", b"ANMF"}))


_EXAMINERS: Final[dict[str, Callable[[bytes, Check], None]]] = {
    "image/png": _png,
    "image/jpeg": _jpeg,
    "image/gif": _gif,
    "image/webp": _webp,
}
