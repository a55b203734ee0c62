"""Which extensions there are: one directory each, the project's under its workdir, the user's beside the configuration.

    <workdir>/.nous/extensions/<any name>/extension.yaml      counts once trusted (nous ext trust DIR)
    $XDG_CONFIG_HOME/nous/extensions/<any name>/extension.yaml

What stands in the user's own directory is the user's own; what a project brings is somebody else's, and is not even
started before its directory was trusted as it is now.  Where both have the same name, the user's counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from msgspec import Struct

from nous.errors import NousError
from nous.extensions.manifest import MANIFEST_NAME, Manifest, read_manifest
from nous.extensions.places import project_directory, user_directory

Origin = Literal["user", "project"]


class Installed(Struct, frozen=True, kw_only=True):
    """An extension's directory.  ``manifest`` is ``None`` where it is not valid: ``fault`` says why."""

    directory: Path
    origin: Origin
    manifest: Manifest | None = None
    fault: NousError | None = None

    @property
    def name(self) -> str:
        """The name in its manifest; that of its directory if there is no manifest that can be read."""
        return self.directory.name if self.manifest is None else self.manifest.name


def find_installed(workdir: Path, environ: Mapping[str, str]) -> list[Installed]:
    """Return every extension, the user's first, each with its manifest or what is wrong with that.

    Of two with one name, the later has a fault that says so.
    """
    found: list[Installed] = []
    names: dict[str, Path] = {}
    for root, origin in _roots(workdir, environ):
        for directory in _directories(root):
            one = look_at(directory, origin)
            first = names.setdefault(one.name, directory) if one.manifest is not None else directory
            if first != directory:
                taken = NousError("invalid_config", f"{directory / MANIFEST_NAME}: name: {first} has the same name")
                one = Installed(directory=directory, origin=origin, fault=taken)
            found.append(one)
    return found


def look_at(directory: Path, origin: Origin) -> Installed:
    """Read one extension's manifest; nothing of it is run."""
    try:
        return Installed(directory=directory, origin=origin, manifest=read_manifest(directory))
    except NousError as fault:
        return Installed(directory=directory, origin=origin, fault=fault)


def origin_of(directory: Path, environ: Mapping[str, str]) -> Origin:
    """Say whose a directory is: what does not stand in the user's own place is a project's."""
    is_users = directory.resolve().parent == user_directory(environ).resolve()
    return "user" if is_users else "project"


def _roots(workdir: Path, environ: Mapping[str, str]) -> tuple[tuple[Path, Origin], ...]:
    return (user_directory(environ), "user"), (project_directory(workdir), "project")


def _directories(root: Path) -> Iterator[Path]:
    """Yield the directories in ``root`` that have a manifest, by name."""
    try:
        names = sorted(os.listdir(root))  # noqa: PTH208  names, in the order of their bytes
    except OSError:
        return
    for name in names:
        if (root / name / MANIFEST_NAME).is_file():
            yield root / name
