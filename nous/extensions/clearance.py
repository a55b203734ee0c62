"""Whether an extension may run, and what of it runs: a copy of exactly the files that were trusted.

The files of a project may change at any moment, so the manifest that is read and the program that is started are those
of the copy, which was made while they were digested.  A user's own extensions need no trust and run where they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import anyio

from nous.errors import NousError
from nous.extensions.copies import CopyLease, LeasedCopy, copy_extension, lease_copy
from nous.extensions.discovery import Installed
from nous.extensions.manifest import MANIFEST_NAME, PYTHON, Manifest, read_manifest
from nous.extensions.places import place_of
from nous.system.threads import run_in_thread
from nous.system.trust import TrustRecord, TrustStore, digest_tree

CLEAR_SECONDS: Final = 60
"""Reading the largest tree takes a few seconds of processor time; a disk that hangs must not hold runs for ever."""

PROGRAM_DIRS: Final = ("/bin", "/sbin", "/usr", "/opt", "/nix", "/Library")
"""Where programs stand that the system or its user installed."""


class Cleared(NamedTuple):
    """What of an extension may run.  ``directory`` is where it is started.

    ``lease`` keeps the copy of a project's extension; whoever runs it closes the lease when the extension has ended.
    """

    directory: Path
    manifest: Manifest
    lease: CopyLease | None = None

    def release(self) -> None:
        """Give up the copy.  Doing it again does nothing."""
        if self.lease is not None:
            self.lease.close()


def clear(one: Installed, state_root: Path) -> Cleared:
    """Return what of an extension may run now.  Reads all of its directory.

    Raises:
        NousError: ``unsafe_operation`` if nothing may; ``invalid_config`` or ``io_failure`` if it cannot be read.
    """
    if one.origin == "user":
        return Cleared(one.directory, one.manifest or read_manifest(one.directory))
    record = _check_trust(one, TrustStore(state_root))
    copy = lease_copy(one.directory, record.digest, state_root) or _copy_again(one.directory, record, state_root)
    cleared = False
    try:
        manifest = read_manifest(copy.directory)
        check_command(manifest, one.directory)
        cleared = True
    finally:
        if not cleared:
            copy.lease.close()
    return Cleared(copy.directory, manifest, copy.lease)


def _copy_again(directory: Path, record: TrustRecord, state_root: Path) -> LeasedCopy:
    """Copy what was trusted, where there is no copy or a damaged one.  Raises as :func:`clear`."""
    if copy_extension(directory, state_root).digest != record.digest:
        raise _distrust(directory, is_changed=True)
    copy = lease_copy(directory, record.digest, state_root)
    if copy is None:
        raise NousError("io_failure", f"the copy of {directory} was changed or removed while it was made")
    return copy


async def clear_in_time(clear_it: Callable[[], Cleared]) -> Cleared:
    """Call a bound :func:`clear` in a thread, for at most ``CLEAR_SECONDS``.  Raises as it, or ``timeout``."""
    try:
        with anyio.fail_after(CLEAR_SECONDS):
            return await run_in_thread(clear_it)
    except TimeoutError:
        cause = f"its files could not be read and compared with those that were trusted within {CLEAR_SECONDS} s"
        raise NousError("timeout", cause, hint="Is the disk slow, or the directory large?") from None


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
    place = str(place_of(one.directory))
    if place not in (record.path, *record.installed_at):
        raise NousError(
            "unsafe_operation",
            f"{record.path} is trusted, but not as what {place} leads to",
            hint=f"Type: nous ext trust {one.directory}",
        )
    if digest_tree(one.directory) != record.digest:
        raise _distrust(one.directory, is_changed=True)
    return record


def _distrust(directory: Path, *, is_changed: bool) -> NousError:
    state = "has changed since it was trusted" if is_changed else "is not trusted"
    return NousError("unsafe_operation", f"{directory} {state}", hint=f"Type: nous ext trust {directory}")
