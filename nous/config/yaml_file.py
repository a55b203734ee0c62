"""Strict YAML files: bytes in, a small tree of values that know their line out.

The grammar is that of :mod:`nous.config.yaml_parser`, which is imported (and PyYAML with it) when the first file is
parsed: a start without a configuration file never pays for it.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final, NamedTuple, NoReturn, TypeAlias

from nous.errors import NousError

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
        # Without O_NONBLOCK, opening a named pipe would wait for somebody to write into it.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise NousError("invalid_config", f"{path}: not a regular file")
        with os.fdopen(fd, "rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NousError("io_failure", f"{path}: {error.strerror}") from error
    if len(data) > max_bytes:
        raise NousError("invalid_config", f"{path}: longer than {max_bytes} bytes")
    return SourceFile(str(path), data)


def parse_yaml(source: SourceFile) -> Node:
    """Parse one document; an empty one is null.

    Raises:
        NousError: ``invalid_config``, its cause ``FILE:LINE: path.of.key: what``.
    """
    from nous.config.yaml_parser import Parser

    return Parser(source).parse()


def refuse(file: str, line: int, path: str, what: str) -> NoReturn:
    """Raise ``invalid_config`` with the cause ``FILE:LINE: path.of.key: what`` (without a path at the root)."""
    place = f"{path}: " if path else ""
    raise NousError("invalid_config", f"{file}:{line}: {place}{what}")


def show_key(text: str) -> str:
    """Return a key as it may stand in a message: short, on one line, without control characters."""
    return text if _PLAIN_KEY.fullmatch(text) else ascii(text[:64])
