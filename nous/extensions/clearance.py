"""Whether an extension may run, and what of it runs: a copy of exactly the files that were trusted.

    <state>/extensions/<sha256 of the path>/<digest>/     a project's extension as it was trusted

The files of a project may change at any moment, so the manifest that is read and the program that is started are those
of the copy, which was made while they were digested.  A user's own extensions need no trust and run where they are.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from nous.errors import NousError
from nous.extensions.discovery import Installed
from nous.extensions.manifest import MANIFEST_NAME, PYTHON, Manifest, read_manifest
from nous.system.trust import TrustRecord, TrustStore, digest_tree

COPIES_DIR: Final = "extensions"

KEPT_COPIES: Final = 3
"""So many copies of one extension are kept: daemons that were started earlier may still run one."""

PROGRAM_DIRS: Final = ("/bin", "/sbin", "/usr", "/opt", "/nix", "/Library")
"""Where programs stand that the system or its user installed."""


class Cleared(NamedTuple):
    """What of an extension may run.  ``directory`` is where it is started."""

    directory: Path
    manifest: Manifest


class Copy(NamedTuple):
    """A copy of an extension's directory and the digest of what was read for it."""

    directory: Path
    digest: str


def clear(one: Installed, state_root: Path) -> Cleared:
    """Return what of an extension may run now.  Reads all of its directory.

    Raises:
        NousError: ``unsafe_operation`` if nothing may; ``invalid_config`` or ``io_failure`` if it cannot be read.
    """
    if one.origin == "user":
        return Cleared(one.directory, one.manifest or read_manifest(one.directory))
    record = _check_trust(one, TrustStore(state_root))
    place = _home(one.directory, state_root) / _hex(record.digest)
    if not place.is_dir():
        copy = copy_extension(one.directory, state_root)
        if copy.digest != record.digest:
            raise _distrust(one.directory, is_changed=True)
    manifest = read_manifest(place)
    check_command(manifest, one.directory)
    return Cleared(place, manifest)


def find_distrust(one: Installed, store: TrustStore) -> NousError | None:
    """Return why nothing of an extension may run, if nothing may.  Reads all of its directory and changes nothing."""
    if one.origin == "user":
        return None
    try:
        _check_trust(one, store)
        check_command(one.manifest or read_manifest(one.directory), one.directory)
    except NousError as error:
        return error
    return None


def copy_extension(directory: Path, state_root: Path) -> Copy:
    """Copy an extension's directory as it is now into the state directory, which exists.

    Raises:
        NousError: ``unsafe_operation`` or ``io_failure``; no copy is left.
    """
    home = _home(directory, state_root)
    try:
        home.mkdir(0o700, parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=".new-", dir=home))
    except OSError as error:
        raise NousError("io_failure", f"{error.filename or home}: {error.strerror}") from error
    try:
        digest = digest_tree(directory, making / "tree")
        place = home / _hex(digest)
        with suppress(OSError):  # it is there already: the same files, or the next line says what is wrong
            (making / "tree").rename(place)
        if not place.is_dir():
            raise NousError("io_failure", f"{place} cannot be made")
    finally:
        shutil.rmtree(making, ignore_errors=True)
    _drop_old(home, place)
    return Copy(place, digest)


def check_command(manifest: Manifest, directory: Path) -> None:
    """Refuse a command that names a file outside the extension's directory: it could change without new trust.

    The program itself may be named without a path, or stand where programs are installed.

    Raises:
        NousError: ``unsafe_operation``.
    """
    root = os.path.realpath(directory)
    for index, word in enumerate(manifest.command):
        if word == PYTHON or (index == 0 and "/" not in word):
            continue
        for name in {word, word.partition("=")[2]} - {""}:
            real = os.path.realpath(os.path.join(root, name))  # noqa: PTH118  an absolute name replaces the root
            if not os.path.lexists(real) or Path(real).is_relative_to(root):
                continue
            if index == 0 and any(Path(real).is_relative_to(os.path.realpath(place)) for place in PROGRAM_DIRS):
                continue
            raise NousError(
                "unsafe_operation",
                f"{directory / MANIFEST_NAME}: command: {name} is outside the directory, so trust does not cover it",
                hint="Move what the extension runs into its directory.",
            )


def _check_trust(one: Installed, store: TrustStore) -> TrustRecord:
    """Return the record of an extension that is trusted as it is now.  Raises as :func:`clear`."""
    record = store.find(one.directory)
    if record is None:
        raise _distrust(one.directory, is_changed=False)
    if one.fault is not None:
        raise one.fault
    if digest_tree(one.directory) != record.digest:
        raise _distrust(one.directory, is_changed=True)
    return record


def _distrust(directory: Path, *, is_changed: bool) -> NousError:
    state = "has changed since it was trusted" if is_changed else "is not trusted"
    return NousError("unsafe_operation", f"{directory} {state}", hint=f"Type: nous ext trust {directory}")


def _home(directory: Path, state_root: Path) -> Path:
    name = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()
    return state_root / COPIES_DIR / name


def _hex(digest: str) -> str:
    return digest.partition(":")[2]


def _drop_old(home: Path, kept: Path) -> None:
    """Remove all but the newest copies."""
    with suppress(OSError):
        copies = [path for path in home.iterdir() if path != kept and not path.name.startswith(".")]
        copies.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in copies[KEPT_COPIES - 1 :]:
            shutil.rmtree(path, ignore_errors=True)
