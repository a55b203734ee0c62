"""What a strict YAML file is read into: values that know their line, and errors that name it."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, NoReturn, TypeAlias

from nous.errors import NousError

Scalar: TypeAlias = str | int | float | bool | None

_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_.<~/ -]{1,64}", re.ASCII)


class SourceFile(NamedTuple):
    """A file's name, as errors and ``config show`` name it, and what stood in it when it was read."""

    name: str
    data: bytes


class Node(NamedTuple):
    """A value and the line (from 1) on which it, or its key, stands."""

    value: Scalar | list[Node] | dict[str, Node]
    line: int

    def plain(self) -> object:
        """Return the value without lines."""
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        return self.value


def refuse(file: str, line: int, path: str, what: str) -> NoReturn:
    """Raise ``invalid_config`` with the cause ``FILE:LINE: path.of.key: what`` (without a path at the root)."""
    place = f"{path}: " if path else ""
    raise NousError("invalid_config", f"{file}:{line}: {place}{what}")


def show_key(text: str) -> str:
    """Return a key as it may stand in a message: short, on one line, without control characters."""
    return text if _PLAIN_KEY.fullmatch(text) else ascii(text[:64])
