"""The project's file: it comes with somebody else's repository, and counts only once a person has trusted it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from nous.config.yaml_file import SourceFile, read_source
from nous.errors import NousError

if TYPE_CHECKING:
    from nous.system.trust import Verdict

PROJECT_FILE: Final = Path(".nous") / "config.yaml"
"""Where it stands, below the workdir."""


class ProjectFile(NamedTuple):
    """What stood in a project's file when its trust was checked.  Whoever uses it uses these bytes.

    ``fault`` says why the file could not be read (a directory, a FIFO, too long).  Such a file is never trusted.
    """

    source: SourceFile
    digest: str
    verdict: Verdict
    fault: NousError | None = None

    @property
    def reason(self) -> str:
        """Why the file does not count, for people: ``not trusted``, ``changed since it was trusted``, or the fault."""
        if self.fault is not None:
            return f"it cannot be read: {self.fault.cause}"
        return "changed since it was trusted" if self.verdict == "changed" else "not trusted"


def read_project_file(workdir: Path, state_root: Path) -> ProjectFile | None:
    """Return the project's file of ``workdir`` and whether it is trusted, or None if there is none.

    A file that cannot be read is returned with its ``fault``: it belongs to somebody else, who must not be able to
    prevent a start with it.
    """
    path = workdir.absolute() / PROJECT_FILE
    if not path.parent.is_dir():
        return None
    fault = None
    try:
        source = read_source(path)
    except FileNotFoundError:
        return None
    except NousError as error:
        source, fault = SourceFile(str(path), b""), error
    from nous.system.trust import TrustStore, digest_bytes  # most starts meet no such file

    digest = "" if fault is not None else digest_bytes(source.data)
    return ProjectFile(source, digest, TrustStore(state_root).check(path, digest), fault)
