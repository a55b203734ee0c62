"""The project's file: it comes with somebody else's repository, and counts only once a person has trusted it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from nous.config.yaml_file import SourceFile, read_source

if TYPE_CHECKING:
    from nous.system.trust import Verdict

PROJECT_FILE: Final = Path(".nous") / "config.yaml"
"""Where it stands, below the workdir."""


class ProjectFile(NamedTuple):
    """What stood in a project's file when its trust was checked.  Whoever uses it uses these bytes."""

    source: SourceFile
    digest: str
    verdict: Verdict


def read_project_file(workdir: Path, state_root: Path) -> ProjectFile | None:
    """Return the project's file of ``workdir`` and whether it is trusted, or None if there is none.

    Raises:
        NousError: as :func:`nous.config.yaml_file.read_source`.
    """
    path = workdir.absolute() / PROJECT_FILE
    if not path.parent.is_dir():
        return None
    try:
        source = read_source(path)
    except FileNotFoundError:
        return None
    from nous.system.trust import TrustStore, digest_bytes  # most starts meet no such file

    digest = digest_bytes(source.data)
    return ProjectFile(source, digest, TrustStore(state_root).check(path, digest))
