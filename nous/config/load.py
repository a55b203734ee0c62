"""The configuration of one call: which files there are, which of them count, and what comes out.

The state directory decides which project files are trusted, so it is found first, from all the other layers; no
project's file may name it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from nous.config.layers import resolve
from nous.config.project import ProjectFile, read_project_file
from nous.config.settings import Settings
from nous.system.state_dir import default_state_dir


class Loaded(NamedTuple):
    """The configuration.  ``project`` is the project's file, if there is one, whether it counts or not."""

    settings: Settings
    sources: dict[str, str]
    state_root: Path
    project: ProjectFile | None

    @property
    def ignored_project(self) -> ProjectFile | None:
        """The project's file, if there is one that does not count."""
        return self.project if self.project is not None and self.project.verdict != "trusted" else None


def load(*, environ: Mapping[str, str], flags: Mapping[str, object], config_file: Path | None, workdir: Path) -> Loaded:
    """Read all layers.  A project's file that is not trusted, or was changed since, is left out.

    Of one that was trusted once, what it forbade then stays forbidden until it is trusted again or forgotten.

    Raises:
        NousError: as :func:`nous.config.layers.resolve`.
    """
    found = resolve(environ=environ, flags=flags, config_file=config_file)
    named = found.settings.state_dir
    state_root = default_state_dir(environ).absolute() if named is None else Path(named)
    project = read_project_file(workdir, state_root)
    if project is not None and project.verdict == "trusted":
        found = resolve(environ=environ, flags=flags, config_file=config_file, trusted_project=project.source)
    elif project is not None and project.last_trusted is not None:
        found = resolve(environ=environ, flags=flags, config_file=config_file, last_trusted=project.last_trusted)
    return Loaded(found.settings, found.sources, state_root, project)
