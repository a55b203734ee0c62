"""Who belongs to a tree, seen on real processes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio
import pytest

from nous.system import procfs
from nous.system.process import Child, spawn
from nous.system.proctree import FAMILY, MARK_VARIABLE
from tests.unit.system.processes import (
    DEADLINE_S,
    adopting_orphans,
    is_running,
    python,
    wait_for,
    wait_for_program,
    wait_until_gone,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]


async def start(command: str, *, lines: int = 1) -> tuple[Child, list[str]]:
    """Start a command line and return it with the first words it prints, one a line."""
    child = spawn(["bash", "-c", command], cwd=Path("/"), env={"PATH": os.environ["PATH"]})
    received = b""
    with anyio.fail_after(DEADLINE_S):
        while received.count(b"\n") < lines:
            received += await child.stdout.receive()
    return child, received.decode().split()


async def finish(child: Child) -> None:
    await child.end(grace_ms=100)
    child.close()


@pytest.mark.parametrize("lists_children", [True, False])
async def test_observing_sums_the_memory_of_all(monkeypatch: pytest.MonkeyPatch, lists_children: bool) -> None:
    hog = f'{sys.executable} -c \'held = b"x" * 60_000_000; print("up", flush=True); import time; time.sleep(300)\''
    child, _ = await start(f"{hog} & {hog} & wait", lines=2)
    if not lists_children:
        monkeypatch.setattr(procfs, "lists_children", lambda: False)
    try:
        assert 120_000_000 < child.tree.observe() < 1_000_000_000
        assert 100_000_000 < child.tree.proportional_bytes() < 1_000_000_000
    finally:
        await finish(child)


async def test_observing_forgets_the_dead_and_keeps_who_left() -> None:
    child, (pid,) = await start("setsid sleep 300 & echo $!; read -r _ < <(sleep 0.2); disown; exec sleep 300")
    try:
        child.tree.observe()
        assert set(child.tree._seen) >= {child.pid, int(pid)}
        os.kill(int(pid), signal.SIGKILL)
        wait_until_gone(int(pid))
        child.tree.observe()
        assert int(pid) not in child.tree._seen
    finally:
        await finish(child)


async def test_who_was_seen_before_its_parent_died_belongs() -> None:
    with adopting_orphans():
        # Nothing ties the sleeper to its tree but having been seen: no mark, no session, no parent.
        child, (pid,) = await start("(env -i setsid sleep 300 & echo $!; read -r) < <(sleep 0.2); sleep 300")
        other, _ = await start("echo up; sleep 300")
        wait_for_program(int(pid), "sleep")
        try:
            child.tree.observe()
            os.kill(child.pid, signal.SIGKILL)
            assert await child.wait() == -signal.SIGKILL
            assert int(pid) in {member.pid for member in child.tree.members()}
            assert int(pid) not in {member.pid for member in other.tree.members()}
        finally:
            await finish(child)
            await finish(other)
        assert not is_running(int(pid))


async def test_who_let_go_before_anybody_looked_is_counted() -> None:
    with adopting_orphans():
        child, [pid] = await start("sh -c 'setsid sh -c \"echo \\$\\$; exec sleep 300\" &'; sleep 300")
        try:
            wait_for_program(int(pid), "sleep")
            wait_for(lambda: (stat := procfs.read_stat(int(pid))) is not None and stat.parent == os.getpid())
            child.tree.observe()
            # The root, which has become its last command, and the one that let go.
            assert child.tree.size() == 2
        finally:
            await finish(child)
        assert not is_running(int(pid))


async def test_another_process_that_got_the_pid_does_not_belong() -> None:
    child, _ = await start("echo up; sleep 300")
    with python("import sys; sys.stdin.read()") as innocent:
        try:
            stat = procfs.read_stat(innocent.pid)
            assert stat is not None
            child.tree._seen[innocent.pid] = stat.started - 1
            assert innocent.pid not in {member.pid for member in child.tree.members()}
            child.tree._seen[innocent.pid] = stat.started - 1
            child.tree.observe()
            assert innocent.pid not in child.tree._seen
        finally:
            await finish(child)
        assert innocent.poll() is None
        innocent.kill()


async def test_an_orphan_that_could_be_another_tree_s_is_ended_with_the_last_of_them() -> None:
    with adopting_orphans():
        older, _ = await start("echo up; sleep 300")
        child, (pid,) = await start("(env -i setsid sleep 300 & echo $!)")
        await child.wait()
        wait_for_program(int(pid), "sleep")
        await finish(child)
        assert is_running(int(pid))
        await finish(older)
        assert not is_running(int(pid))


async def test_orphans_that_died_are_reaped_while_the_root_still_runs() -> None:
    before = procfs.children_of(os.getpid())
    with adopting_orphans():
        child, _ = await start("for i in {1..20}; do (setsid true &); done; sleep 0.2; echo up; sleep 300")
        try:
            child.tree.observe()
            assert set(procfs.children_of(os.getpid())) - set(before) == {child.pid}
        finally:
            await finish(child)


async def test_a_tree_within_a_tree_carries_both_marks() -> None:
    outer, (inherited,) = await start(f"echo ${MARK_VARIABLE}; sleep 300")
    inner = spawn(["sleep", "300"], cwd=Path("/"), env={"PATH": os.environ["PATH"], MARK_VARIABLE: inherited})
    try:
        wait_for(lambda: procfs.read_variable(inner.pid, MARK_VARIABLE) is not None)
        mark = procfs.read_variable(inner.pid, MARK_VARIABLE)
        assert mark is not None
        assert outer.tree._mark in mark
        assert inner.tree._mark in mark
    finally:
        await finish(inner)
        await finish(outer)


async def test_a_root_is_forgotten_when_it_is_reaped() -> None:
    child, _ = await start("echo up")
    assert FAMILY.roots == {child.pid: child.tree}
    await finish(child)
    assert FAMILY.roots == {}
