"""What may stand in a log record: plain, bounded data without secrets.

* Values become JSON's own types here, at once: whatever happens to an object afterwards, its record does not change.
* A record takes about ``MAX_RECORD_BYTES``, a value at most ``MAX_VALUE_BYTES``, a container ``MAX_ITEMS`` entries.
* A value whose name suggests a secret is replaced, unless it is a number (``output_tokens``) or the name of an
  environment variable (``api_key_env``).  So is every known secret value, wherever it stands.
* An exception becomes its type and where it was raised, never its text: that may quote what a person or a model said.
  Only a :class:`nous.errors.NousError` shows its cause, which is bounded and without content by contract.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from itertools import islice
from types import TracebackType
from typing import Any, Final

from nous.errors import NousError, bound_text

MAX_RECORD_BYTES: Final = 3 * 1024
MAX_VALUE_BYTES: Final = 1024
MAX_ITEMS: Final = 24
MAX_DEPTH: Final = 6
MAX_FRAMES: Final = 6

REDACTED: Final = "[redacted]"

_SECRET_NAME: Final = re.compile(
    r"key|token|secret|passw|passphrase|credential|authorization|cookie|bearer", re.IGNORECASE | re.ASCII
)
_LARGEST_INTEGER: Final = 1 << 63
_BYTES_PER_VALUE: Final = 8
_LONGEST_SEARCHED: Final = 64 * 1024


def suggests_secret(name: str) -> bool:
    """Whether a field of this name may hold a secret."""
    return _SECRET_NAME.search(name) is not None and not name.lower().endswith("_env")


def plain_fields(fields: Mapping[str, object], secrets: Collection[str] = ()) -> dict[str, Any]:
    """Return ``fields`` as plain, bounded data without secrets; ``secrets`` are values known to be some."""
    return _Bounder(secrets).mapping(fields, 1)


class _Bounder:
    """Makes one record's fields plain; ``_left`` is about how many bytes it may still take."""

    def __init__(self, secrets: Collection[str]) -> None:
        self._secrets = secrets
        self._left = MAX_RECORD_BYTES

    def mapping(self, values: Mapping[Any, object], depth: int) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for name, value in islice(values.items(), MAX_ITEMS):
            key = self._text(str(name))
            plain[key] = REDACTED if suggests_secret(key) and not _is_harmless(value) else self._value(value, depth)
        if len(values) > MAX_ITEMS:
            plain["fields_omitted"] = len(values) - MAX_ITEMS
        return plain

    def _value(self, value: object, depth: int) -> object:
        self._left -= _BYTES_PER_VALUE
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value) if -_LARGEST_INTEGER <= value < _LARGEST_INTEGER else f"<{value.bit_length()} bits>"
        if isinstance(value, float):
            return float(value) if value - value == 0 else str(value)
        if isinstance(value, str | os.PathLike):
            return self._text(str(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{len(value)} bytes>"
        if depth >= MAX_DEPTH or self._left <= 0:
            return f"<{type(value).__name__}>"
        return self._container(value, depth + 1)

    def _container(self, value: object, depth: int) -> object:
        if isinstance(value, Mapping):
            return self.mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(item, depth) for item in islice(value, MAX_ITEMS)]
        if isinstance(value, BaseException):
            return self.mapping(_describe_error(value), depth)
        return f"<{type(value).__name__}>"

    def _text(self, text: str) -> str:
        text = text[:_LONGEST_SEARCHED]  # far longer than what is kept, so that no half of a secret is
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        bounded = bound_text(text[: MAX_VALUE_BYTES + 1], max(3, min(MAX_VALUE_BYTES, self._left)))
        self._left -= len(bounded)
        return bounded


def _is_harmless(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float)


def _describe_error(error: BaseException) -> dict[str, object]:
    about: dict[str, object] = {"type": type(error).__name__}
    if isinstance(error, NousError):
        about |= {"code": error.code, "cause": error.cause}
    about["where"] = _where(error.__traceback__)
    if isinstance(error, BaseExceptionGroup):
        about["errors"] = list(error.exceptions)
    if error.__cause__ is not None:
        about["caused_by"] = error.__cause__
    return about


def _where(traceback: TracebackType | None) -> list[str]:
    """Return the innermost frames, outermost first, as ``room/module.py:LINE function``."""
    frames: list[str] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        place = "/".join(code.co_filename.split("/")[-2:])
        frames.append(f"{place}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return frames[-MAX_FRAMES:]
