"""Which files git would ignore, by the .gitignore files on the way to them.

The patterns are translated by ``pathspec``; the order in which they count is git's (gitignore(5)): the last pattern
of the deepest file that says anything about an entry decides, and what is within an ignored directory is ignored.
Only .gitignore files count, neither the user's own excludes nor the repository's.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise
from typing import Final

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from nous.tools.text import read_bytes

FILE_NAME: Final = ".gitignore"
_MAX_FILE_BYTES: Final = 1024 * 1024
_SEARCHED: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


class IgnoreFile:
    """The patterns of one .gitignore file, the last one first."""

    def __init__(self, text: str) -> None:
        lines = text.removeprefix("\ufeff").split("\n")
        compiled = (_compile(line.removesuffix("\r")) for line in lines)
        self._patterns = [pattern for pattern in compiled if pattern is not None and pattern.include is not None]
        self._patterns.reverse()

    def verdict(self, path: str, *, is_directory: bool) -> bool | None:
        """Return whether the entry (relative to the file's directory) is ignored, ``None`` if no pattern is about it.

        Asked of every entry on the way down: what lies within an ignored directory is not asked about.
        """
        subject = f"{path}/" if is_directory else path
        for pattern in self._patterns:
            found = pattern.match_file(subject)
            # A match that ends before the entry's own name is one of a directory above it.
            if found is not None and found.match.end() == len(subject):
                return pattern.include
        return None


def read_ignore_file(directory_fd: int) -> IgnoreFile | None:
    """Return the .gitignore of an open directory, or ``None`` if it has none that can be read; no link is followed."""
    try:
        fd = os.open(FILE_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
    except OSError:
        return None
    try:
        return IgnoreFile(read_bytes(fd, _MAX_FILE_BYTES).decode("utf-8", "surrogateescape"))
    except OSError:
        return None
    finally:
        os.close(fd)


class IgnoreRules:
    """The .gitignore files that count in one directory, and what they say about its entries.  Immutable."""

    def __init__(self, files: tuple[tuple[str, IgnoreFile], ...] = ()) -> None:
        self._files = files

    def within(self, directory_fd: int, directory: str, *, is_repository: bool) -> IgnoreRules:
        """Return the rules within an open directory (``directory`` is its absolute path).

        A repository of its own knows nothing of the rules above it.
        """
        return (IgnoreRules() if is_repository else self).plus(directory, read_ignore_file(directory_fd))

    def plus(self, directory: str, own: IgnoreFile | None) -> IgnoreRules:
        """Return these rules with those of a directory's own file."""
        return self if own is None else IgnoreRules((*self._files, (directory, own)))

    def ignores(self, path: str, *, is_directory: bool) -> bool:
        """Return whether the entry at ``path`` (absolute) is ignored."""
        for directory, file in reversed(self._files):
            verdict = file.verdict(path[len(directory) + 1 :], is_directory=is_directory)
            if verdict is not None:
                return verdict
        return False


def rules_above(start_fd: int, start: str, top: str) -> IgnoreRules:
    """Return the rules that the directories above the open directory ``start`` make for it.

    They begin at the repository ``start`` is in, else at ``top`` if that is above it.  If ``start`` is ignored by
    them itself, whoever names it wants to see it: then none of them counts.
    """
    rules = IgnoreRules()
    above = _files_above(start_fd, start, top)
    for (directory, file), (below, _) in pairwise([*above, (start, None)]):
        rules = rules.plus(directory, file)
        if rules.ignores(below, is_directory=True):
            return IgnoreRules()
    return rules


def _files_above(start_fd: int, start: str, top: str) -> list[tuple[str, IgnoreFile | None]]:
    """Return the directories above ``start`` that count, the highest first, each with its .gitignore."""
    files: list[tuple[str, IgnoreFile | None]] = []
    fd = os.dup(start_fd)
    try:
        directory = start
        while not _has_repository(fd):
            if directory == "/":
                tops = [path for path, _ in files]
                return files[tops.index(top) :] if top in tops else []
            above = os.open("..", _SEARCHED, dir_fd=fd)
            os.close(fd)
            fd, directory = above, directory.rpartition("/")[0] or "/"
            files.insert(0, (directory, read_ignore_file(fd)))
        return files
    except OSError:
        return []
    finally:
        os.close(fd)


def _has_repository(directory_fd: int) -> bool:
    try:
        os.stat(".git", dir_fd=directory_fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def _compile(line: str) -> GitIgnoreSpecPattern | None:
    try:
        return GitIgnoreSpecPattern(_entry_pattern(line))
    except (ValueError, re.error):
        return None  # git ignores a pattern it cannot read, too


def _entry_pattern(line: str) -> str:
    """Return a pattern whose translation matches up to the end of an entry.

    ``a/**`` and ``*`` are translated to what matches a beginning only, because pathspec looks at whole paths.
    """
    body = line if line.endswith("\\ ") else line.rstrip()
    slash = "/" if body.endswith("/") else ""
    segments = body.removesuffix("/").split("/")
    if segments[-1] in ("*", "!*"):
        segments[-1] = segments[-1].replace("*", "?*")
    elif segments[-1] in ("**", "!**"):
        segments[-1:] = [segments[-1], "?*"]
    return "/".join(segments) + slash
