"""What a person said may be used although it comes from somebody else: a file, or a directory tree, as it was then.

    <state>/trust/<sha256 of the path>.json   0600   one per trusted path: its digest, and since when

Trust is in content.  It is recorded as a digest, and whatever is different now is ``changed`` until somebody trusts
it again.  One file per path, each replaced atomically: any number of processes may trust and ask at once, the last
one that trusted a path wins, and nobody waits.  Asking never writes and never repairs; what cannot be read is unknown.

What is used is what was digested: a caller that goes on to use a *file* computes the digest of the bytes it uses
(:func:`digest_bytes`); one that uses a *directory* uses the copy that :func:`digest_tree` made while it read.
"""

import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from nous.errors import NousError
from nous.system.atomic import replace_file, write_all
from nous.system.clock import SystemClock

Verdict = Literal["trusted", "changed", "unknown"]
"""``changed``: trusted once, with other content.  ``unknown``: never trusted, or the record cannot be read."""

TRUST_DIR: Final = "trust"
MAX_TREE_FILES: Final = 20_000
MAX_TREE_BYTES: Final = 512 << 20
"""Larger trees are refused: a digest of them at each start would take seconds."""

_READ_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 64


class TrustRecord(Struct, frozen=True, kw_only=True):
    """What is kept about a trusted path.

    ``path`` is for people (a name that is not UTF-8 stands escaped); ``trusted_at`` is RFC 3339 UTC.  ``content`` is
    the text of the file, or of the tree's manifest, as it was trusted: what it forbade stays forbidden when it changes.
    ``installed_at`` lists the places from which symbolic links lead to ``path``, links of the last part not resolved.
    """

    path: str
    digest: str
    trusted_at: str
    content: str | None = None
    installed_at: tuple[str, ...] = ()


class TrustStore:
    """The trusted paths of one state directory, which need not exist for asking."""

    __slots__ = ("_directory",)

    def __init__(self, state_root: Path) -> None:
        self._directory = state_root / TRUST_DIR

    def check(self, path: Path, digest: str) -> Verdict:
        """Say whether what has ``digest`` now was trusted at ``path``."""
        record = self.find(path)
        if record is None:
            return "unknown"
        return "trusted" if record.digest == digest else "changed"

    def find(self, path: Path) -> TrustRecord | None:
        """Return what was trusted last at ``path``; None if nothing was, or the record cannot be read."""
        return self._read(self._file_of(path))

    def find_by_name(self, name: str) -> TrustRecord | None:
        """Return the record of the path whose SHA-256, in hexadecimal, is ``name``; None as :meth:`find`."""
        return self._read(self._directory / f"{name}.json")

    def trust(
        self, path: Path, digest: str, content: bytes | None = None, installed_at: Collection[Path] = ()
    ) -> TrustRecord:
        """Record, durably, that ``path`` is trusted with this content, in place of what was trusted there before.

        Raises:
            NousError: ``io_failure``.  Whether there is a state directory is for the caller to have made sure.
        """
        text = None if content is None else content.decode("utf-8", "replace")
        now = SystemClock().now()
        name = _text(_identity(path))
        places = tuple(sorted({_text(place) for place in installed_at} - {name}))
        record = TrustRecord(path=name, digest=digest, trusted_at=now, content=text, installed_at=places)
        try:
            self._directory.mkdir(0o700, exist_ok=True)
            replace_file(self._file_of(path), msgspec.json.encode(record) + b"\n", tag="trust")
        except OSError as error:
            raise NousError("io_failure", f"{error.filename or self._directory}: {error.strerror}") from error
        return record

    def forget(self, path: Path) -> bool:
        """Trust ``path`` no longer.  Returns false if it was not trusted.

        Raises:
            NousError: ``io_failure``.
        """
        try:
            self._file_of(path).unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise NousError("io_failure", f"{error.filename}: {error.strerror}") from error
        return True

    def records(self) -> list[TrustRecord]:
        """Return all that is trusted, by path.  Records that cannot be read are left out, as :meth:`check` does."""
        read = (self._read(file) for file in self._directory.glob("[!.]*.json"))
        return sorted((record for record in read if record is not None), key=lambda record: record.path)

    def _file_of(self, path: Path) -> Path:
        name = hashlib.sha256(os.fsencode(_identity(path))).hexdigest()
        return self._directory / f"{name}.json"

    @staticmethod
    def _read(file: Path) -> TrustRecord | None:
        with suppress(OSError, msgspec.DecodeError, RecursionError):
            return msgspec.json.decode(file.read_bytes(), type=TrustRecord)
        return None


def digest_bytes(data: bytes) -> str:
    """Return the digest of a file's content, ``file-sha256:<hex>``."""
    return f"file-sha256:{hashlib.sha256(data).hexdigest()}"


def digest_tree(root: Path, copy_to: Path | None = None) -> str:
    """Return the digest of everything under a directory, ``tree-sha256:<hex>``.

    ``copy_to``, a directory that does not exist yet, becomes a copy of exactly what was digested: every file is read
    once.  Links in it lead to the same places within the copy.  After an error what was copied so far is left there.

    Names, contents, executable bits, empty directories and the targets of symbolic links all count; owners and times
    do not.  An absolute link counts as the relative one that it is in a copy, so that a copy has the same digest.
    Hidden files and caches count too: what stands in ``__pycache__`` is code.

    Raises:
        NousError: ``unsafe_operation`` if the tree holds a link that leads out of it or something that is neither
            file, directory nor link, or is too large or too deep; ``io_failure`` if it cannot be read.
    """
    whole = hashlib.sha256()
    try:
        real_root = os.fspath(root.resolve(strict=True))
        if copy_to is not None:
            copy_to.mkdir(0o700)
        for entry in _walk(_Tree(real_root), real_root, b"", None if copy_to is None else os.fspath(copy_to), 0):
            whole.update(entry)
    except OSError as error:
        raise NousError("io_failure", f"{_text(error.filename or root)}: {error.strerror}") from error
    return f"tree-sha256:{whole.hexdigest()}"


class _Tree:
    """A tree that is being read, and how much of it was read."""

    __slots__ = ("bytes", "files", "root")

    def __init__(self, root: str) -> None:
        self.root = root
        self.files = 0
        self.bytes = 0

    def spend(self, path: str, *, files: int = 0, size: int = 0) -> None:
        self.files += files
        self.bytes += size
        if self.files > MAX_TREE_FILES or self.bytes > MAX_TREE_BYTES:
            raise NousError(
                "unsafe_operation",
                f"{_text(self.root)} is too large to be trusted: more than {MAX_TREE_FILES} files and directories or "
                f"{MAX_TREE_BYTES >> 20} MiB, counted up to {_text(path)}",
                hint="Leave out what is not needed to run it, such as development dependencies and caches.",
            )


# Strings and descriptors instead of Path: at each start every file of every project extension passes here.


def _walk(tree: _Tree, directory: str, below: bytes, copy: str | None, depth: int) -> Iterator[bytes]:
    """Yield one unambiguous line per entry, parents first, in the order of the names' bytes.

    ``below`` is the directory's name within the tree, with a slash at its end unless it is the root.
    """
    if depth > _MAX_DEPTH:
        raise NousError("unsafe_operation", f"{_text(directory)}: nested deeper than {_MAX_DEPTH} levels")
    with os.scandir(directory) as entries:
        # One more than the bound is enough to exceed it; a directory of millions of names is not read to its end.
        found = [(os.fsencode(entry.name), entry) for entry in islice(entries, MAX_TREE_FILES + 1)]
    tree.spend(directory, files=len(found))
    for encoded, entry in sorted(found, key=itemgetter(0)):
        name, path = below + encoded, entry.path
        copied = None if copy is None else f"{copy}/{entry.name}"
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            if copied is not None:
                os.mkdir(copied, 0o700)  # noqa: PTH102
            yield _line(b"dir", name, b"")
            yield from _walk(tree, path, name + b"/", copied, depth + 1)
        elif stat.S_ISLNK(mode):
            target = _target_within(tree.root, path)
            if copied is not None:
                os.symlink(target, copied)  # noqa: PTH211
            yield _line(b"link", name, os.fsencode(target))
        elif stat.S_ISREG(mode):
            kind, content = _read_digest(path, tree, copied)
            yield _line(kind, name, content)
        else:
            raise NousError("unsafe_operation", f"{_text(path)} is neither a file nor a directory")


def _read_digest(path: str, tree: _Tree, copy: str | None) -> tuple[bytes, bytes]:
    """Return a file's kind and the digest of its content, both of the same open file, and copy what was read."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    out = -1
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise NousError("unsafe_operation", f"{_text(path)} is neither a file nor a directory")
        is_program = bool(mode & stat.S_IXUSR)
        if copy is not None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            out = os.open(copy, flags, 0o500 if is_program else 0o400)
        content = hashlib.sha256()
        while block := os.read(fd, _READ_BYTES):
            tree.spend(path, size=len(block))
            content.update(block)
            if out >= 0:
                write_all(out, block)
    finally:
        os.close(fd)
        if out >= 0:
            os.close(out)
    return (b"program" if is_program else b"file"), content.digest()


def _target_within(root: str, path: str) -> str:
    """Return where a link leads, relative to it, if that is part of the tree: only then does the digest cover it."""
    # Unlike Path.resolve(), this takes a link that leads to itself.
    real = os.path.realpath(path)
    if real != root and not real.startswith(f"{root}/"):
        raise NousError("unsafe_operation", f"{_text(path)} is a link that leads out of the directory")
    target = os.readlink(path)  # noqa: PTH115
    if not os.path.isabs(target):  # noqa: PTH117
        return target
    return os.path.relpath(real, os.path.realpath(os.path.dirname(path)))  # noqa: PTH120


def _line(kind: bytes, name: bytes, content: bytes) -> bytes:
    """Return fields with their lengths, so that no name can pass for the fields of another entry."""
    return b"".join(b"%d:%s," % (len(field), field) for field in (kind, name, content))


def _identity(path: Path) -> Path:
    """Return the one path by which a file is known: links in it resolved, as it would be opened."""
    # Unlike Path.resolve(), this takes a link that leads to itself.
    return Path(os.path.realpath(path))


def _text(path: Path | str) -> str:
    """Return a path as text that can be encoded: what is not UTF-8 stands escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
