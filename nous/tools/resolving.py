"""Resolving a path component by component through descriptors: no symlink is followed but by us."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from nous.tools.look_alikes import find_look_alikes

MAX_LINKS: Final = 40
"""As many as Linux follows in one path."""
MAX_PATH_CHARACTERS: Final = 32 * 1024

_MAX_OPEN: Final = 16
"""So many directories above the present one stay open for a ``..``; beyond, the path is walked again."""
_DIRECTORY: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Identity = tuple[int, int]
"""Device and inode."""


class OutsideError(Exception):
    """The path led to where nothing may be opened, and nothing may be said about what is there."""


class _Step(NamedTuple):
    name: str
    identity: Identity


class Resolver:
    """Walks one path.  ``is_open(real_path, is_in_state)`` decides where tools may go.

    After :meth:`walk`: ``look_alikes`` are the pairs of a name that was not there and the one that was taken instead;
    ``entry`` is the name of what is no directory at the path's end (``""`` if it is one); ``missing`` are the
    components that do not exist.  Use it as a context manager.
    """

    def __init__(
        self, workdir: Path, state_dir: Path, is_open: Callable[[str, bool], bool], *, takes_look_alikes: bool
    ) -> None:
        self.entry = ""
        self.missing: list[str] = []
        self.look_alikes: list[tuple[str, str]] = []
        self._is_open = is_open
        self._takes_look_alikes = takes_look_alikes
        self._state = _identity_of(state_dir)
        self._detours = 0
        self._steps: list[_Step] = []
        self._above: list[int] = []
        self._base = os.path.realpath(workdir)
        self._fd = os.open(self._base, _DIRECTORY)

    def __enter__(self) -> Resolver:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    @property
    def real_path(self) -> str:
        """The path with every symlink resolved."""
        names = [*(step.name for step in self._steps), *([self.entry] if self.entry else []), *self.missing]
        return "/".join([self._base.rstrip("/"), *names]) if names else self._base

    def is_open(self) -> bool:
        """Return whether tools may go where the walk is."""
        is_in_state = self._state is not None and any(step.identity == self._state for step in self._steps)
        return self._is_open(self.real_path, is_in_state)

    def detach(self) -> int:
        """Return the descriptor of the last directory that exists; it is the caller's from now on."""
        fd, self._fd = self._fd, -1
        return fd

    def walk(self, path: str) -> None:
        """Walk ``path`` from the working directory.

        Raises:
            OutsideError: something failed where tools may not go.
            OSError: something failed elsewhere.
        """
        try:
            self._walk(path)
        except OSError:
            if self.is_open():
                raise
            raise OutsideError from None

    def _walk(self, path: str) -> None:
        if len(path) > MAX_PATH_CHARACTERS:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        pending = self._begin(path)
        while pending:
            name = pending.popleft()
            if self.entry:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if self.missing:
                self.missing = [*self.missing, name] if name != ".." else self.missing[:-1]
            elif name == "..":
                self._leave()
            else:
                self._step(name, pending)

    def _begin(self, path: str) -> deque[str]:
        """Return the components of ``path``, having gone to where they start."""
        if path.startswith("/"):
            if path == self._base or path.startswith(f"{self._base.rstrip('/')}/"):
                path = path[len(self._base) :]
            else:
                self._restart("/")
        return deque(_components(path))

    def _step(self, name: str, pending: deque[str]) -> None:
        """Go to ``name``, or put what it means instead before the components that are pending."""
        try:
            self._enter(name)
        except FileNotFoundError:
            alike = self._find_look_alike(name)
            if alike is None:
                self.missing = [name]
            else:
                self._count_detour()
                self.look_alikes.append((name, alike))
                pending.appendleft(alike)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
                raise
            target = self._read_link(name)
            if target is None:
                self.entry = name
                return
            self._count_detour()
            if target.startswith("/"):
                self._restart("/")
            pending.extendleft(reversed(_components(target)))

    def _enter(self, name: str) -> None:
        """Go into a directory that is no link."""
        fd = os.open(name, _DIRECTORY, dir_fd=self._fd)
        self._above.append(self._fd)
        self._fd = fd
        if len(self._above) > _MAX_OPEN:
            os.close(self._above.pop(0))
        status = os.fstat(fd)
        self._steps.append(_Step(name, (status.st_dev, status.st_ino)))

    def _leave(self) -> None:
        """Go to the directory above."""
        if self._steps:
            names, base = [step.name for step in self._steps[:-1]], self._base
        else:
            names, base = _components(self._base)[:-1], "/"
        if self._steps and self._above:
            os.close(self._fd)
            self._fd = self._above.pop()
            self._steps.pop()
            return
        self._restart(base)
        for name in names:
            self._enter(name)

    def _restart(self, base: str) -> None:
        self._close()
        self._steps = []
        self._base = base
        self._fd = os.open(base, _DIRECTORY)

    def _close(self) -> None:
        for fd in (*self._above, self._fd):
            if fd >= 0:
                os.close(fd)
        self._above = []
        self._fd = -1

    def _read_link(self, name: str) -> str | None:
        """Return where a link leads, ``None`` if the entry is none."""
        try:
            return os.readlink(name, dir_fd=self._fd)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None
            raise

    def _find_look_alike(self, name: str) -> str | None:
        if not self._takes_look_alikes or not self.is_open():
            return None
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            found = find_look_alikes(fd, name)
        finally:
            os.close(fd)
        return found[0] if len(found) == 1 else None

    def _count_detour(self) -> None:
        """Count what makes the path longer, so that no loop of links goes on for ever."""
        self._detours += 1
        if self._detours > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _components(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _identity_of(directory: Path) -> Identity | None:
    try:
        status = directory.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
