"""Checks of the machine: the interpreter, packages, space, temporary files, programs, and a checkout's git hooks."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Final

from nous.cli.doctor.check import Finding, Situation, enumerate_names, failed, passed, warned

OLDEST_PYTHON: Final = (3, 11)
NEWEST_PYTHON: Final = (3, 13)
"""The newest one that nous is tested with."""

LITTLE_SPACE_BYTES: Final = 1 << 30
NO_SPACE_BYTES: Final = 100 << 20

_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)")


def check_python(situation: Situation) -> Finding:
    """Look at Python's version."""
    version = situation.machine.python()
    shown = f"Python {version[0]}.{version[1]}"
    if version < OLDEST_PYTHON:
        return failed(f"{shown} is too old", "Install Python 3.11 or newer.")
    if version > NEWEST_PYTHON:
        return warned(f"{shown} is newer than what nous is tested with", "Use Python 3.13 if something fails.")
    return passed(shown)


def check_packages(situation: Situation) -> Finding:
    """Every package nous needs is there, and new enough."""
    requirements = situation.machine.requirements()
    if not requirements:
        return warned("nous is not installed as a package: what it needs cannot be told", "pip install nous")
    missing = [line for line in requirements if not _is_satisfied(situation, line)]
    if missing:
        return failed(f"missing or too old: {enumerate_names(missing)}", f"pip install '{missing[0]}'")
    return passed(f"{len(requirements)} packages")


def _is_satisfied(situation: Situation, requirement: str) -> bool:
    match = _REQUIREMENT.fullmatch(requirement)
    if match is None:
        return situation.machine.version_of(requirement) is not None
    version = situation.machine.version_of(match[1])
    return version is not None and _numbers(version) >= _numbers(match[2])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def check_disk_space(situation: Situation) -> Finding:
    """Look how much space is left."""
    free = situation.machine.free_bytes(situation.state.root)
    shown = f"{free >> 20} MiB free where {situation.state.root} is"
    fix = "Free some space, or choose another --state-dir."
    if free < NO_SPACE_BYTES:
        return failed(shown, fix)
    return warned(shown, fix) if free < LITTLE_SPACE_BYTES else passed(shown)


def check_temp_directory(situation: Situation) -> Finding:
    """Temporary files can be written, and nobody else can put others in their place."""
    directory = situation.machine.temp_directory()
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"x")
    except OSError as error:
        return failed(f"{directory}: {error.strerror}", "Set TMPDIR to a directory that can be written.")
    mode = directory.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return warned(f"{directory}: everybody may remove what others wrote there", f"chmod +t {directory}")
    return passed(str(directory))


def check_ripgrep(situation: Situation) -> Finding:
    """Look whether ripgrep is there and runs."""
    found = situation.machine.find("rg")
    if found is None:
        return warned("rg is not on PATH: grep searches with Python, which is slower", "Install ripgrep.")
    version = situation.machine.output_of(found, "--version", cwd=Path("/"))
    if version is None or not version.startswith("ripgrep"):
        return failed(f"{found} does not run, or is another program", "Install ripgrep anew, or remove it.")
    return passed(f"{found}, {version.partition(chr(10))[0]}")


def check_git_hooks(situation: Situation) -> Finding:
    """In a checkout of nous itself, what is pushed was checked before (``make hooks``)."""
    top = _checkout(situation)
    if top is None:
        return passed("not a checkout of nous")
    configured = situation.machine.output_of("git", "config", "--get", "core.hooksPath", cwd=top)
    hooks = situation.machine.output_of("git", "rev-parse", "--git-path", "hooks", cwd=top)
    if hooks is None:
        return failed(f"{top}: git does not run", "Install git.")
    hook = top / hooks / "pre-push"
    if hook.is_file() and os.access(hook, os.X_OK):
        return passed(str(hook))
    if configured is not None or hook.exists():
        return failed(f"{hook} is not a program: pushes are not checked", "make hooks")
    return warned("pushes are not checked", "make hooks")


def _checkout(situation: Situation) -> Path | None:
    """Return the top of the checkout of nous that somebody works in, if it is one."""
    for directory in (situation.workdir, *situation.workdir.parents):
        if (directory / ".git").exists():
            return directory if (directory / "nous" / "cli" / "doctor").is_dir() else None
    return None
