"""Images are known by their first bytes, and nothing else is taken for one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.tools.images import ImageFile, identify_image

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 640, 480)
GIF = b"GIF89a" + struct.pack("<HH", 3, 70000 % 65536)
BMP = b"BM" + struct.pack("<IHHIIii", 1000, 0, 0, 54, 40, 10, -20)
EXIF = b"\xff\xe1" + struct.pack(">H", 2 + 60000) + bytes(60000)
FRAME = struct.pack(">HBHHB", 17, 8, 480, 640, 3)


def webp(kind: bytes, body: bytes) -> bytes:
    return b"RIFF" + bytes(4) + b"WEBP" + kind + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("head", "image"),
    [
        (PNG, ImageFile("image/png", 640, 480)),
        (PNG[:10], ImageFile("image/png", 0, 0)),
        (GIF, ImageFile("image/gif", 3, 4464)),
        (BMP, ImageFile("image/bmp", 10, 20)),
        (b"\xff\xd8" + b"\xff\xc0" + FRAME, ImageFile("image/jpeg", 640, 480)),
        (b"\xff\xd8" + EXIF + b"\xff\xff\xff\xc2" + FRAME, ImageFile("image/jpeg", 640, 480)),
        (b"\xff\xd8" + EXIF + b"\xff\xc4\x00\x04ab" + b"\xff\xcf" + FRAME, ImageFile("image/jpeg", 640, 480)),
        (b"\xff\xd8\xff\xe0\x00\x00", ImageFile("image/jpeg", 0, 0)),
        (b"\xff\xd8" + EXIF[:1000], ImageFile("image/jpeg", 0, 0)),
        (webp(b"VP8X", bytes(4) + b"\x7f\x02\x00" + b"\xdf\x01\x00"), ImageFile("image/webp", 640, 480)),
        (webp(b"VP8L", b"\x2f" + struct.pack("<I", 639 | 479 << 14)), ImageFile("image/webp", 640, 480)),
        (webp(b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", 640, 480)), ImageFile("image/webp", 640, 480)),
    ],
)
def test_known_images(head: bytes, image: ImageFile) -> None:
    assert identify_image(head) == image


@pytest.mark.parametrize(
    "head",
    [b"", b"BMW makes cars and they are fine", b"GIF8 is old", b"RIFFxxxxWAVE", b"<svg/>", b"\xff\xd8", b"\x89PNG"],
)
def test_what_is_no_image(head: bytes) -> None:
    assert identify_image(head) is None


@given(st.sampled_from([PNG, GIF, BMP, b"\xff\xd8\xff", webp(b"VP8X", b"")]), st.binary(), st.integers(0, 40))
def test_any_bytes_give_an_answer(head: bytes, more: bytes, cut: int) -> None:
    image = identify_image(head[:cut] + more)
    assert image is None or (image.width >= 0 and image.height >= 0)
