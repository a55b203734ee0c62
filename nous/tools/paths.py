"""Which files a tool may touch, and what a path means.

Relative paths start at the working directory.  A leading ``~``, ``$HOME`` or ``$PWD`` expands, nothing else does:
``$id.tsx`` is a file's name.  Symlinks are resolved first, then the result must lie under the working directory
(unless ``allow_outside_workdir``) and outside the state directory; reading and searching may go to the outputs.
Errors name the path as it was given: where it really leads is nobody's business.

Source of the rules: docs/hardening (Boundaries, tools).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from nous.ports.tool import ToolContext
from nous.tools.failure import ToolFailure, describe, quoted


def resolve_path(given: str, context: ToolContext, *, may_read_outputs: bool = False) -> Path:
    """Return the real path ``given`` means; what it names need not exist.

    Raises:
        ToolFailure: it is not a path, or one that tools may not touch.
    """
    if "\0" in given:
        raise ToolFailure(f"{quoted(given)} is not a path: it has a NUL character in it.")
    try:
        real = os.path.realpath(os.path.join(context.workdir, expand(given, context.workdir)))  # noqa: PTH118
        allowed = _is_allowed(real, context, may_read_outputs=may_read_outputs)
    except UnicodeEncodeError:
        raise ToolFailure(f"{quoted(given)} is not a path: it cannot be encoded.") from None
    except OSError as error:
        raise describe(given, error) from None
    if not allowed:
        raise ToolFailure(f"{quoted(given)} is not open to tools: {_boundary(context)}.")
    return Path(real)


def expand(given: str, workdir: Path) -> str:
    """Return ``given`` with a leading ``~``, ``$HOME`` or ``$PWD`` replaced."""
    first, slash, rest = given.partition("/")
    if first in ("~", "$HOME"):
        return str(Path.home()) + slash + rest
    if first == "$PWD":
        return str(workdir) + slash + rest
    return given


def shown_path(path: Path, context: ToolContext) -> str:
    """Return how results name ``path``: relative to the working directory if it lies there, else whole."""
    workdir = os.path.realpath(context.workdir)
    return str(path.relative_to(workdir)) if path.is_relative_to(workdir) else str(path)


def open_regular(path: Path, given: str) -> int:
    """Open a resolved path for reading and return its descriptor; only a regular file is opened, without waiting.

    Raises:
        ToolFailure: it does not exist, is a directory or something that is not a file, or was swapped meanwhile.
    """
    try:
        # A device may act on being opened, a FIFO wait: look first, then make sure that this is what was opened.
        _require_regular(os.lstat(path).st_mode, given)
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise describe(given, error) from None
    try:
        _require_regular(os.fstat(fd).st_mode, given)
        _require_place(fd, path, given)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_directory(path: Path, given: str) -> int:
    """Open a resolved directory and return its descriptor."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise describe(given, error) from None
    try:
        _require_place(fd, path, given)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_allowed(real: str, context: ToolContext, *, may_read_outputs: bool) -> bool:
    if may_read_outputs and _is_under(real, context.outputs_root):
        return True
    if _is_under(real, context.state_dir):
        return False
    return context.allow_outside_workdir or _is_under(real, context.workdir)


def _is_under(real: str, directory: Path) -> bool:
    top = os.path.realpath(directory)
    return real == top or real.startswith(top.rstrip("/") + "/")


def _boundary(context: ToolContext) -> str:
    if context.allow_outside_workdir:
        return "nous's own state is closed"
    return "only files under the working directory are, also behind symlinks, and nous's own state is closed"


def _require_regular(mode: int, given: str) -> None:
    if stat.S_ISDIR(mode):
        raise ToolFailure(f"{quoted(given)} is a directory.")
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not stat.S_ISREG(mode):
        raise ToolFailure(f"{quoted(given)} is not a regular file.")


def _require_place(fd: int, path: Path, given: str) -> None:
    """Make sure that no directory on the way was swapped for a symlink since the path was resolved (Linux)."""
    try:
        actual = Path(f"/proc/self/fd/{fd}").readlink()
    except OSError:
        return
    if actual != path:
        raise ToolFailure(f"{quoted(given)} was moved while it was being opened.")
