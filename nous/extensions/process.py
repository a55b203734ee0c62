"""One running process of an extension: lines in, lines out, limits watched, and in the end nothing left of it.

    process = ExtensionProcess(child, policy, name)
    tasks.start_soon(process.serve)             # until it is over, for whatever reason
    hello = await process.wait_hello()
    result = await process.call(question, within_ms=5000)

Any breach (a line that is none, too much output, memory, CPU, processes) ends the process with everything it started;
calls under way fail with the reason.  A call nobody waits for any more is cancelled; if it is not answered within
``CANCEL_GRACE_MS`` the process is *retired*: it gets no further calls and ends when the others are done.
"""

from __future__ import annotations

import itertools
from collections import deque
from contextlib import suppress
from typing import Any, Final

import anyio

from nous.extensions.output import LeakyBucket, drain_stderr, log_stderr
from nous.extensions.pending import CallFailedError, PendingCall, Question
from nous.extensions.policy import Policy
from nous.extensions.wire import (
    CallLine,
    Cancel,
    CancelReason,
    HelloLine,
    LogLine,
    Progress,
    ProtocolError,
    ResultLine,
    decode_child_line,
    encode_host_line,
)
from nous.protocol.codec import LineDecoder, TooLong
from nous.system.process import Child, signal_name
from nous.system.threads import run_in_thread
from nous.telemetry.log import get_log

log = get_log("extensions")

CANCEL_GRACE_MS: Final = 2_000
"""How long a cancelled call may go on before its process is given up."""
EXIT_GRACE_MS: Final = 250
"""How long a process may take to exit once its stdin has ended; then TERM, and as long again later KILL."""
ENDING: Final = "the daemon is ending"
_BUSY_LOOK_S: Final = 0.1
_IDLE_LOOK_S: Final = 0.5
"""How often memory, CPU and processes are looked at, with calls under way and without."""


class ExtensionProcess:
    """A child that speaks the host protocol.

    ``is_usable``: new calls may go to it.  ``late_answers`` counts answers to calls nobody waited for, second answers
    included.  ``end_reason`` says why it is over, once it is.
    """

    def __init__(self, child: Child, policy: Policy, name: str) -> None:
        self.pid = child.pid
        self.late_answers = 0
        self.end_reason: str | None = None
        self.ended = anyio.Event()
        self._child = child
        self._policy = policy
        self._name = name
        self._hello: HelloLine | None = None
        self._greeted = anyio.Event()
        self._over = anyio.Event()
        self._is_breach = False
        self._is_retired = False
        self._ids = itertools.count(1)
        self._pending: dict[str, PendingCall] = {}
        self._abandoned: dict[str, float] = {}
        self._cpu_s = 0.0
        self._outgoing: deque[bytes] = deque()
        self._has_outgoing = anyio.Event()
        self._has_calls = anyio.Event()
        self._unasked = LeakyBucket(policy.max_output_bytes)

    @property
    def is_usable(self) -> bool:
        """Whether it takes calls."""
        return not self._is_retired and self.end_reason is None

    # -- calls

    async def wait_hello(self) -> HelloLine:
        """Return what the child said of itself.

        Raises:
            CallFailedError: it ended, or was ended, before.
        """
        await self._greeted.wait()
        if self._hello is None:
            raise CallFailedError("extension_error", self.end_reason or "it did not say hello")
        return self._hello

    async def call(self, question: Question[Any], within_ms: int) -> ResultLine:
        """Make one call and wait for its answer.  Cancelling this cancels the call, with the reason ``aborted``.

        Raises:
            TimeoutError: no answer within ``within_ms``.
            CallFailedError: the process came to its end, or the question is no JSON.
        """
        if self.end_reason is not None:
            raise CallFailedError("extension_error", self.end_reason)
        call_id = str(next(self._ids))
        call = CallLine(call_id, question.kind, question.name, question.given, dict(question.context), within_ms)
        try:
            line = encode_host_line(call)
        except (TypeError, ValueError, RecursionError, OverflowError):
            # Nothing was sent and nothing is pending: the extension is not to blame.
            raise CallFailedError("extension_error", "the call cannot be written as JSON", is_counted=False) from None
        pending = self._pending[call_id] = PendingCall(self._cpu_s)
        self._has_calls.set()
        self._put(line)
        reason: CancelReason = "aborted"
        try:
            with anyio.move_on_after(within_ms / 1000):
                return await pending.follow(question.progress)
            reason = "timeout"
            raise TimeoutError
        finally:
            del self._pending[call_id]
            if pending.answer is None:
                self._abandon(call_id, reason)
            self._end_if_retired()

    def _abandon(self, call_id: str, reason: CancelReason) -> None:
        self._abandoned[call_id] = anyio.current_time() + CANCEL_GRACE_MS / 1000
        self._put(encode_host_line(Cancel(call_id, reason)))

    def _put(self, line: bytes) -> None:
        self._outgoing.append(line)
        self._has_outgoing.set()

    # -- life

    async def serve(self) -> None:
        """Serve the process until it is over, then end all it started.  Cancelling this ends it in order."""
        try:
            async with anyio.create_task_group() as tasks:
                for task in (self._read, self._write, self._watch, self._log_stderr):
                    tasks.start_soon(task)
                await self._over.wait()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._end()

    def stop(self, reason: str) -> None:
        """Let the process come to its end; calls under way fail with ``reason``."""
        if self.end_reason is None:
            self.end_reason = reason
            self._greeted.set()
            # One death is one failure, however many calls were under way.
            waiting = [call for call in self._pending.values() if call.answer is None]
            for index, call in enumerate(waiting):
                call.settle(CallFailedError("extension_error", reason, is_counted=index == 0))
        self._over.set()

    def _breach(self, reason: str) -> None:
        """Stop it at once: what does not keep to its limits gets no time to clean up."""
        self._is_breach = True
        self.stop(reason)

    async def _end(self) -> None:
        child = self._child
        if self.end_reason is None:
            self.stop(ENDING)
        if child.stdin is not None:
            child.stdin.close()
        if not self._is_breach:
            with anyio.move_on_after(EXIT_GRACE_MS / 1000):
                await child.wait()
        await child.end(grace_ms=0 if self._is_breach else EXIT_GRACE_MS)
        if child.stderr is not None:
            drain_stderr(child.stderr, self._name)
        child.close()
        self.ended.set()

    def _end_if_retired(self) -> None:
        if self._is_retired and not self._pending:
            self.stop("a call that was given up did not end")

    # -- what it writes

    async def _read(self) -> None:
        lines = LineDecoder(self._policy.max_output_bytes)
        try:
            while data := await self._child.stdout.receive():
                for line in lines.feed(data):
                    self._take(line)
                if lines.is_skipping:
                    self._take(TooLong())
        except ProtocolError as error:
            self._breach(f"it broke the host protocol: {error}")
        else:
            await self._explain_end()

    async def _explain_end(self) -> None:
        """Its stdout is closed: say whether it died, or goes on in silence, which ends it too."""
        with anyio.move_on_after(EXIT_GRACE_MS / 1000):
            await self._child.wait()
        code = self._child.poll()
        if code is None:
            self.stop("it closed its stdout")
        elif code < 0:
            self.stop(f"it died by {signal_name(-code)}")
        else:
            self.stop(f"it exited with code {code}")

    def _take(self, line: bytes | TooLong) -> None:
        if isinstance(line, TooLong):
            raise ProtocolError(f"a line of more than {self._policy.max_output_bytes} bytes")
        item = decode_child_line(line)
        if isinstance(item, HelloLine):
            self._greet(item)
        elif self._hello is None:
            raise ProtocolError("its first line was not hello")
        elif isinstance(item, LogLine):
            self._charge_unasked(len(line))
            getattr(log, item.level)("extension_log", extension=self._name, message=item.message)
        else:
            self._answer(item, len(line))

    def _greet(self, hello: HelloLine) -> None:
        if self._hello is not None:
            raise ProtocolError("a second hello")
        self._hello = hello
        self._greeted.set()

    def _answer(self, item: ResultLine | Progress, size_bytes: int) -> None:
        pending = self._pending.get(item.id)
        if pending is None or pending.answer is not None:
            self._charge_unasked(size_bytes)
            if isinstance(item, ResultLine):
                self._abandoned.pop(item.id, None)
                self.late_answers += 1
            return
        pending.output_bytes += size_bytes
        if pending.output_bytes > self._policy.max_output_bytes:
            raise ProtocolError(f"more than {self._policy.max_output_bytes} bytes in answer to one call")
        if isinstance(item, Progress):
            pending.add_progress(item.text)
        else:
            pending.settle(item)

    def _charge_unasked(self, size_bytes: int) -> None:
        if not self._unasked.take(size_bytes, anyio.current_time()):
            raise ProtocolError("too much that nobody asked for")

    async def _log_stderr(self) -> None:
        if self._child.stderr is not None:
            await log_stderr(self._child.stderr, self._name)

    # -- what it reads

    async def _write(self) -> None:
        stdin = self._child.stdin
        assert stdin is not None
        with suppress(BrokenPipeError):  # whoever reads its stdout learns more
            while True:
                while self._outgoing:
                    await stdin.send(self._outgoing.popleft())
                self._has_outgoing = anyio.Event()
                await self._has_outgoing.wait()

    # -- limits

    async def _watch(self) -> None:
        while True:
            await self._pause()
            breach = await run_in_thread(self._find_breach)
            if breach is not None:
                self._breach(breach)
            now = anyio.current_time()
            if any(deadline < now for deadline in self._abandoned.values()):
                self._is_retired = True
                self._end_if_retired()

    async def _pause(self) -> None:
        """Look again soon while something is under way; else now and then, and soon after a call begins."""
        is_idle = self._hello is not None and not self._pending and not self._abandoned
        if is_idle:
            self._has_calls = anyio.Event()
            with anyio.move_on_after(_IDLE_LOOK_S):
                await self._has_calls.wait()
        await anyio.sleep(_BUSY_LOOK_S)

    def _find_breach(self) -> str | None:
        """Say which limit was passed, if one was.  Runs in a thread: a tree may have many processes."""
        tree, policy = self._child.tree, self._policy
        limit_bytes = policy.memory_mb << 20
        # Processes that share memory are counted twice at first: look again, exactly, before anybody is ended.
        if tree.observe() > limit_bytes and tree.proportional_bytes() > limit_bytes:
            return f"it took more than {policy.memory_mb} MiB of memory (memory_mb)"
        if tree.size() > policy.max_processes:
            return f"it started more than {policy.max_processes} processes (max_processes)"
        self._cpu_s = tree.cpu_seconds()
        spent_s = self._cpu_s - min((call.cpu_start_s for call in tuple(self._pending.values())), default=self._cpu_s)
        if spent_s > policy.cpu_seconds:
            return f"a call took more than {policy.cpu_seconds} s of CPU time (cpu_seconds)"
        return None
