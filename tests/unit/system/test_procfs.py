"""What /proc says of real processes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nous.system import procfs
from tests.unit.system.processes import DEADLINE_S, python

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

NO_SUCH_PID = 2**22 + 1
"""Above the highest pid Linux gives."""


def test_this_process() -> None:
    stat = procfs.read_stat(os.getpid())
    assert stat is not None
    assert (stat.pid, stat.parent, stat.group, stat.session) == (
        os.getpid(),
        os.getppid(),
        os.getpgrp(),
        os.getsid(0),
    )
    assert stat.started > 0
    assert not stat.is_dead


def test_a_process_that_is_not_there_has_nothing() -> None:
    assert procfs.read_stat(NO_SUCH_PID) is None
    assert procfs.children_of(NO_SUCH_PID) == []
    assert procfs.resident_bytes(NO_SUCH_PID) == 0
    assert procfs.proportional_bytes(NO_SUCH_PID) == 0
    assert procfs.read_variable(NO_SUCH_PID, "PATH") is None


@pytest.mark.parametrize("name", ["a b", ") R 1 1", "((", "S)"])
def test_a_command_may_have_any_name(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "100"], start_new_session=True) as process:
        try:
            stat = procfs.read_stat(process.pid)
            assert stat is not None
            assert (stat.parent, stat.session) == (os.getpid(), process.pid)
        finally:
            process.kill()


def test_a_zombie_is_dead_until_it_is_reaped() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    stat = procfs.read_stat(process.pid)
    assert stat is not None
    assert stat.is_dead
    process.wait(DEADLINE_S)
    assert procfs.read_stat(process.pid) is None


def test_children_and_memory_and_environment() -> None:
    program = "import sys; held = b'x' * 50_000_000; print(flush=True); sys.stdin.read()"
    with python(program) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.pid in procfs.all_processes()
        if procfs.lists_children():
            assert process.pid in procfs.children_of(os.getpid())
        assert 50_000_000 < procfs.resident_bytes(process.pid) < 500_000_000
        assert 50_000_000 < procfs.proportional_bytes(process.pid) <= procfs.resident_bytes(process.pid)
        assert procfs.read_variable(process.pid, "PATH") == os.environ["PATH"]
        assert procfs.read_variable(process.pid, "PAT") is None
        process.kill()
