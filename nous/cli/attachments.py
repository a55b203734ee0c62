"""What ``nous prompt`` reads from files: images, and the schema of a structured output."""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec

from nous.errors import NousError
from nous.system.regular_file import read_regular_file
from nous.tools.images import HEAD_BYTES, identify_image

MAX_IMAGE_BYTES: Final = 5 * 1024 * 1024
"""The daemon takes less, and says how much; this bound only keeps a file without end out of memory."""

MAX_SCHEMA_BYTES: Final = 1024 * 1024


def read_image(path: str) -> dict[str, str]:
    """Return an image as a prompt carries it.  Its content says of what type it is; the daemon checks the rest.

    Raises:
        NousError: ``invalid_usage`` for a file that cannot be read, is too large or is no image.
    """
    data = _read("--image", path, MAX_IMAGE_BYTES)
    found = identify_image(data[:HEAD_BYTES])
    if found is None:
        raise NousError("invalid_usage", f"--image: {path}: not an image", hint="PNG, JPEG, GIF and WebP are taken.")
    return {"mime_type": found.mime_type, "data": base64.b64encode(data).decode("ascii")}


def read_schema(path: str) -> dict[str, Any]:
    """Return the JSON Schema that a file holds.  The daemon checks that it can be used.

    Raises:
        NousError: ``invalid_usage`` for a file that cannot be read, is too large or holds no JSON object.
    """
    data = _read("--schema", path, MAX_SCHEMA_BYTES)
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.ValidationError:
        fault = "a JSON Schema is an object"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        fault = f"not JSON: {error}"
    raise NousError("invalid_usage", f"--schema: {path}: {fault}", hint="""For example: {"type":"object"}""")


def _read(flag: str, path: str, max_bytes: int) -> bytes:
    try:
        return read_regular_file(path, max_bytes)
    except OSError as error:
        raise NousError("invalid_usage", f"{flag}: {path}: {error.strerror}", hint=f"{flag} names a file.") from None
