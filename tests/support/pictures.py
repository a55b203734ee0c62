"""Small images that are whole."""

from __future__ import annotations

import struct
import zlib

GIF = bytes.fromhex("47494638396101000100800000000000ffffff2c00000000010001000002014c003b")
JPEG = (
    bytes.fromhex("ffd8ffc0000b080001000101011100ffc40014")
    + bytes([0, 1, *bytes(15), 0])
    + bytes.fromhex("ffda0008010100003f00d2ffd9")
)
_LOSSLESS = bytes.fromhex("2f00000000075000000000000000")
WEBP = b"RIFF" + struct.pack("<I", 26) + b"WEBPVP8L" + struct.pack("<I", len(_LOSSLESS)) + _LOSSLESS


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, *, color: int = 0, depth: int = 8, interlace: int = 0, data: bytes | None = None
) -> bytes:
    """Return a black PNG; ``data`` replaces its image data before compression."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    rows = bytes((1 + (width * channels * depth + 7) // 8) * height) if data is None else data
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    palette = png_chunk(b"PLTE", bytes(3)) if color == 3 else b""
    body = png_chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + palette + body + png_chunk(b"IEND", b"")
