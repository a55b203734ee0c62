"""Temporary files that killed processes left in a state directory."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

LEFT_AFTER_S: Final = 600
"""Nobody takes ten minutes to replace a file: a temporary one that is older was left behind."""

_TEMP_NAME: Final = re.compile(
    r"\.nous-.*\.tmp|\..*\.ndjson\.tmp|\.sessions\.index\.tmp|\.bootstrap\.json\..*|\..*\.lock-new"
)


def find_leftovers(root: Path) -> Iterator[Path]:
    """Yield the temporary files of the state directory and of its directories that are old and that nobody locks."""
    oldest = time.time() - LEFT_AFTER_S
    directories = [str(root)]
    with suppress(OSError), os.scandir(root) as entries:
        directories += sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    for directory in directories:
        with suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                if _TEMP_NAME.fullmatch(entry.name) and _is_left(entry, oldest):
                    yield Path(entry.path)


def remove_leftovers(root: Path, apart_from: Path) -> list[Path]:
    """Remove what :func:`find_leftovers` finds but in ``apart_from``, where temporary files have locks beside them."""
    removed = []
    for path in find_leftovers(root):
        if path.parent != apart_from:
            with suppress(OSError):
                path.unlink()
                removed.append(path)
    return removed


def _is_left(entry: os.DirEntry[str], oldest: float) -> bool:
    try:
        info = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(info.st_mode) or info.st_mtime >= oldest:
            return False
        fd = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
