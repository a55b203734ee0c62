"""Looking at processes from a test: is it there, wait until it is gone, run a daemon-like process."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nous.system import process, procfs
from nous.system.prctl import set_child_subreaper
from nous.system.proctree import FAMILY
from tests.support.home import ROOT, SCALE

DEADLINE_S = 20.0 * SCALE


def is_running(pid: int) -> bool:
    stat = procfs.read_stat(pid)
    return stat is not None and not stat.is_dead


def wait_until_gone(pid: int) -> None:
    """Return when ``pid`` has ended; fail the test after the deadline."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([pidfd], [], [], DEADLINE_S)
        assert ready, f"process {pid} still runs"
    finally:
        os.close(pidfd)


def wait_for(condition: Callable[[], bool]) -> None:
    """Return when ``condition`` holds: for what the system has no event for."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline


def wait_for_program(pid: int, name: str) -> None:
    """Return when ``pid`` has become the program it was started for, with its arguments and its environment."""
    command_line = Path(f"/proc/{pid}/cmdline")
    wait_for(lambda: command_line.read_bytes().startswith(name.encode()))


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Be a child subreaper for a while, as the daemon is all its life."""
    assert process.become_subreaper()
    try:
        yield
    finally:
        assert set_child_subreaper(on=False)
        FAMILY.adopts_orphans = False


def python(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a Python of our own, with pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
