"""Strict YAML files: bytes in, a small tree of values that know their line out.

The grammar is that of :mod:`nous.config.yaml_parser`, which is imported (and PyYAML with it) when the first file is
parsed: a start without a configuration file never pays for it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple, NoReturn, TypeAlias

from nous.errors import NousError
from nous.system.regular_file import UnsuitableFileError, read_regular_file

MAX_FILE_BYTES: Final = 256 * 1024
"""A configuration is a page or two.  Reading this much takes about a second, so it is also a bound on time."""

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


def read_source(path: Path, max_bytes: int = MAX_FILE_BYTES) -> SourceFile:
    """Read a regular file whole.

    Raises:
        FileNotFoundError: there is none.
        NousError: ``invalid_config`` if it is no regular file or too long, ``io_failure`` if it cannot be read.
    """
    try:
        return SourceFile(str(path), read_regular_file(path, max_bytes))
    except FileNotFoundError:
        raise
    except UnsuitableFileError as error:
        raise NousError("invalid_config", f"{path}: {error.strerror}") from None
    except OSError as error:
        raise NousError("io_failure", f"{path}: {error.strerror}") from error


def parse_yaml(source: SourceFile, *, any_text: bool = False) -> Node:
    """Parse one document; an empty one is null.

    ``any_text`` permits NUL characters and halves of surrogate pairs in text, written as escapes.

    Raises:
        NousError: ``invalid_config``, its cause ``FILE:LINE: path.of.key: what``.
    """
    from nous.config.yaml_parser import Parser

    return Parser(source, any_text=any_text).parse()


def refuse(file: str, line: int, path: str, what: str) -> NoReturn:
    """Raise ``invalid_config`` with the cause ``FILE:LINE: path.of.key: what`` (without a path at the root)."""
    place = f"{path}: " if path else ""
    raise NousError("invalid_config", f"{file}:{line}: {place}{what}")


def show_key(text: str) -> str:
    """Return a key as it may stand in a message: short, on one line, without control characters."""
    return text if _PLAIN_KEY.fullmatch(text) else ascii(text[:64])
