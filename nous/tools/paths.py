"""Which files a tool may touch, and what a path means.

Relative paths start at the working directory.  A leading ``~``, ``$HOME`` or ``$PWD`` expands, nothing else does:
``$id.tsx`` is a file's name.  Symlinks are resolved first, then the result must lie under the working directory
(unless ``allow_outside_workdir``) and outside the state directory; reading and searching may go to the outputs.
Errors name the path as it was given and never say what lies outside.

A path is resolved component by component through descriptors (:mod:`nous.tools.resolving`), and what it names is opened
relative to the descriptor of its directory.  Whoever swaps a directory for a symlink meanwhile changes nothing.

Source of the rules: docs/tools.md, "Paths".
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Protocol

from nous.tools.failure import ToolFailure, describe, quoted
from nous.tools.look_alikes import spelled
from nous.tools.resolving import OutsideError, Resolver


class Boundary(Protocol):
    """What decides where tools may go; :class:`nous.ports.tool.ToolContext` has it."""

    @property
    def workdir(self) -> Path:
        """The working directory."""

    @property
    def state_dir(self) -> Path:
        """The state directory, which is closed to tools."""

    @property
    def outputs_root(self) -> Path:
        """Where outputs that were cut are kept whole."""

    @property
    def allow_outside_workdir(self) -> bool:
        """Whether paths may leave the working directory."""


class Place:
    """Where a path leads: an entry of an open directory, or that directory itself.

    ``path`` is the resolved path, for showing.  ``note`` tells the model that an entry with a look-alike name was taken
    (``""`` otherwise).  Use it as a context manager: leaving it closes the directory.
    """

    def __init__(self, given: str, resolver: Resolver) -> None:
        self._fd = resolver.detach()
        self.given = given
        self.path = Path(resolver.real_path)
        self.note = " ".join(_look_alike_note(*pair) for pair in resolver.look_alikes)
        self._missing = resolver.missing
        self._entry = resolver.entry

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A call that was given up leaves its result to nobody.
        self.close()

    def close(self) -> None:
        """Close the descriptor of the directory."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def name(self) -> str:
        """The name of the entry in its directory, ``""`` for the directory itself."""
        return self._missing[-1] if self._missing else self._entry

    def mode(self) -> int:
        """Return the type and mode of what the path names.

        Raises:
            ToolFailure: it is not there.
        """
        try:
            self._require_present()
            status = os.stat(self._entry, dir_fd=self._fd, follow_symlinks=False) if self._entry else os.fstat(self._fd)
        except OSError as error:
            raise describe(self.given, error) from None
        return status.st_mode

    def is_regular(self) -> bool:
        """Return whether the path names a regular file that exists."""
        try:
            return stat.S_ISREG(self.mode())
        except ToolFailure:
            return False

    def open_regular(self) -> int:
        """Open the file for reading and return its descriptor, without waiting.

        Raises:
            ToolFailure: it does not exist, or is a directory or something else that is no regular file.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        # A device may act on being opened, a FIFO wait: look first, then make sure that this is what was opened.
        _require_regular(self.mode(), self.given)
        try:
            fd = os.open(self._entry, flags, dir_fd=self._fd)
        except OSError as error:
            raise describe(self.given, error) from None
        try:
            _require_regular(os.fstat(fd).st_mode, self.given)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open_directory(self) -> int:
        """Open the directory that the path names and return its descriptor.

        Raises:
            ToolFailure: it does not exist or is none.
        """
        try:
            self._require_present()
            return _open_readable(self._entry or ".", self._fd)
        except OSError as error:
            raise describe(self.given, error) from None

    def open_parent(self, *, make: bool = False) -> int:
        """Open the directory that holds the entry :attr:`name` and return its descriptor.

        With ``make``, directories that are missing on the way are made first.

        Raises:
            ToolFailure: it does not exist or cannot be made, or the path names a directory.
        """
        if not self.name:
            raise ToolFailure(f"{quoted(self.given)} is a directory.")
        try:
            fd = _open_readable(".", self._fd)
            for name in self._missing[:-1]:
                fd = _enter(fd, name, make=make)
        except OSError as error:
            raise describe(self.given, error) from None
        return fd

    def _require_present(self) -> None:
        if self._missing:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def open_place(
    given: str, boundary: Boundary, *, may_read_outputs: bool = False, takes_look_alikes: bool = False
) -> Place:
    """Return the place that ``given`` means; what it names need not exist.

    With ``takes_look_alikes``, a name that does not exist means the one entry that looks like it, if there is exactly
    one.

    Raises:
        ToolFailure: it is not a path, or one that tools may not touch.
    """
    if "\0" in given:
        raise ToolFailure(f"{quoted(given)} is not a path: it has a NUL character in it.")

    def is_open(real: str, is_in_state: bool) -> bool:
        if may_read_outputs and _is_under(real, boundary.outputs_root):
            return True
        if is_in_state or _is_under(real, boundary.state_dir):
            return False
        return boundary.allow_outside_workdir or _is_under(real, boundary.workdir)

    try:
        with Resolver(boundary.workdir, boundary.state_dir, is_open, takes_look_alikes=takes_look_alikes) as resolver:
            resolver.walk(expand(given, boundary.workdir))
            if not resolver.is_open():
                raise _closed(given, boundary)
            return Place(given, resolver)
    except OutsideError:
        raise _closed(given, boundary) from None
    except UnicodeEncodeError:
        raise ToolFailure(f"{quoted(given)} is not a path: it cannot be encoded.") from None
    except OSError as error:
        raise describe(given, error) from None


def expand(given: str, workdir: Path) -> str:
    """Return ``given`` with a leading ``~``, ``$HOME`` or ``$PWD`` replaced."""
    first, slash, rest = given.partition("/")
    if first in ("~", "$HOME"):
        return str(Path.home()) + slash + rest
    if first == "$PWD":
        return str(workdir) + slash + rest
    return given


def shown_path(path: Path, boundary: Boundary) -> str:
    """Return how results name ``path``: relative to the working directory if it lies there, else whole."""
    workdir = os.path.realpath(boundary.workdir)
    return str(path.relative_to(workdir)) if path.is_relative_to(workdir) else str(path)


def _is_under(real: str, directory: Path) -> bool:
    top = os.path.realpath(directory)
    return real == top or real.startswith(top.rstrip("/") + "/")


def _closed(given: str, boundary: Boundary) -> ToolFailure:
    why = (
        "nous's own state is closed"
        if boundary.allow_outside_workdir
        else "only files under the working directory are, also behind symlinks, and nous's own state is closed"
    )
    return ToolFailure(f"{quoted(given)} is not open to tools: {why}.")


def _look_alike_note(wanted: str, taken: str) -> str:
    return f"[There is no {quoted(wanted)}; its look-alike {quoted(spelled(taken))} was taken]"


def _require_regular(mode: int, given: str) -> None:
    if stat.S_ISDIR(mode):
        raise ToolFailure(f"{quoted(given)} is a directory.")
    if stat.S_ISLNK(mode):
        raise ToolFailure(f"{quoted(given)}: {os.strerror(errno.ELOOP)}.")
    if not stat.S_ISREG(mode):
        raise ToolFailure(f"{quoted(given)} is not a regular file.")


def _open_readable(name: str, directory_fd: int) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=directory_fd)


def _enter(fd: int, name: str, *, make: bool) -> int:
    """Return the descriptor of a directory in ``fd``, which is closed, made if it is missing."""
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=fd)
        return _open_readable(name, fd)
    finally:
        os.close(fd)
