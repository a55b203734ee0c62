"""Checks foreign schemas, and values against them, in worker processes that are kept warm and can be killed.

checker = SchemaChecker()
tasks.start_soon(checker.run)                         # ends idle workers, and all of them at the end
fault = await checker.check_schema(schema)            # None: it can be used
fault = await checker.find_fault(schema, text)        # None: the text is one JSON value that fits
"""

from __future__ import annotations

import marshal
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from nous.schemas.requests import MAX_REPLY_BYTES, CheckReply, decode_reply, encode_request

if TYPE_CHECKING:
    from nous.system.process import Child

CHECK_TIMEOUT_MS: Final = 10_000
"""How long one check may take, the start of its worker included and waiting for a free one not."""

MAX_WORKERS: Final = 4
"""So many checks run side by side; further ones wait."""

IDLE_MS: Final = 60_000
"""How long a worker without work is kept."""

MEMORY_BYTES: Final = 1 << 30
"""Address space of a worker: a check that needs more is given up."""

MAX_SCHEMA_BYTES: Final = 1 << 20
"""Longest schema, as marshalled; about as long as its JSON."""

_TOO_DEEP: Final = "$: nested too deeply"


class CheckFailedError(Exception):
    """A check gave no verdict.  ``reason`` completes a sentence that begins with "it"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SchemaChecker:
    """Evaluates schemas that others wrote.  Belongs to one event loop and its thread.

    Every check is bounded in time (``timeout_ms``), memory (``memory_bytes``) and the size of the schema.  A worker
    whose check is cancelled or passes a bound is killed; the next check gets a new one.  All checks raise
    :class:`CheckFailedError` where there is no verdict.
    """

    def __init__(
        self, *, timeout_ms: int = CHECK_TIMEOUT_MS, memory_bytes: int = MEMORY_BYTES, idle_ms: int = IDLE_MS
    ) -> None:
        self._timeout_ms = timeout_ms
        self._memory_bytes = memory_bytes
        self._idle_s = idle_ms / 1000
        self._slots = anyio.Semaphore(MAX_WORKERS)
        self._idle: list[_Worker] = []
        self._has_idle = anyio.Event()
        self._is_closed = False

    # -- checks

    async def check_schema(self, schema: dict[str, Any]) -> str | None:
        """Return why an output schema cannot be used, its JSON path first; None if it can."""
        return await self._check("schema", schema)

    async def check_tools(self, schemas: Mapping[str, dict[str, Any]]) -> str | None:
        """Return why the argument schema of one of the named tools cannot be used; None if all can."""
        return await self._check("tools", dict(schemas))

    async def find_fault(self, schema: dict[str, Any], text: str) -> str | None:
        """Return what keeps ``text`` from being one JSON value that fits ``schema``: its JSON path first.

        None if nothing does.  The value is never repeated.
        """
        return await self._check("answer", schema, text)

    async def find_argument_fault(self, schema: dict[str, Any], arguments: dict[str, Any]) -> str | None:
        """Return what keeps a tool's arguments from fitting its schema, for the model; None if nothing does."""
        return await self._check("arguments", schema, arguments)

    async def _check(self, kind: str, schema: dict[str, Any], *given: Any) -> str | None:
        try:
            size_bytes = len(marshal.dumps(schema))
            request = encode_request(kind, schema, *given)
        except ValueError:  # deeper than marshal goes, which is far deeper than any line may nest
            return _TOO_DEEP
        if size_bytes > MAX_SCHEMA_BYTES:
            return f"$: the schema is longer than {MAX_SCHEMA_BYTES} bytes"
        async with self._slots:
            return await self._ask(request)

    async def _ask(self, request: bytes) -> str | None:
        worker: _Worker | None = None
        reply: CheckReply | None = None
        try:
            with anyio.move_on_after(self._timeout_ms / 1000) as scope:
                worker = await self._take_idle() or _start_worker(self._memory_bytes)
                reply = await worker.ask(request)
        except OSError as error:
            raise CheckFailedError(f"could not be checked: {error.strerror}") from None
        finally:
            if worker is not None:
                await self._put_back(worker, reply)
        if scope.cancelled_caught:
            raise CheckFailedError(f"took longer than {self._timeout_ms} ms to check")
        if reply is None:
            raise CheckFailedError("could not be checked: the process that checks schemas died")
        if reply.over_memory:
            raise CheckFailedError("took more memory to check than is allowed")
        return reply.fault

    async def _take_idle(self) -> _Worker | None:
        while self._idle:
            worker = self._idle.pop()
            if worker.is_alive:
                return worker
            await worker.end()
        return None

    async def _put_back(self, worker: _Worker, reply: CheckReply | None) -> None:
        """Keep a worker for the next check, if it can take one; otherwise end it."""
        if reply is None or reply.retires or self._is_closed:
            await worker.end()
            return
        worker.idle_since_s = anyio.current_time()
        self._idle.append(worker)
        self._has_idle.set()

    # -- life

    async def run(self) -> None:
        """End workers that have been idle for long, until cancelled; then end all of them."""
        try:
            while True:
                await self._has_idle.wait()
                pause_s = self._idle_s if not self._idle else self._due_s(self._idle[0])
                if pause_s > 0:
                    await anyio.sleep(pause_s)
                await self._end_due()
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """End all workers.  Checks that are under way end their own."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().end()

    async def _end_due(self) -> None:
        while self._idle and self._due_s(self._idle[0]) <= 0:
            await self._idle.pop(0).end()
        if not self._idle:
            self._has_idle = anyio.Event()

    def _due_s(self, worker: _Worker) -> float:
        return worker.idle_since_s + self._idle_s - anyio.current_time()


class _Worker:
    """One worker process.  ``idle_since_s`` is the loop's time when its last check ended."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self.idle_since_s = math.inf

    @property
    def is_alive(self) -> bool:
        return self._child.poll() is None

    async def ask(self, request: bytes) -> CheckReply | None:
        """Send a request and return the reply; None if the worker ended or wrote something else."""
        stdin, received = self._child.stdin, bytearray()
        assert stdin is not None
        try:
            await stdin.send(request)
        except BrokenPipeError:
            return None
        while not received.endswith(b"\n"):
            data = await self._child.stdout.receive()
            received += data
            if not data or len(received) > MAX_REPLY_BYTES:
                return None
        return decode_reply(received)

    async def end(self) -> None:
        """Kill the worker and wait until it is gone.  Not cancellable, bounded."""
        await self._child.end(grace_ms=0)
        self._child.close()


def _start_worker(memory_bytes: int) -> _Worker:
    from nous.system.process import spawn
    from nous.system.python import own_program

    path = {"PATH": os.environ.get("PATH", os.defpath)}
    program = own_program("nous.schemas.worker", str(memory_bytes))
    child = spawn(program, cwd=Path("/"), env=path, stdin="pipe", stderr="null")
    return _Worker(child)
