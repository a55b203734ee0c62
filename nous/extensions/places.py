"""Where extensions stand.  All that a daemon without any has to know of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nous.system.state_dir import user_dir


def user_directory(environ: Mapping[str, str]) -> Path:
    """Return where the user's own extensions stand; it need not exist."""
    return user_dir(environ, "XDG_CONFIG_HOME", ".config") / "nous" / "extensions"


def project_directory(workdir: Path) -> Path:
    """Return where those of a project stand; it need not exist."""
    return workdir / ".nous" / "extensions"


def may_be_any(workdir: Path, environ: Mapping[str, str], state_root: Path) -> bool:
    """Whether there can be any extension, or one of the project was trusted and has been removed since.

    A few looks at the disk; trust records are read only where there are some.
    """
    project = project_directory(workdir)
    if project.is_dir() or user_directory(environ).is_dir():
        return True
    if not (state_root / "trust").is_dir():
        return False
    from nous.system.trust import TrustStore

    top = project.resolve()
    return any(Path(record.path).parent == top for record in TrustStore(state_root).records())
