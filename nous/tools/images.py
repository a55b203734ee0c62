"""Naming an image by the first bytes of its file: type and size in pixels.  Pure.

Sources: PNG (RFC 2083), GIF89a, JPEG (ITU T.81, annex B), BMP (BITMAPINFOHEADER), WebP (RFC 9649).
"""

from __future__ import annotations

from typing import Final, NamedTuple

HEAD_BYTES: Final = 256 * 1024
"""Enough to pass a photo's metadata, which stands before a JPEG's dimensions."""

_BMP_HEADERS: Final = frozenset({40, 52, 56, 64, 108, 124})
_JPEG_NO_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xDA)})
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class ImageFile(NamedTuple):
    """``width`` and ``height`` in pixels, or 0 if the beginning of the file does not tell."""

    mime_type: str
    width: int
    height: int


def identify_image(head: bytes) -> ImageFile | None:
    """Return what image a file beginning with ``head`` is, or ``None`` if it is none that is known."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ImageFile("image/png", _big(head, 16, 4), _big(head, 20, 4))
    if head.startswith((b"GIF87a", b"GIF89a")):
        return ImageFile("image/gif", _little(head, 6, 2), _little(head, 8, 2))
    if head.startswith(b"\xff\xd8\xff"):
        return ImageFile("image/jpeg", *_jpeg_size(head))
    if head.startswith(b"BM") and head[6:10] == bytes(4) and _little(head, 14, 4) in _BMP_HEADERS:
        return ImageFile("image/bmp", _little(head, 18, 4), abs(_little(head, 22, 4, signed=True)))
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return ImageFile("image/webp", *_webp_size(head))
    return None


def _jpeg_size(head: bytes) -> tuple[int, int]:
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker in _JPEG_FRAMES:
            return _big(head, at + 7, 2), _big(head, at + 5, 2)
        at += 2 if marker in _JPEG_NO_LENGTH else 1 if marker == 0xFF else 2 + max(_big(head, at + 2, 2), 2)
    return 0, 0


def _webp_size(head: bytes) -> tuple[int, int]:
    kind = head[12:16]
    if kind == b"VP8X":
        return _little(head, 24, 3) + 1, _little(head, 27, 3) + 1
    if kind == b"VP8L":
        bits = _little(head, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return _little(head, 26, 2) & 0x3FFF, _little(head, 28, 2) & 0x3FFF


def _big(head: bytes, at: int, size: int) -> int:
    return int.from_bytes(head[at : at + size], "big")


def _little(head: bytes, at: int, size: int, *, signed: bool = False) -> int:
    return int.from_bytes(head[at : at + size], "little", signed=signed)
