"""Walking a tree in the order of its paths, without what git ignores and what is closed.

Every directory is opened relative to the descriptor of the one above it and never through a symlink: whatever others
rename or link meanwhile, the walk stays in the tree that it began in.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from nous.tools.ignore import IgnoreRules, rules_above

MAX_OPEN_DIRECTORIES: Final = 64
"""Of a deeper tree the upper directories are closed, and opened again through ``..`` when the walk comes back."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Identity = tuple[int, int]


class Entry(NamedTuple):
    """Something in the tree: ``path`` is relative to where the walk began."""

    path: str
    is_directory: bool
    is_regular: bool


class _Level:
    """A directory on the way to where the walk is: its entries that are still to come, the next one last."""

    def __init__(self, fd: int, identity: Identity, path: str, entries: list[Entry], rules: IgnoreRules) -> None:
        self.fd = fd
        self.identity = identity
        self.path = path
        self.entries = entries
        self.rules = rules

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Walk:
    """A walk from ``start`` (absolute, resolved).  Iterating gives entries sorted by path; links are not followed.

    ``start_fd`` is the open directory (it stays the caller's); without it ``start`` is opened.  ``closed``: absolute
    paths that are left out, under whatever name.  ``unreadable`` counts the directories that could not be listed.
    """

    def __init__(self, start: str, top: str, closed: Collection[str], start_fd: int | None = None) -> None:
        self.unreadable = 0
        self._start = start
        self._top = top
        self._start_fd = start_fd
        self._closed = frozenset(closed)
        self._closed_identities = frozenset(_identities(closed))
        self._levels: list[_Level] = []

    def __iter__(self) -> Iterator[Entry]:
        try:
            yield from self._entries()
        finally:
            for level in self._levels:
                level.close()
            self._levels.clear()

    def open_file(self, entry: Entry) -> int | None:
        """Open the regular file that was yielded last; ``None`` if it is gone or may not be read."""
        try:
            return os.open(_name(entry.path), FILE_FLAGS, dir_fd=self._levels[-1].fd)
        except OSError:
            return None

    def _entries(self) -> Iterator[Entry]:
        try:
            fd = os.open(self._start, _DIRECTORY) if self._start_fd is None else os.dup(self._start_fd)
        except OSError:
            self.unreadable += 1
            return
        self._enter(fd, "", rules_above(fd, self._start, self._top))
        while self._levels:
            level = self._levels[-1]
            if not level.entries:
                self._leave()
                continue
            entry = level.entries.pop()
            yield entry
            if entry.is_directory:
                try:
                    fd = os.open(_name(entry.path), _DIRECTORY, dir_fd=level.fd)
                except OSError:
                    self.unreadable += 1
                    continue
                self._enter(fd, entry.path, level.rules)

    def _enter(self, fd: int, path: str, above: IgnoreRules) -> None:
        """Add the directory ``path``, which ``fd`` (the walk's own from now on) is open at."""
        try:
            status = os.fstat(fd)
            identity = (status.st_dev, status.st_ino)
            if identity in self._closed_identities:
                os.close(fd)
                return
            with os.scandir(fd) as found:
                entries = [
                    Entry(entry.name, entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False))
                    for entry in found
                ]
        except OSError:
            os.close(fd)
            self.unreadable += 1
            return
        rules = above.within(fd, _join(self._start, path), is_repository=any(entry.path == ".git" for entry in entries))
        self._levels.append(_Level(fd, identity, path, self._open_entries(path, entries, rules), rules))
        if len(self._levels) > MAX_OPEN_DIRECTORIES:
            self._levels[-MAX_OPEN_DIRECTORIES - 1].close()

    def _open_entries(self, directory: str, found: list[Entry], rules: IgnoreRules) -> list[Entry]:
        """Return the entries of ``directory`` that are not left out, the first one last."""
        absolute = _join(self._start, directory)
        entries: list[Entry] = []
        # With the slash that its children's paths have, a directory sorts among its siblings as they do.
        for name, is_directory, is_regular in sorted(found, key=lambda e: e.path + "/" * e.is_directory, reverse=True):
            path = _join(absolute, name)
            if name == ".git" or path in self._closed or rules.ignores(path, is_directory=is_directory):
                continue
            entries.append(Entry(_join(directory, name), is_directory, is_regular))
        return entries

    def _leave(self) -> None:
        """Go back to the directory above, which may have to be opened again."""
        level = self._levels.pop()
        if self._levels and self._levels[-1].fd < 0:
            self._reopen(self._levels[-1], level.fd)
        level.close()

    def _reopen(self, level: _Level, child_fd: int) -> None:
        """Open a directory again from below; if it is not the same any more, what is left of it is given up."""
        with contextlib.suppress(OSError):
            fd = os.open("..", _DIRECTORY, dir_fd=child_fd)
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) == level.identity:
                level.fd = fd
                return
            os.close(fd)
        if level.entries:
            level.entries.clear()
            self.unreadable += 1


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _join(directory: str, name: str) -> str:
    if not directory or not name:
        return directory or name
    return f"{directory.removesuffix('/')}/{name}"


def _identities(paths: Collection[str]) -> Iterator[Identity]:
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.stat(path)  # noqa: PTH116
            yield status.st_dev, status.st_ino
