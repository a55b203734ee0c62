"""Where extensions stand.  All that a daemon without any has to know of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nous.system.state_dir import user_dir

if TYPE_CHECKING:
    from nous.system.trust import TrustRecord


def user_directory(environ: Mapping[str, str]) -> Path:
    """Return where the user's own extensions stand; it need not exist."""
    return user_dir(environ, "XDG_CONFIG_HOME", ".config") / "nous" / "extensions"


def project_directory(workdir: Path) -> Path:
    """Return where those of a project stand; it need not exist."""
    return workdir / ".nous" / "extensions"


def place_of(directory: Path) -> Path:
    """Return where an extension is installed: its project's real path and its name there, not where a link leads."""
    directory = directory.absolute()
    workdir = directory.parent.parent.parent
    if directory.parent == project_directory(workdir):
        return project_directory(workdir.resolve()) / directory.name
    return directory.resolve()


def is_of_project(record: TrustRecord, workdir: Path) -> bool:
    """Whether what was trusted was installed in this project, though it may be removed since."""
    place = project_directory(workdir.resolve())
    tops = {place, place.resolve()}
    return any(Path(path).parent in tops for path in (record.path, *record.installed_at))


def may_be_any(workdir: Path, environ: Mapping[str, str], state_root: Path) -> bool:
    """Whether there can be any extension, or one of the project was trusted and has been removed since.

    A few looks at the disk; trust records are read only where there are some.
    """
    if project_directory(workdir).is_dir() or user_directory(environ).is_dir():
        return True
    if not (state_root / "trust").is_dir():
        return False
    from nous.system.trust import TrustStore

    return any(is_of_project(record, workdir) for record in TrustStore(state_root).records())
