"""Looking at processes from a test: is it there, wait until it is gone, run a daemon-like process."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nous.system import process, procfs
from nous.system.proctree import FAMILY
from tests.support.home import ROOT, SCALE

DEADLINE_S = 20.0 * SCALE
_PR_SET_CHILD_SUBREAPER = 36


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


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Be a child subreaper for a while, as the daemon is all its life."""
    assert process.become_subreaper()
    try:
        yield
    finally:
        assert process._prctl(_PR_SET_CHILD_SUBREAPER, 0)
        FAMILY.adopts_orphans = False


def python(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a Python of our own, with pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
