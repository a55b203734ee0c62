"""Images of a prompt: what is one, and what is refused."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.errors import NousError
from nous.protocol.commands import Image
from nous.protocol.messages import ImageBlock
from nous.runtime.images import MAX_IMAGE_BYTES, check_images

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 640, 480)
TYPES = "images[1]: mime_type: only image/gif, image/jpeg, image/png, image/webp"
GIF = b"GIF89a" + struct.pack("<HH", 3, 4)


def image(data: bytes, mime_type: str = "image/png") -> Image:
    return Image(mime_type=mime_type, data=base64.b64encode(data).decode())


def refused(*images: Image) -> str:
    with pytest.raises(NousError) as caught:
        check_images(images)
    assert caught.value.code == "invalid_payload"
    return str(caught.value.cause)


def test_images_are_taken_in_order() -> None:
    given_images = [image(PNG), image(GIF, "image/gif")]
    assert check_images(given_images) == tuple(ImageBlock(i.mime_type, i.data) for i in given_images)
    assert check_images([]) == ()


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        (Image(mime_type="image/tiff", data=""), TYPES),
        (Image(mime_type="image/png", data="not base64!"), "images[1]: data: not base64"),
        (Image(mime_type="image/png", data="AAA"), "images[1]: data: not base64"),
        (Image(mime_type="image/png", data="\u00e9\u00e9\u00e9\u00e9"), "images[1]: data: not base64"),
        (image(b"hello"), "images[1]: data: not an image of the type image/png"),
        (image(GIF), "images[1]: data: not an image of the type image/png"),
        (Image(mime_type="image/png", data=""), "images[1]: data: not an image of the type image/png"),
        (image(PNG + bytes(MAX_IMAGE_BYTES)), f"images[1]: data: longer than {MAX_IMAGE_BYTES} bytes"),
    ],
)
def test_what_is_no_image_is_refused_by_its_place(wrong: Image, cause: str) -> None:
    assert refused(image(PNG), wrong) == cause


@given(st.text(max_size=50), st.sampled_from(["image/png", "image/jpeg", "image/gif", "image/webp", ""]))
def test_nothing_else_is_raised_and_no_data_is_repeated(data: str, mime_type: str) -> None:
    assert len(refused(Image(mime_type=mime_type, data=data))) < 100
