"""Real children: how they start, what they have, and that nothing of them is left."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from nous.system import process, procfs
from nous.system.process import Child, find_program, signal_name, spawn
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

PR_GET_DUMPABLE = 3


@pytest.fixture(params=["adopting", "not-adopting"])
def orphans(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways to find what left its parent: as our own adopted child, and by its mark."""
    if request.param == "not-adopting":
        yield
        return
    with adopting_orphans():
        yield


@asynccontextmanager
async def running(command: str, **environ: str) -> AsyncIterator[Child]:
    """Run a command line for the time of the block; what it prints first is awaited by the caller."""
    child = spawn(["bash", "-c", command], cwd=Path("/"), env={"PATH": os.environ["PATH"], **environ})
    try:
        with anyio.fail_after(DEADLINE_S):
            yield child
    finally:
        await child.end(grace_ms=0)
        child.close()


async def read_all(child: Child) -> bytes:
    received = bytearray()
    while data := await child.stdout.receive():
        received += data
    return bytes(received)


async def read_line(child: Child) -> str:
    """Return the first line the child writes."""
    received = b""
    while not received.endswith(b"\n"):
        data = await child.stdout.receive()
        assert data, f"ended after {received!r}"
        received += data
    return received.decode().strip()


@pytest.mark.parametrize(
    ("command", "returncode"),
    [("true", 0), ("exit 3", 3), ("kill -SEGV $$", -signal.SIGSEGV), ("kill -KILL $$", -signal.SIGKILL)],
)
async def test_tells_how_it_exited(command: str, returncode: int) -> None:
    async with running(command) as child:
        assert await child.wait() == returncode
        assert await child.end() == returncode
        assert await child.end() == returncode
        assert await child.wait() == returncode


async def test_waits_in_a_thread_where_there_is_no_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_open_pidfd", lambda pid: None)
    async with running("sleep 0.05; exit 7") as child:
        assert child.poll() is None
        assert await child.wait() == 7


async def test_a_wait_that_was_cancelled_can_be_done_again() -> None:
    async with running("read -t 0.05 </dev/zero; sleep 0.2") as child:
        with anyio.move_on_after(0) as scope:
            await child.wait()
        assert scope.cancelled_caught
        assert await child.wait() == 0


async def test_has_exactly_the_environment_given_and_a_mark() -> None:
    async with running("env -0 | sort -z", A="1", B="x y\nz") as child:
        names = dict(line.split("=", 1) for line in (await read_all(child)).decode().split("\0") if line)
    shell_adds = {"PWD", "SHLVL", "_", "OLDPWD"}
    assert set(names) - shell_adds == {"PATH", "A", "B", MARK_VARIABLE}
    assert names["B"] == "x y\nz"


async def test_has_its_directory_its_session_and_no_input(tmp_path: Path) -> None:
    child = spawn(["bash", "-c", "pwd; ps -o sid=,pgid= -p $$; wc -c"], cwd=tmp_path, env={"PATH": os.environ["PATH"]})
    with anyio.fail_after(DEADLINE_S):
        directory, ids, size = (await read_all(child)).decode().split("\n")[:3]
    await child.end()
    child.close()
    assert directory == str(tmp_path)
    assert ids.split() == [str(child.pid)] * 2
    assert int(size) == 0


async def test_inherits_no_descriptor() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        async with running(f"ls /proc/self/fd; test -e /proc/self/fd/{fd} && echo leaked") as child:
            output = await read_all(child)
    finally:
        os.close(fd)
    assert b"leaked" not in output
    # ls has the directory open that it lists.
    assert output.split() == [b"0", b"1", b"2", b"3"]


async def test_stdout_and_stderr_come_in_the_order_of_writing() -> None:
    async with running("for i in 1 2 3; do echo out$i; echo err$i >&2; done") as child:
        assert await read_all(child) == b"out1\nerr1\nout2\nerr2\nout3\nerr3\n"


async def test_stdin_and_stderr_can_be_pipes_of_their_own() -> None:
    environ = {"PATH": os.environ["PATH"]}
    child = spawn(["bash", "-c", "echo err >&2; cat"], cwd=Path("/"), env=environ, stdin="pipe", stderr="pipe")
    assert child.stdin is not None
    assert child.stderr is not None
    with anyio.fail_after(DEADLINE_S):
        await child.stdin.send(b"through")
        child.stdin.close()
        assert await read_all(child) == b"through"
        assert await child.stderr.receive() == b"err\n"
        assert await child.wait() == 0
    await child.end()
    child.close()


async def test_stderr_can_be_thrown_away() -> None:
    child = spawn(["bash", "-c", "echo err >&2; echo out"], cwd=Path("/"), env=dict(os.environ), stderr="null")
    with anyio.fail_after(DEADLINE_S):
        assert await read_all(child) == b"out\n"
    await child.end()
    child.close()


@pytest.mark.parametrize(
    ("program", "directory", "named"),
    [
        ("no-such-program", "/", "no-such-program"),
        ("/no/such/program", "/", "/no/such/program"),
        ("true", "/no", "/no"),
    ],
)
async def test_what_cannot_start_leaves_nothing(program: str, directory: str, named: str) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  names are enough
    with pytest.raises(FileNotFoundError) as error:
        spawn([program], cwd=Path(directory), env={"PATH": os.environ["PATH"]}, stdin="pipe", stderr="pipe")
    assert str(error.value.filename) == named
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert FAMILY.roots == {}


async def test_end_of_a_running_child_asks_first() -> None:
    async with running("trap 'exit 42' TERM; echo ready; while :; do sleep 0.01; done") as child:
        assert await read_line(child) == "ready"
        assert await child.end() == 42


async def test_end_does_not_ask_forever() -> None:
    async with running("trap '' TERM; echo ready; while :; do sleep 100; done") as child:
        assert await read_line(child) == "ready"
        assert await child.end(grace_ms=50) == -signal.SIGKILL
        assert not is_running(child.pid)


async def test_end_reaches_a_stopped_child() -> None:
    async with running("kill -STOP $$") as child:
        wait_for(lambda: getattr(procfs.read_stat(child.pid), "state", "") == "T")
        assert await child.end(grace_ms=50) == -signal.SIGKILL


async def test_what_was_written_before_the_end_can_be_read_after_it() -> None:
    async with running("trap 'echo last words; exit' TERM; echo ready; while :; do sleep 0.01; done") as child:
        assert await read_line(child) == "ready"
        await child.end()
        assert (await read_all(child)).endswith(b"last words\n")


@pytest.mark.parametrize(
    "start",
    [
        pytest.param("sleep 300 &", id="background"),
        pytest.param("trap '' TERM; sleep 300 & trap - TERM;", id="background-ignoring-TERM"),
        pytest.param("nohup sleep 300 >/dev/null 2>&1 &", id="nohup"),
        pytest.param("setsid sleep 300 &", id="setsid"),
        pytest.param("setsid --fork sleep 300;", id="setsid-forked"),
        pytest.param("(setsid sleep 300 &);", id="orphan-of-its-own-session"),
        pytest.param("setsid bash -c '(trap \"\" TERM; sleep 300; :) & disown' &", id="deep-and-stubborn"),
    ],
)
@pytest.mark.parametrize("root", ["exited", "running"])
async def test_end_reaches_everything_the_child_started(orphans: None, start: str, root: str, tmp_path: Path) -> None:
    last = "exit 5" if root == "exited" else "sleep 300; :"
    # sleep tells its pid by being found: the only one of this test's own name.
    program = tmp_path / "sleep-of-this-test"
    program.symlink_to("/bin/sleep")
    command = f"{start.replace('sleep', str(program))} echo ready; {last}"
    async with running(command) as child:
        assert await read_line(child) == "ready"
        if root == "exited":
            assert await child.wait() == 5
        pids = pids_of(program)
        assert pids
        await child.end(grace_ms=200)
        assert [pid for pid in pids if is_running(pid)] == []
        assert not is_running(child.pid)


def pids_of(program: Path) -> list[int]:
    """Return the processes started as ``program``; one that was just forked gets the time to become it."""
    deadline = anyio.current_time() + DEADLINE_S
    while anyio.current_time() < deadline:
        found = [
            int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and runs(entry, program)
        ]
        if found:
            return found
    return []


def runs(entry: Path, program: Path) -> bool:
    try:
        return entry.joinpath("cmdline").read_bytes().split(b"\0")[0] == bytes(program)
    except OSError:
        return False


async def test_an_adopted_orphan_without_a_mark_is_found(tmp_path: Path) -> None:
    program = tmp_path / "sleep-of-this-test"
    program.symlink_to("/bin/sleep")
    with adopting_orphans():
        async with running(f"(env -i setsid {program} 300 &); echo ready") as child:
            assert await child.wait() == 0
            pids = pids_of(program)
            await child.end(grace_ms=200)
            assert pids
            assert [pid for pid in pids if is_running(pid)] == []


async def test_the_dead_that_were_adopted_are_reaped() -> None:
    before = procfs.children_of(os.getpid())
    with adopting_orphans():
        async with running("for i in 1 2 3 4 5; do (setsid true &); done; sleep 0.1") as child:
            await child.wait()
            await child.end()
        # Children of other tests (a resource tracker of multiprocessing lives as long as its process) do not count.
        assert set(procfs.children_of(os.getpid())) <= set(before)


async def test_another_child_and_what_it_started_stay(orphans: None) -> None:
    async with running("setsid sleep 300 & echo $!; wait") as other, running("setsid sleep 300 & echo $!") as child:
        others, own = int(await read_line(other)), int(await read_line(child))
        # Without adoption only the mark in its environment tells whose it is, and there is none while it becomes sleep.
        wait_for_program(own, "sleep")
        await child.end(grace_ms=200)
        assert not is_running(own)
        assert is_running(others)
        assert is_running(other.pid)
        await other.end(grace_ms=200)
        assert not is_running(others)


async def test_a_child_that_was_started_otherwise_stays() -> None:
    with python("import sys; print('up', flush=True); sys.stdin.read()") as foreign:
        assert foreign.stdout is not None
        assert foreign.stdout.readline() == b"up\n"
        async with running("setsid sleep 300 & echo ready") as child:
            assert await read_line(child) == "ready"
            await child.end(grace_ms=200)
        assert foreign.poll() is None
        foreign.kill()


async def test_a_tree_that_forks_without_end_is_killed(orphans: None) -> None:
    # Each generation leaves its session and dies, so that one look at the processes never sees the next one.
    # It ends by itself within a minute, also where the test is killed.
    until = int(time.time()) + 60
    hop = f'[ "$(date +%s)" -lt {until} ] && setsid bash -c "$(declare -f f); sleep 0.02; f" &'
    command = f"trap '' TERM; echo ready; f() {{ {hop} }}; f; sleep 300"
    async with running(command) as child:
        assert await read_line(child) == "ready"
        mark = child.tree._mark
        await child.end(grace_ms=50)
    assert marked(mark) == []


def marked(mark: str) -> list[int]:
    """Return the processes whose environment carries a mark."""
    return [
        stat.pid
        for stat in procfs.all_processes().values()
        if mark in (procfs.read_variable(stat.pid, MARK_VARIABLE) or "")
    ]


async def test_a_cancelled_end_still_ends() -> None:
    async with running("trap '' TERM; echo ready; while :; do sleep 100; done") as child:
        assert await read_line(child) == "ready"
        with anyio.CancelScope() as scope:
            scope.cancel()
            await child.end(grace_ms=50)
        assert not is_running(child.pid)


@pytest.mark.parametrize("way", ["setpriv", "hook"])
def test_a_child_dies_with_the_process_that_started_it(way: str) -> None:
    program = f"""
import os, signal, sys
from pathlib import Path
from nous.system import process, procfs
if {way!r} == "hook":
    process._death_wrapper = lambda: ()
elif not process._death_wrapper():
    sys.exit("no setpriv here")
child = process.spawn(["sleep", "300"], cwd=Path("/"), env=dict(os.environ))
print(child.pid, flush=True)
signal.pause()
"""
    with python(program) as parent:
        assert parent.stdout is not None
        line = parent.stdout.readline()
        if not line:
            assert parent.wait(DEADLINE_S) == 1
            pytest.skip("no setpriv with --pdeathsig on this machine")
        pid = int(line)
        wait_for_program(pid, find_program("sleep", os.environ) or "")
        parent.kill()
    wait_until_gone(pid)


def test_the_process_can_close_its_memory() -> None:
    program = f"""
from nous.system import prctl
before = prctl._load()({PR_GET_DUMPABLE}, 0, 0, 0, 0)
assert prctl.set_non_dumpable()
print(before, prctl._load()({PR_GET_DUMPABLE}, 0, 0, 0, 0))
"""
    with python(program) as child:
        output, _ = child.communicate(timeout=DEADLINE_S)
    assert output.split() == [b"1", b"0"]


def test_a_daemon_is_hardened_when_it_starts_its_first_child() -> None:
    program = f"""
import os, sys
from pathlib import Path
from nous.system import prctl, process
from nous.system.proctree import FAMILY
def state():
    return "ctypes" in sys.modules, FAMILY.adopts_orphans
process.harden_before_first_child()
print(*state(), flush=True)
process.spawn(["sleep", "300"], cwd=Path("/"), env=dict(os.environ))
print(*state(), prctl._load()({PR_GET_DUMPABLE}, 0, 0, 0, 0), flush=True)
os._exit(0)
"""
    with python(program) as child:
        output, _ = child.communicate(timeout=DEADLINE_S)
    assert output.split() == [b"False", b"False", b"True", b"True", b"0"]


def test_find_program_looks_where_a_shell_would(tmp_path: Path) -> None:
    for directory, mode in (("first", 0o644), ("second", 0o755), ("third", 0o755)):
        program = tmp_path / directory / "tool"
        program.parent.mkdir()
        program.touch()
        program.chmod(mode)
    (tmp_path / "first" / "directory").mkdir()
    (tmp_path / "closed").mkdir(mode=0)  # which closes nothing to root
    names = ("missing", "x" * 300, "closed", "first/tool", "first", "second", "third")
    path = ":".join(["", *(str(tmp_path / name) for name in names)])
    assert find_program("tool", {"PATH": path}) == str(tmp_path / "second" / "tool")
    assert find_program("directory", {"PATH": path}) is None
    assert find_program("absent", {"PATH": path}) is None
    assert find_program("tool", {"PATH": ""}) is None
    assert find_program("tool", {"PATH": os.path.relpath(tmp_path / "second")}) is None
    assert find_program(str(tmp_path / "third" / "tool"), {"PATH": ""}) == str(tmp_path / "third" / "tool")
    assert find_program(str(tmp_path / "first" / "tool"), {"PATH": path}) is None
    assert find_program("sh", {}) in ("/bin/sh", "/usr/bin/sh")


def test_signal_name() -> None:
    assert signal_name(11) == "SIGSEGV"
    assert signal_name(9) == "SIGKILL"
    assert signal_name(99) == "signal 99"


async def test_descriptors_and_children_do_not_pile_up() -> None:
    for _ in range(3):
        async with running("true") as child:
            await child.wait()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        async with running("true") as child:
            await child.wait()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert FAMILY.roots == {}
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0
