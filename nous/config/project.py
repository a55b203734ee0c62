"""The project's file: it comes with somebody else's repository, and counts only once a person has trusted it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from nous.config.yaml_file import read_source
from nous.config.yaml_nodes import SourceFile
from nous.errors import NousError

if TYPE_CHECKING:
    from nous.system.trust import TrustRecord, Verdict

PROJECT_FILE: Final = Path(".nous") / "config.yaml"
"""Where it stands, below the workdir."""


class ProjectFile(NamedTuple):
    """What stood in a project's file when its trust was checked.  Whoever uses it uses these bytes.

    ``fault`` says why the file could not be read (a directory, a FIFO, too long).  Such a file is never trusted.
    ``last_trusted`` is what stood in it when it was trusted, if it has changed or was removed (``is_missing``) since:
    what that forbade stays forbidden.  It is None also where that was not recorded, by an earlier version of nous.
    """

    source: SourceFile
    digest: str
    verdict: Verdict
    fault: NousError | None = None
    last_trusted: SourceFile | None = None
    is_missing: bool = False

    def check_restrictions(self) -> None:
        """Refuse to go on where the file once forbade something and nobody knows what.

        Raises:
            NousError: ``unsafe_operation``.
        """
        if self.verdict == "changed" and self.last_trusted is None:
            directory = Path(self.source.name).parent.parent
            raise NousError(
                "unsafe_operation",
                f"{self.source.name}: {self.reason}, and what it forbade then was not recorded",
                hint=f"Read it, then type: nous trust {directory} (or nous trust --forget {directory}).",
            )

    @property
    def reason(self) -> str:
        """Why the file does not count, for people: ``not trusted``, ``changed since it was trusted``, or the fault."""
        if self.fault is not None:
            return f"it cannot be read: {self.fault.cause}"
        if self.is_missing:
            return "removed since it was trusted"
        return "changed since it was trusted" if self.verdict == "changed" else "not trusted"


def read_project_file(workdir: Path, state_root: Path) -> ProjectFile | None:
    """Return the project's file of ``workdir`` and whether it is trusted, or None if there is none and never was.

    A file that cannot be read is returned with its ``fault``: it belongs to somebody else, who must not be able to
    prevent a start with it.
    """
    path = workdir.absolute() / PROJECT_FILE
    source, fault = _read(path)
    if source is None and not (state_root / "trust").is_dir():
        return None
    from nous.system.trust import TrustStore, digest_bytes  # most starts meet no such file

    record = TrustStore(state_root).find(path)
    if source is None:
        if record is None:
            return None
        missing = SourceFile(str(path), b"")
        return ProjectFile(missing, "", "changed", None, _last_trusted(path, record), is_missing=True)
    digest = "" if fault is not None else digest_bytes(source.data)
    if record is None:
        return ProjectFile(source, digest, "unknown", fault)
    if record.digest == digest:
        return ProjectFile(source, digest, "trusted", fault)
    return ProjectFile(source, digest, "changed", fault, _last_trusted(path, record))


def _read(path: Path) -> tuple[SourceFile | None, NousError | None]:
    """Return the file (empty if it cannot be read, with the reason), or None if there is none."""
    if not path.parent.is_dir():
        return None, None
    try:
        return read_source(path), None
    except FileNotFoundError:
        return None, None
    except NousError as error:
        return SourceFile(str(path), b""), error


def _last_trusted(path: Path, record: TrustRecord) -> SourceFile | None:
    return None if record.content is None else SourceFile(f"{path} (as trusted)", record.content.encode())
