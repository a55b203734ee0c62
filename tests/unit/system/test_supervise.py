"""Following real children: nothing of their output lost, their time and memory bounded, nothing left."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from nous.system import process
from nous.system.pipes import CHUNK_BYTES
from nous.system.process import Child, spawn
from nous.system.procfs import children_of, read_stat
from nous.system.proctree import FAMILY
from nous.system.supervise import Ending, supervise
from tests.unit.system.processes import DEADLINE_S, adopting_orphans, is_running, python

pytestmark = pytest.mark.anyio

NO_LIMIT = 2**40
LONG_MS = DEADLINE_S * 1000


def start(command: str) -> Child:
    return spawn(["bash", "-c", command], cwd=Path("/"), env={"PATH": os.environ["PATH"]})


def start_python(program: str) -> Child:
    return start(f"exec {shlex.quote(sys.executable)} -c {shlex.quote(program)}")


class Sink:
    """Takes everything, or stalls from the beginning on."""

    def __init__(self, stalls: bool = False) -> None:
        self.chunks: list[bytes] = []
        self.gate = anyio.Event()
        if not stalls:
            self.gate.set()

    async def receive(self, data: bytes) -> None:
        self.chunks.append(data)
        await self.gate.wait()

    @property
    def output(self) -> bytes:
        return b"".join(self.chunks)


async def follow(
    child: Child,
    receive: Callable[[bytes], Awaitable[None]],
    timeout_ms: float = LONG_MS,
    memory_limit_bytes: int = NO_LIMIT,
) -> Ending:
    with anyio.fail_after(DEADLINE_S + 5):
        ending = await supervise(child, receive, timeout_ms=timeout_ms, memory_limit_bytes=memory_limit_bytes)
    assert not is_running(child.pid)
    assert FAMILY.roots == {}
    return ending


@pytest.mark.parametrize("returncode", [0, 1, 255])
async def test_output_and_exit(returncode: int) -> None:
    sink = Sink()
    ending = await follow(start(f"echo out; echo err >&2; exit {returncode}"), sink.receive)
    assert ending == Ending(returncode)
    assert sink.output == b"out\nerr\n"


async def test_death_by_a_signal() -> None:
    assert await follow(start("kill -ABRT $$"), Sink().receive) == Ending(-signal.SIGABRT)


async def test_everything_a_child_wrote_before_its_exit_arrives() -> None:
    size = 3_000_000
    sink = Sink()
    assert await follow(start(f"head -c {size} /dev/zero"), sink.receive) == Ending(0)
    assert sink.output == bytes(size)


async def test_a_full_pipe_at_the_exit_arrives_also_at_a_slow_receiver() -> None:
    slow: list[bytes] = []

    async def receive(data: bytes) -> None:
        while child.poll() is None:
            await anyio.wait_all_tasks_blocked()
        slow.append(data)

    child = start_python("import os; os.write(1, b'x' * 200_000)")
    assert await follow(child, receive) == Ending(0)
    assert b"".join(slow) == b"x" * 200_000


async def test_nothing_is_read_before_the_last_chunk_was_taken() -> None:
    sink = Sink(stalls=True)
    child = start("head -c 100000000 /dev/zero")
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, child, sink.receive)
            while not sink.chunks:
                await anyio.wait_all_tasks_blocked()
            await anyio.wait_all_tasks_blocked()
            assert len(sink.chunks) == 1
            sink.gate.set()
    assert len(sink.output) == 100_000_000
    assert max(map(len, sink.chunks)) <= CHUNK_BYTES


async def test_a_child_that_writes_line_by_line_is_read_in_larger_pieces() -> None:
    sink = Sink()
    program = "import os\nfor _ in range(20000): os.write(1, b'line\\n')"
    assert await follow(start_python(program), sink.receive) == Ending(0)
    assert sink.output == b"line\n" * 20000
    assert len(sink.chunks) < 2000


def test_memory_stays_flat_however_much_it_prints() -> None:
    program = """
import anyio, os, resource
from pathlib import Path
from nous.system.process import spawn
from nous.system.supervise import supervise

async def follow(size):
    count = 0
    async def receive(data):
        nonlocal count
        count += len(data)
    child = spawn(["head", "-c", str(size), "/dev/zero"], cwd=Path("/"), env=dict(os.environ))
    await supervise(child, receive, timeout_ms=60_000, memory_limit_bytes=2**40)
    assert count == size
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

async def main():
    print(-await follow(1_000_000) + await follow(1_000_000_000))

anyio.run(main)
"""
    with python(program) as measured:
        output, _ = measured.communicate(timeout=5 * DEADLINE_S)
    assert int(output) * 1024 < 8 * 1024 * 1024


async def test_a_child_that_closed_its_output_is_waited_for() -> None:
    assert await follow(start("exec >&- 2>&-; sleep 0.1; exit 9"), Sink().receive) == Ending(9)


async def test_too_long() -> None:
    sink = Sink()
    ending = await follow(start("echo begun; sleep 300"), sink.receive, timeout_ms=200)
    assert ending == Ending(-signal.SIGTERM, "timeout")
    assert sink.output == b"begun\n"


async def test_a_stalled_receiver_does_not_hold_up_the_time_limit() -> None:
    sink = Sink(stalls=True)
    ending = await follow(start("yes"), sink.receive, timeout_ms=200)
    assert ending.stopped == "timeout"


async def test_last_words_after_the_time_limit_arrive() -> None:
    sink = Sink()
    command = "trap 'echo last words; exit 0' TERM; echo begun; while :; do sleep 0.01; done"
    ending = await follow(start(command), sink.receive, timeout_ms=200)
    assert ending == Ending(0, "timeout")
    assert sink.output.startswith(b"begun\n")
    assert sink.output.endswith(b"last words\n")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is known through /proc")
async def test_too_much_memory_in_a_grandchild() -> None:
    hog = "held = b'x' * 400_000_000; import time; time.sleep(300)"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(hog)}; echo not reached"
    sink = Sink()
    ending = await follow(start(command), sink.receive, memory_limit_bytes=200_000_000)
    assert ending.stopped == "memory"
    assert b"not reached" not in sink.output


@pytest.mark.skipif(sys.platform != "linux", reason="memory is known through /proc")
async def test_memory_that_is_shared_counts_once() -> None:
    program = """
import os, time
held = b'x' * 100_000_000
children = [os.fork() or time.sleep(0.5) or os._exit(0) for _ in range(5)]
for child in children: os.waitpid(child, 0)
"""
    assert await follow(start_python(program), Sink().receive, memory_limit_bytes=300_000_000) == Ending(0)


async def test_what_holds_the_output_open_is_not_waited_for() -> None:
    sink = Sink()
    assert await follow(start("sleep 300 & echo started"), sink.receive) == Ending(0)
    assert sink.output == b"started\n"


async def test_what_writes_on_and_on_after_the_exit_is_cut_off() -> None:
    sink = Sink()
    assert await follow(start("yes & exit 0"), sink.receive) == Ending(0)
    assert set(sink.output) <= set(b"y\n")


async def test_cancelling_ends_everything_before_it_goes_through() -> None:
    child = start("trap '' TERM; sleep 300 & echo $!; wait; while :; do sleep 300; done")
    sink = Sink()
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: follow(child, sink.receive))
            while not sink.output.endswith(b"\n"):
                await anyio.wait_all_tasks_blocked()
            grandchild = int(sink.output)
            assert is_running(grandchild)
            tasks.cancel_scope.cancel()
    assert not is_running(child.pid)
    assert not is_running(grandchild)
    assert FAMILY.roots == {}


async def test_a_receiver_that_fails_ends_everything() -> None:
    async def receive(data: bytes) -> None:
        raise KeyError("receiver")

    child = start("echo x; sleep 300")
    with pytest.raises(BaseExceptionGroup) as group:
        await follow(child, receive)
    assert group.group_contains(KeyError)
    assert not is_running(child.pid)
    assert FAMILY.roots == {}


@pytest.mark.skipif(sys.platform != "linux", reason="counts processes through /proc")
async def test_more_processes_than_allowed_are_ended() -> None:
    child = start("for n in $(seq 40); do sleep 300 & done; wait")
    sink = Sink()
    with anyio.fail_after(DEADLINE_S):
        ending = await supervise(child, sink.receive, timeout_ms=LONG_MS, memory_limit_bytes=NO_LIMIT, max_processes=20)
    assert ending.stopped == "processes"
    assert child.tree.members() == []


@pytest.mark.skipif(sys.platform != "linux", reason="counts processes through /proc")
async def test_a_large_tree_gets_no_time_to_clean_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "POLITE_PROCESSES", 10)
    told = tmp_path / "told"
    child = start(f"trap 'touch {told}' TERM; for n in $(seq 40); do sleep 300 & done; echo up; while :; do wait; done")
    with anyio.fail_after(DEADLINE_S):
        while b"up" not in await child.stdout.receive():
            pass
        child.tree.observe()
        await child.end(grace_ms=60_000)
    child.close()
    assert not told.exists()
    assert child.tree.members() == []


@pytest.mark.skipif(sys.platform != "linux", reason="counts processes through /proc")
async def test_a_bomb_whose_processes_leave_their_group_is_ended() -> None:
    """Each process starts its successor in a session of its own and ends: a look at /proc is always too late."""
    program = """
import os, time
end = time.monotonic() + 60  # also where the test itself is killed
print("up", flush=True)
for _ in range(3):
    if os.fork() == 0:
        while time.monotonic() < end:
            os.setsid() if os.getpid() != os.getsid(0) else None
            if os.fork():
                os._exit(0)
"""
    sink = Sink()
    others = set(children_of(os.getpid()))  # which other tests left
    with adopting_orphans():
        child = start_python(program)
        with anyio.fail_after(DEADLINE_S):
            ending = await supervise(child, sink.receive, timeout_ms=300, memory_limit_bytes=NO_LIMIT)
        left = set(children_of(os.getpid())) - others  # the kernel's own list, which no process evades
        assert [read_stat(pid) for pid in left] == []
    assert ending.returncode is not None
