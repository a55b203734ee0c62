"""A machine, a state directory and a configuration for checks to look at; each can be spoilt on its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from nous.cli.doctor.check import Situation, describe_error
from nous.cli.doctor.machine import Machine
from nous.config.load import load
from nous.config.settings import Settings
from nous.errors import NousError
from nous.store.session import Session
from nous.store.sessions import SessionStore
from nous.system.state_dir import init_state_dir, state_paths
from tests.support.home import ROOT
from tests.unit.store.helpers import NOW, append_row

FIXTURES: Final = ROOT / "fixtures" / "runs"
LONG_AGO_S: Final = 1_000_000_000
KEY: Final = "sk-0123456789abcdef"


class Facts(Machine):
    """The real machine, but for the facts that a test gives."""

    def __init__(self, environ: Mapping[str, str], facts: Mapping[str, Any]) -> None:
        super().__init__(environ)
        self._facts = facts

    def python(self) -> tuple[int, int]:
        version: tuple[int, int] = self._facts.get("python", super().python())
        return version

    def requirements(self) -> list[str]:
        lines: list[str] = self._facts.get("requirements", super().requirements())
        return lines

    def free_bytes(self, path: Path) -> int:
        free: int = self._facts.get("free_bytes", super().free_bytes(path))
        return free


class Room:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = state_paths(root / "state")
        self.workdir = root / "work"
        self.workdir.mkdir()
        init_state_dir(self.state.root, "nous init")
        self.environ = {"HOME": str(root), "PATH": os.environ["PATH"]}
        self.facts: dict[str, Any] = {}
        self.flags: dict[str, object] = {}
        self.sockets: list[Path] = []

    def look(self) -> Situation:
        """Return the situation as ``nous doctor`` would see it."""
        loaded, config_error = None, None
        flags = {"state_dir": str(self.state.root), **self.flags}
        try:
            loaded = load(environ=self.environ, flags=flags, config_file=None, workdir=self.workdir)
        except NousError as error:
            config_error = describe_error(error)
        return Situation(
            machine=Facts(self.environ, self.facts),
            environ=self.environ,
            settings=Settings() if loaded is None else loaded.settings,
            loaded=loaded,
            config_error=config_error,
            state=self.state,
            workdir=self.workdir,
            sockets=tuple(self.sockets),
        )

    # -- the configuration

    def configure(self, **sections: Mapping[str, object]) -> Path:
        """Write the user's file."""
        path = self.root / ".config" / "nous" / "config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(sections))
        path.chmod(0o600)
        return path

    def write_project(self, text: str) -> Path:
        path = self.workdir / ".nous" / "config.yaml"
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
        return path

    # -- what is recorded

    def add_session(self, session_id: str = "ses-1", ids: Sequence[str] = ("m1", "m2", "m3")) -> Path:
        session: Session = SessionStore(self.state.sessions).create(session_id, NOW)
        append_row(session, ids)
        return self.state.sessions / f"{session_id}.ndjson"

    def add_trace(self, name: str = "plain") -> Path:
        """Put a recorded run among the traces."""
        source = next(path for path in sorted(FIXTURES.glob("*.trace.ndjson")) if path.name.startswith(name))
        path = self.state.traces / "run-1.ndjson"
        path.write_bytes(source.read_bytes())
        path.chmod(0o600)
        return path

    def leave_temp(self, directory: Path, name: str, size: int = 1) -> Path:
        """Leave a temporary file behind, as somebody did who was killed long ago."""
        path = directory / name
        with path.open("wb") as file:
            file.truncate(size)
        path.chmod(0o600)
        os.utime(path, (LONG_AGO_S, LONG_AGO_S))
        return path


def cut_last_line(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"\n", 0, -1) + 1])


def spoil(path: Path) -> None:
    """Change one letter in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[data.index(b'"type"', len(data) // 3) + 1] = ord("X")
    path.write_bytes(data)
