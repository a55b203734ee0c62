"""Facts about the machine nous runs on, each asked of the system when a check asks for it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio

from nous.system.process import spawn
from nous.system.supervise import supervise

_PROGRAM_MS: Final = 10_000
_PROGRAM_MEMORY_BYTES: Final = 1 << 30


DISTRIBUTION: Final = "nous-core"
"""What the package ``nous`` is called in a package index, where ``nous`` is another project."""


class Machine:
    """The real one.  A test puts facts of its own in the place of those that it cannot bring about."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def python(self) -> tuple[int, int]:
        """Return Python's version."""
        return sys.version_info[:2]

    def requirements(self) -> list[str]:
        """Return what nous needs, as its package says it (``name>=1.2``), or nothing if it is not installed."""
        try:
            return [line for line in importlib.metadata.requires(DISTRIBUTION) or [] if ";" not in line]
        except importlib.metadata.PackageNotFoundError:
            return []

    def version_of(self, package: str) -> str | None:
        """Return the version of an installed distribution."""
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    def free_bytes(self, path: Path) -> int:
        """Return what may still be written where ``path`` is, or would be."""
        while not path.exists():
            path = path.parent
        return shutil.disk_usage(path).free

    def temp_directory(self) -> Path:
        """Return where temporary files go, whether or not they can."""
        return Path(self._environ.get("TMPDIR") or tempfile.gettempdir())

    def find(self, program: str) -> str | None:
        """Return the path of a program, if it is on PATH."""
        return shutil.which(program, path=self._environ.get("PATH", os.defpath))

    def output_of(self, *command: str, cwd: Path) -> str | None:
        """Run a program and return what it prints, without space at its ends; None if it cannot be run or fails."""
        try:
            return anyio.run(_output_of, command, cwd, self._environ)
        except OSError:
            return None


async def _output_of(command: tuple[str, ...], cwd: Path, environ: Mapping[str, str]) -> str | None:
    output = bytearray()

    async def receive(data: bytes) -> None:
        output.extend(data)

    child = spawn(command, cwd=cwd, env=environ, stderr="null")
    ending = await supervise(child, receive, timeout_ms=_PROGRAM_MS, memory_limit_bytes=_PROGRAM_MEMORY_BYTES)
    return output.decode("utf-8", "replace").strip() if ending.returncode == 0 else None
