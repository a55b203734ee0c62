"""Checks of the state directory: whose it is, what was left behind in it, who works in it."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from nous.cli.doctor.check import Finding, Situation, enumerate_names, failed, passed, warned
from nous.store.disk import Disk
from nous.store.locks import Owner, read_owner
from nous.store.sweep import sweep_temps
from nous.system import leftovers, state_dir
from nous.system.leftovers import find_leftovers
from nous.system.state_dir import is_dead, list_epochs, read_bootstrap_record

LARGE_LEFTOVERS_BYTES: Final = 100 << 20

_OTHERS: Final = 0o077


# -- modes


def check_state_directory(situation: Situation) -> Finding:
    """It is there, ours, writable, and closed to everybody else."""
    root = situation.state.root
    if root.exists() and not root.is_dir():
        return failed(f"{root} is not a directory", "Remove it, or choose another --state-dir.")
    record = read_bootstrap_record(root)
    if record is None:
        return warned(f"{root} was not made yet", "nous init")
    owner = root.stat().st_uid
    if owner != os.geteuid():
        return failed(f"{root} belongs to user {owner}, not to {os.geteuid()}", "Run nous as its owner.")
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        return failed(f"{root} cannot be written", f"chmod 700 {root}")
    open_to_others = [str(path) for path in _private_paths(situation) if stat.S_IMODE(path.stat().st_mode) & _OTHERS]
    if open_to_others:
        return warned(f"open to other users: {enumerate_names(open_to_others)}", "nous doctor --repair")
    return passed(f"{root}, made by {record.actor}")


def close_to_others(situation: Situation) -> list[str]:
    """Close what is private to other users; return what was done."""
    done = []
    for path in _private_paths(situation):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & _OTHERS:
            path.chmod(mode & ~_OTHERS)
            done.append(f"closed {path} to other users")
    return done


def _private_paths(situation: Situation) -> Iterator[Path]:
    """Yield the state directory and what lies directly in its directories."""
    root = situation.state.root
    yield root
    for path in sorted(root.iterdir()):
        if path.is_symlink():
            continue
        yield path
        if path.is_dir():
            yield from (below for below in sorted(path.iterdir()) if not below.is_symlink())


# -- what was left behind


def check_leftovers(situation: Situation) -> Finding:
    """Look for temporary files of killed processes."""
    found = list(find_leftovers(situation.state.root))
    size = sum(path.stat().st_size for path in found)
    if not found:
        return passed("no temporary files of killed processes")
    message = f"{len(found)} temporary files of killed processes, {size >> 10} KiB"
    finding = failed if size >= LARGE_LEFTOVERS_BYTES else warned
    return finding(message, "nous doctor --repair")


def remove_leftovers(situation: Situation) -> list[str]:
    """Remove them.  Where somebody holds the lock under which one was written, it stays."""
    with suppress(FileNotFoundError):
        sweep_temps(Disk(), str(situation.state.sessions))
    return [f"removed {path}" for path in leftovers.remove_leftovers(situation.state.root, situation.state.sessions)]


# -- who works here


def check_locks(situation: Situation) -> Finding:
    """No session is held for longer than anybody waits, and no daemon left its lock behind."""
    stuck = list(_stuck(situation))
    if stuck:
        return failed(f"held for too long: {enumerate_names(stuck)}", "Look at these processes; end what hangs.")
    daemons = situation.state.daemons
    epochs = list_epochs(daemons)
    dead = [epoch for epoch in epochs if is_dead(daemons, epoch)]
    if dead:
        return warned(f"{len(dead)} daemons were killed and left their locks behind", "nous doctor --repair")
    owners = [read_owner_pid(daemons / f"{epoch}.lock") for epoch in epochs]
    return passed(f"daemons at work: {enumerate_names(owners)}" if owners else "no daemon at work")


def remove_dead_locks(situation: Situation) -> list[str]:
    """Remove the locks of dead daemons; return what was done."""
    return [f"removed the lock of {epoch}" for epoch in state_dir.remove_dead_locks(situation.state.daemons)]


def read_owner_pid(path: Path) -> str:
    """Return the process that a daemon's lock names, for people."""
    with suppress(OSError, msgspec.DecodeError, RecursionError, KeyError, TypeError):
        return f"pid {msgspec.json.decode(path.read_bytes())['pid']}"
    return path.stem


def _stuck(situation: Situation) -> Iterator[str]:
    now_ms = time.time_ns() // 1_000_000
    for path in sorted(situation.state.sessions.glob("*.lock")):
        owner = _holder(path)
        if owner is not None and now_ms - owner.since_ms >= situation.settings.session_lock.stale_after_ms:
            yield f"{path.stem} by pid {owner.pid} for {(now_ms - owner.since_ms) // 1000} s"


def _holder(path: Path) -> Owner | None:
    """Return who holds a session's lock, or None if nobody does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_owner(str(path))
    finally:
        os.close(fd)
    return None
