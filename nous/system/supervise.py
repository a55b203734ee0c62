"""Following a child to its end: its output as it comes, its time and memory bounded, its whole tree gone afterwards."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import anyio
import anyio.lowlevel
from msgspec import Struct

from nous.system.pipes import CHUNK_BYTES
from nous.system.process import Child
from nous.system.threads import run_in_thread

DRAIN_S: Final = 0.25
"""After the child's exit: how long its output may stay open in the hands of what it left behind."""
DRAIN_BYTES: Final = 1024 * 1024
"""After the child's exit: at most a pipe's capacity can be its own, the rest is from what it left behind."""
LAST_WORDS_S: Final = 0.5
"""After the end: how long handing over the last bytes may take if the receiver has stalled."""
GATHER_S: Final = 0.005
"""Between two chunks that did not fill the buffer: too short for a person to notice."""
_FIRST_LOOK_S: Final = 0.02
_LAST_LOOK_S: Final = 0.1
"""How often memory is looked at: short children are not worth a look, fast ones can take a few hundred MB between."""

MAX_PROCESSES: Final = 4096
"""More at once than any build needs: a fork bomb is ended before it starves the machine."""

Stopped = Literal["timeout", "memory", "processes"]


class Ending(Struct, frozen=True):
    """How a child ended: its exit status (minus the signal's number), and what nous stopped it for, if it did."""

    returncode: int
    stopped: Stopped | None = None


async def supervise(
    child: Child,
    receive: Callable[[bytes], Awaitable[None]],
    *,
    timeout_ms: float,
    memory_limit_bytes: int,
    max_processes: int = MAX_PROCESSES,
) -> Ending:
    """Hand the child's output to ``receive`` until it has exited, then end whatever it left behind.

    The next chunk is not read before ``receive`` returned.  ``memory_limit_bytes`` bounds the resident memory of
    the whole tree, ``max_processes`` its size.  What the child wrote before its exit arrives in full; a process that
    keeps the pipe open is waited for ``DRAIN_S``.  Cancelling ends the tree as well (TERM, grace, KILL) before it
    goes through.
    """
    supervision = _Supervision(child, receive, memory_limit_bytes, max_processes)
    try:
        stopped = await supervision.follow(timeout_ms)
        returncode = await child.end()
        with anyio.move_on_after(LAST_WORDS_S):
            await supervision.drain()
        return Ending(returncode, stopped)
    finally:
        await child.end()
        child.close()


class _Supervision:
    def __init__(
        self,
        child: Child,
        receive: Callable[[bytes], Awaitable[None]],
        memory_limit_bytes: int,
        max_processes: int,
    ) -> None:
        self._child = child
        self._receive = receive
        self._memory_limit_bytes = memory_limit_bytes
        self._max_processes = max_processes
        self._breach: Stopped | None = None
        self._drain_bytes: float = math.inf
        self._drain_until = math.inf
        self._silence = anyio.CancelScope()
        self._exited = anyio.Event()

    async def follow(self, timeout_ms: float) -> Stopped | None:
        """Return once the child has exited and its output ended, or why it has to be stopped before."""
        with anyio.move_on_after(timeout_ms / 1000) as limit:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, limit)
                await self._pump()
        if self._breach is not None:
            return self._breach
        return "timeout" if limit.cancelled_caught else None

    async def drain(self) -> None:
        """Hand over what is still in the pipe."""
        self._drain_bytes = DRAIN_BYTES
        while self._drain_bytes > 0 and (data := self._child.stdout.receive_nowait()):
            self._drain_bytes -= len(data)
            await self._receive(data)

    async def _pump(self) -> None:
        while self._drain_bytes > 0:
            data = self._child.stdout.receive_nowait()
            if data is None:
                with anyio.CancelScope(deadline=self._drain_until) as self._silence:
                    await self._child.stdout.wait()
                if self._silence.cancelled_caught:
                    return
                continue
            if not data:
                return
            self._drain_bytes -= len(data)
            await self._receive(data)
            await self._gather(len(data))

    async def _gather(self, received_bytes: int) -> None:
        """Let a child that writes line by line fill the pipe: fewer, larger chunks for everyone after us."""
        if received_bytes == CHUNK_BYTES or self._exited.is_set():
            await anyio.lowlevel.checkpoint()
            return
        with anyio.move_on_after(GATHER_S):
            await self._exited.wait()

    async def _watch(self, limit: anyio.CancelScope) -> None:
        pause_s = _FIRST_LOOK_S
        while self._child.poll() is None:
            with anyio.move_on_after(pause_s):
                await self._child.wait()
            pause_s = min(pause_s * 2, _LAST_LOOK_S)
            self._breach = await run_in_thread(self._find_breach)
            if self._breach is not None:
                limit.cancel()
                return
        self._exited.set()
        self._drain_bytes = DRAIN_BYTES
        self._drain_until = self._silence.deadline = anyio.current_time() + DRAIN_S

    def _find_breach(self) -> Stopped | None:
        """Return which limit was passed, if one was.  For a thread: a tree may have thousands of processes."""
        tree = self._child.tree
        # Processes that share memory are counted twice at first: look again, exactly, before anybody is ended.
        if tree.observe() > self._memory_limit_bytes and tree.proportional_bytes() > self._memory_limit_bytes:
            return "memory"
        return "processes" if tree.size() > self._max_processes else None
