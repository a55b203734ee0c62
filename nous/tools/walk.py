"""Walking a tree in the order of its paths, without what git ignores and what is closed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import NamedTuple

from nous.tools.ignore import IgnoreRules, rules_above


class Entry(NamedTuple):
    """Something in the tree: ``path`` is relative to where the walk began."""

    path: str
    is_directory: bool
    is_regular: bool


class Walk:
    """A walk from ``start`` (absolute, resolved).  Iterating gives entries sorted by path; links are not followed.

    ``closed``: absolute paths that are left out.  ``unreadable`` counts the directories that could not be listed.
    """

    def __init__(self, start: str, top: str, closed: Collection[str]) -> None:
        self.unreadable = 0
        self._start = start
        self._top = top
        self._closed = frozenset(closed)

    def __iter__(self) -> Iterator[Entry]:
        levels = [self._list("", rules_above(self._start, self._top))]
        while levels:
            entry, rules = next(levels[-1], (None, None))
            if entry is None or rules is None:
                levels.pop()
                continue
            yield entry
            if entry.is_directory:
                levels.append(self._list(entry.path, rules))

    def _list(self, directory: str, above: IgnoreRules) -> Iterator[tuple[Entry, IgnoreRules]]:
        """Yield the entries of ``directory`` with the rules they are under."""
        absolute = _join(self._start, directory)
        try:
            with os.scandir(absolute) as found:
                entries = list(found)
        except OSError:
            self.unreadable += 1
            return
        rules = above.within(absolute, is_repository=any(entry.name == ".git" for entry in entries))
        # With the slash that its children's paths have, a directory sorts among its siblings as they do.
        for entry in sorted(entries, key=lambda e: e.name + "/" * e.is_dir(follow_symlinks=False)):
            is_directory = entry.is_dir(follow_symlinks=False)
            path = _join(absolute, entry.name)
            if entry.name == ".git" or path in self._closed or rules.ignores(path, is_directory=is_directory):
                continue
            relative = _join(directory, entry.name)
            yield Entry(relative, is_directory, entry.is_file(follow_symlinks=False)), rules


def _join(directory: str, name: str) -> str:
    if not directory or not name:
        return directory or name
    return f"{directory.removesuffix('/')}/{name}"
