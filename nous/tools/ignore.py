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


def read_ignore_file(directory: str) -> IgnoreFile | None:
    """Return the .gitignore of ``directory``, or ``None`` if it has none that can be read; links are not followed."""
    try:
        fd = os.open(f"{directory}/{FILE_NAME}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
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

    def within(self, directory: str, *, is_repository: bool) -> IgnoreRules:
        """Return the rules within ``directory`` (absolute): a repository of its own knows nothing of those above."""
        inherited = () if is_repository else self._files
        own = read_ignore_file(directory)
        return IgnoreRules(inherited if own is None else (*inherited, (directory, own)))

    def ignores(self, path: str, *, is_directory: bool) -> bool:
        """Return whether the entry at ``path`` (absolute) is ignored."""
        for directory, file in reversed(self._files):
            verdict = file.verdict(path[len(directory) + 1 :], is_directory=is_directory)
            if verdict is not None:
                return verdict
        return False


def rules_above(start: str, top: str) -> IgnoreRules:
    """Return the rules that the directories above ``start`` make for it.

    They begin at the repository ``start`` is in, else at ``top`` if that is above it.  If ``start`` is ignored by
    them itself, whoever names it wants to see it: then none of them counts.
    """
    rules = IgnoreRules()
    if start == "/":
        return rules
    above = _ancestors(start, top)
    for directory, below in pairwise([*above, start]):
        rules = rules.within(directory, is_repository=False)
        if rules.ignores(below, is_directory=True):
            return IgnoreRules()
    return rules


def _ancestors(start: str, top: str) -> list[str]:
    """Return the directories above ``start`` that count, the highest first."""
    if os.path.lexists(f"{start}/.git"):
        return []
    ancestors: list[str] = []
    directory = start
    while directory != "/":
        directory = directory.rpartition("/")[0] or "/"
        ancestors.insert(0, directory)
        if os.path.lexists(f"{directory.rstrip('/')}/.git"):
            return ancestors
    return ancestors[ancestors.index(top) :] if top in ancestors else []


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
