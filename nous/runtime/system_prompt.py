"""The system prompt: who the agent is, where it works, what it may use, and AGENTS.md of the workdir."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from nous.telemetry.log import get_log

AGENTS_FILE: Final = "AGENTS.md"
MAX_AGENTS_BYTES: Final = 32 * 1024
MAX_ALL_AGENTS_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 64
"""So many directories are looked into, the workdir and those above it."""

_IDENTITY: Final = """\
You are an agent that helps a person with the files and commands of one directory. Work on your own until the task is
done: look before you change anything, make the smallest change that does it, and check what you did. Say plainly what
you did and what you could not do. Never invent the content of files or the output of commands."""

log = get_log("runtime")


def build_system_prompt(*, override: str | None, workdir: Path, tools: Sequence[str], agents_text: str | None) -> str:
    """Return the prompt; ``override`` replaces the first part, never the facts about this run."""
    names = ", ".join(tools) if tools else "none"
    parts = [override if override is not None else _IDENTITY, f"Working directory: {workdir}", f"Tools: {names}"]
    if agents_text:
        parts.append(f"Instructions of this directory ({AGENTS_FILE}):\n\n{agents_text}")
    return "\n\n".join(parts)


def read_agents_file(workdir: Path, state_dir: Path) -> str | None:
    """Return AGENTS.md of the workdir and of the directories above it up to the repository's root, the closest last.

    Each is cut to 32 KiB; of all together at most 64 KiB, the closest first, are taken.  The rules of the tools hold: a
    link that leads out of the repository (without one, out of the workdir) or into nous's own state is not followed.
    ``None`` if there is none.
    """
    directories = _directories(Path(os.path.realpath(workdir)))
    found: list[tuple[Path, str]] = []
    left = MAX_ALL_AGENTS_BYTES
    for directory in directories:
        # Asked by every run, and mostly there is none: one look, before any of what is careful about links.
        if left <= 0 or not os.path.lexists(directory / AGENTS_FILE):
            continue
        text = _read_one(directory, _Boundary(directories[-1], state_dir, state_dir), min(left, MAX_AGENTS_BYTES))
        if text is not None:
            left -= len(text.encode())
            found.insert(0, (directory, text))
    if len(found) == 1 and found[0][0] == directories[0]:
        return found[0][1]
    return "\n\n".join(f"{directory / AGENTS_FILE}:\n\n{text}" for directory, text in found) or None


class _Boundary(NamedTuple):
    workdir: Path
    state_dir: Path
    outputs_root: Path
    allow_outside_workdir: bool = False


def _directories(workdir: Path) -> list[Path]:
    """Return the workdir and the directories above it up to the root of the repository that it is in.

    A repository of another owner does not count, as for git: who made it is not who works here.
    """
    directories: list[Path] = []
    for directory in (workdir, *workdir.parents)[:MAX_DEPTH]:
        directories.append(directory)
        if os.path.lexists(directory / ".git"):
            owners = {os.geteuid(), workdir.stat().st_uid}
            return directories if all(parent.stat().st_uid in owners for parent in directories) else [workdir]
    return [workdir]


def _read_one(directory: Path, boundary: _Boundary, limit: int) -> str | None:
    # Most runs have no such file, and no start waits for what reads it.
    from nous.tools.failure import ToolFailure
    from nous.tools.paths import open_place
    from nous.tools.text import read_bytes

    try:
        with open_place(str(directory / AGENTS_FILE), boundary) as place:
            fd = place.open_regular()
        try:
            data = read_bytes(fd, limit + 1)
        finally:
            os.close(fd)
    except ToolFailure as failure:
        log.warning("agents_file_ignored", reason=str(failure))
        return None
    except OSError as error:
        log.warning("agents_file_ignored", reason=error.strerror)
        return None
    text = data[:limit].decode("utf-8", "ignore" if len(data) > limit else "replace")
    return f"{text}\n[cut at {limit // 1024} KiB]" if len(data) > limit else text
