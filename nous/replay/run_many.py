"""Many recordings: found in files and directories, replayed by several processes, reported in their order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from nous.errors import NousError
from nous.replay.engine_mode import replay_in_engine
from nous.replay.report import Mode, Report
from nous.system.prctl import set_non_dumpable

SUFFIX: Final = ".trace.ndjson"
"""What a recording in a directory is called; broken samples for tests carry another suffix."""


def find_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files among ``paths`` as they are, and of each directory all its recordings, recursively, by name.

    Raises:
        NousError: ``invalid_usage`` for a path that does not exist, and for a directory without recordings.
    """
    out: list[Path] = []
    for path in paths:
        if not path.exists():
            raise NousError("invalid_usage", f"{path}: no such file or directory")
        if path.is_file():
            out.append(path)
            continue
        if not path.is_dir():
            raise NousError("invalid_usage", f"{path} is neither a file nor a directory")
        found = sorted(p for p in path.rglob(f"*{SUFFIX}") if p.is_file())
        if not found:
            raise NousError("invalid_usage", f"{path} holds no *{SUFFIX}")
        out += found
    return list(dict.fromkeys(out))


def replay_one(path: Path, mode: Mode) -> Report:
    """Return the verdict on one file.  Raises what :func:`nous.replay.daemon_mode.replay_in_daemon` raises."""
    if mode == "engine":
        return replay_in_engine(path)
    # Brings the client along, which the other mode does without.
    from nous.replay.daemon_mode import replay_in_daemon

    return replay_in_daemon(path)


def replay_many(paths: Sequence[Path], mode: Mode, processes: int = 1) -> Iterator[Report]:
    """Yield the verdicts in the order of ``paths``, each as soon as those before it are known."""
    replay = partial(replay_one, mode=mode)
    processes = min(processes, len(paths))
    if processes <= 1:
        yield from map(replay, paths)
        return
    # A fresh interpreter for each: a fork of a process with threads is no place to start an event loop.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=set_non_dumpable) as pool:
        yield from pool.map(replay, paths)
