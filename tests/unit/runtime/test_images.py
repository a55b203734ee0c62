"""Images of a prompt: what is one, and what is refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.errors import NousError
from nous.protocol.commands import Image
from nous.protocol.messages import ImageBlock
from nous.runtime.images import MAX_IMAGE_BYTES, MAX_IMAGES, check_images
from tests.support.pictures import GIF, png

PNG = png(640, 480)
TYPES = "images[1]: mime_type: only image/gif, image/jpeg, image/png, image/webp"


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
        (image(png(9000, 10)), "images[1]: data: it has 9000x10 pixels, and no side may have more than 8000"),
        (image(PNG[:-20]), "images[1]: data: it is damaged"),
        (image(PNG + bytes(MAX_IMAGE_BYTES)), f"images[1]: data: longer than {MAX_IMAGE_BYTES} bytes"),
    ],
)
def test_what_is_no_image_is_refused_by_its_place(wrong: Image, cause: str) -> None:
    assert refused(image(PNG), wrong) == cause


@given(st.text(max_size=50), st.sampled_from(["image/png", "image/jpeg", "image/gif", "image/webp", ""]))
def test_nothing_else_is_raised_and_no_data_is_repeated(data: str, mime_type: str) -> None:
    assert len(refused(Image(mime_type=mime_type, data=data))) < 100


def test_more_images_than_a_vendor_takes_are_refused() -> None:
    assert refused(*[image(PNG)] * (MAX_IMAGES + 1)) == "images: more than 100"
