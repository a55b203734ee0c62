"""Strict YAML files: bytes in, a small tree of values that know their line out.

The grammar is that of :mod:`nous.config.yaml_parser`, which is imported (and PyYAML with it) when the first file is
parsed: a start without a configuration file never pays for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nous.config.yaml_nodes import Node, SourceFile
from nous.errors import NousError
from nous.system.regular_file import UnsuitableFileError, read_regular_file

MAX_FILE_BYTES: Final = 256 * 1024
"""A configuration is a page or two.  Reading this much takes about a second, so it is also a bound on time."""


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
    from nous.config.yaml_parser import YamlParser

    return YamlParser(source, any_text=any_text).parse()
