"""Images of a prompt, as a client sends them and as a session holds them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from nous.errors import NousError
from nous.protocol.commands import Image
from nous.protocol.messages import IMAGE_TYPES, ImageBlock
from nous.tools.image_check import find_image_fault
from nous.tools.images import HEAD_BYTES, identify_image

MAX_IMAGE_BYTES: Final = 5 * 1024 * 1024
"""As base64: the strictest vendor takes no more."""

MAX_IMAGES: Final = 100
"""In one prompt: the strictest vendor takes no more in a request."""


def check_images(images: Sequence[Image]) -> tuple[ImageBlock, ...]:
    """Return the images as blocks.  Blocks for up to a second an image: not for the event loop.

    Raises:
        NousError: ``invalid_payload`` for one of a type nobody takes, for data that is not base64 or not an image of
            that type, for one that is too large or damaged, and for too many.
    """
    if len(images) > MAX_IMAGES:
        raise NousError("invalid_payload", f"images: more than {MAX_IMAGES}")
    for position, image in enumerate(images):
        if fault := _find_fault(image):
            raise NousError("invalid_payload", f"images[{position}]: {fault}")
    return tuple(ImageBlock(image.mime_type, image.data) for image in images)


def _find_fault(image: Image) -> str | None:
    if image.mime_type not in IMAGE_TYPES:
        return f"mime_type: only {', '.join(sorted(IMAGE_TYPES))}"
    if len(image.data) > MAX_IMAGE_BYTES:
        return f"data: longer than {MAX_IMAGE_BYTES} bytes"
    try:
        data = base64.b64decode(image.data, validate=True)
    except (binascii.Error, ValueError):
        return "data: not base64"
    found = identify_image(data[:HEAD_BYTES])
    if found is None or found.mime_type != image.mime_type:
        return f"data: not an image of the type {image.mime_type}"
    fault = find_image_fault(data)
    return None if fault is None else f"data: {fault}"
