"""Processes that a daemon's tools have started, found by the directory they work in: whoever their parents are now."""

from __future__ import annotations

from pathlib import Path

from nous.system import procfs


def workers_in(directory: Path) -> set[int]:
    """Return the living processes whose working directory is ``directory``."""
    found = set()
    for pid, stat in procfs.all_processes().items():
        try:
            if not stat.is_dead and Path(f"/proc/{pid}/cwd").readlink() == directory:
                found.add(pid)
        except OSError:
            continue
    return found
