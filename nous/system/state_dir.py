"""The state directory: where it is, the consent it takes to make one, and the lock that says a daemon is alive.

    <state>/                0700
      bootstrap.json        0600   who made it, when, with which version, on whose permission
      sessions/ traces/ outputs/ exports/
      trust/                0700   what was trusted of what others wrote (nous.system.trust); made with the first of it
      daemons/<epoch>.lock  0600   held locked by the daemon of that epoch for as long as it lives

Source of the rules: docs/hardening/contracts.md, "Failures can be told apart by machine".  Only :func:`init_state_dir`
creates the directory.  It is called when a person typed ``nous init``, or gave the permission from outside (a flag, a
variable), and for ``nous replay``, whose daemon gets a directory of its own that is removed with it.
"""

import fcntl
import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, Self

import msgspec
from msgspec import Struct

from nous import __version__
from nous.errors import NousError
from nous.system.clock import SystemClock
from nous.system.ids import is_safe_id, new_epoch
from nous.system.orphans import end_orphans

Actor = Literal["nous init", "--bootstrap", "NOUS_ALLOW_BOOTSTRAP", "nous replay"]
"""What gave the permission to make a state directory.  ``nous replay``: one of its own, removed when it is done."""

RECORD_NAME: Final = "bootstrap.json"
STATE_VERSION: Final = 1

_DIR_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_OTHERS: Final = 0o077
_SUBDIRS: Final = ("sessions", "traces", "outputs", "daemons", "exports")
_TEMP_PREFIX: Final = f".{RECORD_NAME}."


class StateDir(Struct, frozen=True, kw_only=True):
    """The paths of a state directory.

    ``warnings``: sentences about modes that let others in.  They are reported and never silently changed, because
    whoever set them may have had a reason.
    """

    root: Path
    sessions: Path
    traces: Path
    outputs: Path
    daemons: Path
    exports: Path
    warnings: tuple[str, ...] = ()


class BootstrapRecord(Struct, frozen=True, kw_only=True):
    """What ``bootstrap.json`` says.  ``created_at`` is RFC 3339 UTC; ``actor`` is what gave the permission."""

    state_version: int
    nous_version: str
    created_at: str
    actor: str
    user: str
    uid: int
    pid: int


def user_dir(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    """Return the directory an XDG ``variable`` names, or ``fallback`` under the home directory.

    A relative path counts as not set (XDG Base Directory Specification).
    """
    named = environ.get(variable, "")
    return Path(named) if named.startswith("/") else home_dir(environ) / fallback


def home_dir(environ: Mapping[str, str]) -> Path:
    """Return ``$HOME``, or what the user database says if that is not an absolute path.

    Raises:
        NousError: ``invalid_usage`` if neither knows one.
    """
    home = environ.get("HOME", "")
    if home.startswith("/"):
        return Path(home)
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        raise NousError("invalid_usage", "there is no home directory", hint="Set HOME.") from None


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """Return ``$XDG_STATE_HOME/nous``, or ``~/.local/state/nous``."""
    return user_dir(environ, "XDG_STATE_HOME", ".local/state") / "nous"


def state_paths(root: Path) -> StateDir:
    """Return the paths under ``root`` without touching the disk: for commands that only read."""
    return StateDir(
        root=root,
        sessions=root / "sessions",
        traces=root / "traces",
        outputs=root / "outputs",
        daemons=root / "daemons",
        exports=root / "exports",
    )


def open_state_dir(root: Path, bootstrap: Actor | None = None) -> StateDir:
    """Return the state directory at ``root``, made ready for writing.

    A missing one is made only if ``bootstrap`` says who permitted it.  A directory without ``bootstrap.json`` is
    not a state directory yet and counts as missing.  Inside one, a subdirectory that somebody removed is made again.

    Raises:
        NousError: ``state_dir_missing``; ``unsafe_operation`` if it belongs to another user; ``io_failure`` if it
            is not a directory or cannot be written.
    """
    root = root.absolute()
    with _io_failure_names(root):
        if not _is_initialised(root):
            if bootstrap is None:
                raise _missing(root)
            init_state_dir(root, bootstrap)
        for directory in (root, *(root / name for name in _SUBDIRS)):
            _ensure_dir(directory)
        return msgspec.structs.replace(state_paths(root), warnings=tuple(_open_to_others(root)))


def _missing(root: Path) -> NousError:
    """Say what stands in the place of a state directory; what may be in a new one is none yet."""
    with suppress(OSError):
        if any(not _may_stand_in(path.name) for path in root.iterdir()):
            cause = f"{root} is a directory with other files, not one of nous"
            return NousError("state_dir_missing", cause, hint="Choose an empty or a new directory.")
        return NousError("state_dir_missing", f"{root} is there, but was not made ready yet")
    return NousError("state_dir_missing", str(root))


def init_state_dir(root: Path, actor: Actor) -> bool:
    """Make a state directory and record who permitted it.  Returns false if it was one already.

    Everything made here is 0700 or 0600, whatever the umask.  An empty directory that exists is used as it is; one
    with other things in it is refused.  The record comes last, durably: a crash in between leaves a directory that
    counts as missing and can be initialised again, and of two processes doing so at once both succeed.

    Raises:
        NousError: ``unsafe_operation`` if the directory holds anything else or belongs to another user;
            ``io_failure`` if it cannot be made.
    """
    root = root.absolute()
    with _io_failure_names(root):
        if _is_initialised(root):
            return False
        _make_parents(root)
        _ensure_dir(root)
        if not all(_may_stand_in(path.name) for path in root.iterdir()) and not _is_initialised(root):
            raise NousError("unsafe_operation", f"{root} holds other files", hint="Choose an empty or a new directory.")
        for name in _SUBDIRS:
            _ensure_dir(root / name)
        _write_record(root, actor)
        return True


def read_bootstrap_record(root: Path) -> BootstrapRecord | None:
    """Return what ``bootstrap.json`` says, or None if it is absent or cannot be understood."""
    try:
        return msgspec.json.decode((root / RECORD_NAME).read_bytes(), type=BootstrapRecord)
    except (OSError, msgspec.DecodeError, RecursionError):
        return None


class EpochLock:
    """The lock that says "the daemon of this epoch lives": gone with its process, however that ends.

    The descriptor is close-on-exec, so no child can keep a dead daemon's lock.  The file appears under its name
    only once it is locked: nobody ever finds the lock of a living daemon free.  Inside stand the pid and the time.
    """

    __slots__ = ("_fd", "epoch", "path")

    def __init__(self, epoch: str, path: Path, fd: int) -> None:
        self.epoch = epoch
        self.path = path
        self._fd = fd

    @classmethod
    def acquire(cls, daemons: Path, epoch: str) -> Self:
        """Take the lock of this process's own, new ``epoch``; ``daemons`` is :attr:`StateDir.daemons`."""
        path = daemons / f"{epoch}.lock"
        temp = daemons / f".{epoch}.lock-new"
        with _io_failure_names(path):
            fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.write(fd, msgspec.json.encode({"pid": os.getpid(), "since": SystemClock().now()}) + b"\n")
                temp.rename(path)
            except BaseException:
                os.close(fd)
                with suppress(OSError):
                    temp.unlink()
                raise
        return cls(epoch, path, fd)

    @classmethod
    def claim(cls, daemons: Path, epoch: str) -> Self | None:
        """Take the lock of a dead epoch, to clean up behind it; None if its daemon lives or another cleans already.

        None also for an epoch without a file: that one was released in order, or cleaned up before.
        """
        if not is_safe_id(epoch):
            return None
        path = daemons / f"{epoch}.lock"
        with _io_failure_names(path):
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                return None
            if _try_lock(fd, fcntl.LOCK_EX) and _is_still(path, fd):
                return cls(epoch, path, fd)
            os.close(fd)
            return None

    def release(self) -> None:
        """Remove the file and free the lock.  Doing so twice is harmless."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        with suppress(OSError):
            self.path.unlink()
        os.close(fd)


def is_dead(daemons: Path, epoch: str) -> bool:
    """Whether no daemon of that epoch can be alive: its lock is free, or was removed when it ended in order.

    While another process claims the epoch the answer is false too: a dead one can be taken for alive for a moment,
    never a living one for dead.
    """
    if not is_safe_id(epoch):
        return True
    path = daemons / f"{epoch}.lock"
    with _io_failure_names(path):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return True
        try:
            return _try_lock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)


def remove_dead_locks(daemons: Path) -> list[str]:
    """Remove the lock files of daemons that died without doing so; return their epochs.

    Before that ends what their tools left running: without its lock a dead daemon's processes are not looked for.
    """
    end_orphans(dead_epochs(daemons))
    removed = []
    for epoch in list_epochs(daemons):
        lock = EpochLock.claim(daemons, epoch)
        if lock is not None:
            lock.release()
            removed.append(epoch)
    return removed


def dead_epochs(daemons: Path) -> list[str]:
    """Return the epochs of daemons that died without removing their lock."""
    return [epoch for epoch in list_epochs(daemons) if is_dead(daemons, epoch)]


def list_epochs(daemons: Path) -> list[str]:
    """Return the epochs that have a lock file, living and dead, sorted."""
    with suppress(FileNotFoundError):
        return sorted(path.name.removesuffix(".lock") for path in daemons.glob("[!.]*.lock"))
    return []


def _is_initialised(root: Path) -> bool:
    if root.exists() and not root.is_dir():
        raise NousError("io_failure", f"{root} is not a directory")
    return (root / RECORD_NAME).exists()


def _may_stand_in(name: str) -> bool:
    """Whether an initialisation that did not finish may have left this name behind."""
    return name in _SUBDIRS or name.startswith(_TEMP_PREFIX)


def _make_parents(root: Path) -> None:
    for parent in reversed(root.parents):
        if not parent.exists():
            with suppress(FileExistsError):
                parent.mkdir(_DIR_MODE)


def _ensure_dir(path: Path) -> None:
    """Make the directory if it is missing; else check that it is one, is ours, and can be written."""
    try:
        path.mkdir(_DIR_MODE)
        path.chmod(_DIR_MODE)  # the umask may have taken bits that the owner needs
        return
    except FileExistsError:
        info = path.stat() if path.exists() else None
    if info is None or not stat.S_ISDIR(info.st_mode):
        raise NousError("io_failure", f"{path} is not a directory")
    if info.st_uid != os.geteuid():
        raise NousError(
            "unsafe_operation",
            f"{path} belongs to user {info.st_uid}, not to {os.geteuid()}",
            hint="Run nous as its owner, or choose another --state-dir.",
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise NousError("io_failure", f"{path} is not writable")


def _write_record(root: Path, actor: Actor) -> None:
    record = BootstrapRecord(
        state_version=STATE_VERSION,
        nous_version=__version__,
        created_at=SystemClock().now(),
        actor=actor,
        user=_user_name(),
        uid=os.geteuid(),
        pid=os.getpid(),
    )
    temp = root / f"{_TEMP_PREFIX}{new_epoch()}"
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, _FILE_MODE)
        file.write(msgspec.json.encode(record) + b"\n")
        file.flush()
        os.fsync(fd)
    temp.rename(root / RECORD_NAME)
    _sync_dir(root)
    _sync_dir(root.parent)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def _sync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _open_to_others(root: Path) -> Iterator[str]:
    wanted = [(root, _DIR_MODE), *((root / name, _DIR_MODE) for name in _SUBDIRS), (root / RECORD_NAME, _FILE_MODE)]
    for path, mode in wanted:
        found = stat.S_IMODE(path.stat().st_mode)
        if found & _OTHERS:
            yield f"{path} has mode {found:04o}, should be {mode:04o}"


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path, fd: int) -> bool:
    """Whether ``path`` names the open file: its last holder may have removed it after we opened it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


@contextmanager
def _io_failure_names(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into ``io_failure`` with the path in its cause."""
    try:
        yield
    except OSError as error:
        raise NousError("io_failure", f"{error.filename or path}: {error.strerror}") from error
