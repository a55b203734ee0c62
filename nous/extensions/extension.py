"""One extension: started when needed, restarted after its death, left alone for a while when it keeps failing."""

from __future__ import annotations

import math
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, TypeVar

import anyio
from anyio.abc import TaskGroup

from nous.config.settings import OnFailure
from nous.errors import NousError, bound_text
from nous.extensions.breaker import Breaker
from nous.extensions.clearance import Cleared, clear_in_time
from nous.extensions.manifest import PYTHON, Manifest
from nous.extensions.pending import CallFailedError, FailureCode, Question
from nous.extensions.policy import Policy, default_on_failure
from nous.extensions.process import ENDING, ExtensionProcess
from nous.extensions.wire import HelloLine, ProtocolError, ResultLine
from nous.ports.extensions import HookName
from nous.ports.system import Clock
from nous.system.process import spawn
from nous.telemetry.log import get_log

log = get_log("extensions")

MAX_REASON_BYTES: Final = 500

Trial = Literal["half_open", "recovered"]
"""What a listener is told after a cool-down: that one call tries again, and that it went well."""

State = Literal["starting", "up", "down", "disabled", "half_open"]
T = TypeVar("T")


class ExtensionFailedError(Exception):
    """A call to an extension came to nothing.

    ``code`` ``extension_disabled`` means that it was not even asked.  ``disables``: with this failure it is disabled.
    """

    def __init__(
        self,
        code: FailureCode | Literal["extension_disabled"],
        reason: str,
        *,
        elapsed_ms: int,
        timeout_ms: int,
        consecutive_failures: int,
        disables: bool,
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.elapsed_ms = elapsed_ms
        self.timeout_ms = timeout_ms
        self.consecutive_failures = consecutive_failures
        self.disables = disables


class Launch:
    """What an extension is started with.

    ``environ`` is all its environment.  ``clear`` is called in a thread before each start and returns what may run; it
    raises a :class:`nous.errors.NousError` if nothing may.  ``cleared`` is what may run at the first start, if that
    was found out already.
    """

    def __init__(
        self, environ: Mapping[str, str], clear: Callable[[], Cleared], cleared: Cleared | None = None
    ) -> None:
        self.environ = environ
        self._clear = clear
        self._cleared = cleared

    async def take(self) -> Cleared:
        """Return what may run now; the caller releases it.  Raises a :class:`nous.errors.NousError` if nothing may."""
        cleared, self._cleared = self._cleared, None
        return await clear_in_time(self._clear) if cleared is None else cleared


def ignore_trial(extension: Extension, trial: Trial) -> None:
    """Do nothing with the news: for who watches nobody."""


class Extension:
    """An installed extension as the daemon sees it.

    ``on_hello`` is called with each hello, before any call is made.  All methods are for the event loop's thread.
    """

    def __init__(
        self,
        manifest: Manifest,
        policy: Policy,
        on_failure: Mapping[HookName, OnFailure],
        launch: Launch,
        clock: Clock,
        on_hello: OnHello,
        on_trial: OnTrial = ignore_trial,
    ) -> None:
        self.name = manifest.name
        self.manifest = manifest
        self.policy = policy
        self.hello: HelloLine | None = None
        self.restarts = 0
        self.last_error = ""
        self._on_failure = on_failure
        self._launch = launch
        self._clock = clock
        self._on_hello = on_hello
        self._on_trial = on_trial
        self._breaker = Breaker(policy.cooldown_ms)
        self._slots = anyio.Semaphore(policy.max_concurrency)
        self._process: ExtensionProcess | None = None
        self._starting: _Start | None = None
        self._was_started = False
        self._late_answers = 0
        self._tasks: TaskGroup | None = None

    # -- what is known of it

    @property
    def version(self) -> str:
        """The version that it said, once it did."""
        return "" if self.hello is None else self.hello.version

    @property
    def consecutive_failures(self) -> int:
        """How many calls in a row have failed."""
        return self._breaker.failures

    @property
    def late_answers(self) -> int:
        """Answers that came to calls nobody waited for any more, or a second time; all dropped."""
        return self._late_answers + (0 if self._process is None else self._process.late_answers)

    @property
    def state(self) -> State:
        """``down`` is no fault by itself: the next call starts it."""
        if self._breaker.state != "closed":
            return "disabled" if self._breaker.state == "open" else "half_open"
        if self._starting is not None:
            return "starting"
        return "down" if self._process is None or not self._process.is_usable else "up"

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return None if self._process is None or not self._process.is_usable else self._process.pid

    def on_failure(self, hook: HookName) -> OnFailure:
        """Return what a failed hook counts as."""
        return self._on_failure.get(hook, default_on_failure(hook))

    # -- life

    def bind(self, tasks: TaskGroup) -> None:
        """Its processes live in ``tasks``: cancelling them ends the processes in order."""
        self._tasks = tasks

    async def start(self) -> None:
        """Start it if it does not run.  A failure is noted and logged, not raised."""
        try:
            await self._live()
        except CallFailedError:
            return

    # -- calls

    async def call(self, question: Question[T]) -> T:
        """Ask the extension something and return what its answer means.  Cancelling this cancels the call there.

        Raises:
            ExtensionFailedError: there is no answer, or none that does.
        """
        started_ns = self._clock.mono_ns()
        was_disabled = self._breaker.state == "open"
        if not self._breaker.admits(started_ns):
            raise self._refusal(question.timeout_ms)
        if was_disabled:
            self._on_trial(self, "half_open")
        try:
            answer = question.read(await self._ask(question))
        except CallFailedError as error:
            raise self._note_failure(error, started_ns, question.timeout_ms) from None
        except BaseException:
            self._breaker.forgo(self._clock.mono_ns())
            raise
        self._note_success()
        return answer

    async def _ask(self, question: Question[T]) -> ResultLine:
        timeout_ms = question.timeout_ms
        deadline = anyio.current_time() + timeout_ms / 1000
        lacking = "a free place (max_concurrency)"
        with anyio.CancelScope(deadline=deadline) as scope:
            async with self._slots:
                lacking = "a start"
                process = await self._live()
                # From here on the process keeps the time: it has to tell the child what the end of it means.
                scope.deadline = math.inf
                left_ms = max(int((deadline - anyio.current_time()) * 1000), 1)
                try:
                    return await process.call(question, left_ms)
                except TimeoutError:
                    raise CallFailedError("extension_timeout", f"no answer within {timeout_ms} ms") from None
        raise CallFailedError("extension_timeout", f"{lacking} was waited for {timeout_ms} ms", is_counted=False)

    def _note_success(self) -> None:
        if self._breaker.succeed():
            log.info("extension_recovered", extension=self.name)
            self._on_trial(self, "recovered")

    def _note_failure(self, error: CallFailedError, started_ns: int, timeout_ms: int) -> ExtensionFailedError:
        now_ns = self._clock.mono_ns()
        self.last_error = bound_text(error.reason, MAX_REASON_BYTES)
        disables = self._count(error, now_ns)
        elapsed_ms = (now_ns - started_ns) // 1_000_000
        return ExtensionFailedError(
            error.code,
            self.last_error,
            elapsed_ms=elapsed_ms,
            timeout_ms=timeout_ms,
            consecutive_failures=self._breaker.failures,
            disables=disables,
        )

    def _count(self, error: CallFailedError, now_ns: int) -> bool:
        """Count a failure that speaks against the extension; true if that disables it."""
        if not error.is_counted:
            self._breaker.forgo(now_ns)
            return False
        disables = self._breaker.fail(now_ns)
        if disables:
            log.warning("extension_disabled", extension=self.name, failures=self._breaker.failures)
        return disables

    def _refusal(self, timeout_ms: int) -> ExtensionFailedError:
        return ExtensionFailedError(
            "extension_disabled",
            f"it failed {self._breaker.failures} times in a row and is left alone for a while",
            elapsed_ms=0,
            timeout_ms=timeout_ms,
            consecutive_failures=self._breaker.failures,
            disables=False,
        )

    # -- its process

    async def _live(self) -> ExtensionProcess:
        """Return a process that takes calls, started if there is none.

        Raises:
            CallFailedError: it could not be started.  That was counted where it happened.
        """
        if self._process is not None and self._process.is_usable:
            return self._process
        if self._starting is None:
            assert self._tasks is not None, "bind() comes first"
            self._starting = _Start()
            self._tasks.start_soon(self._run, self._starting)
        starting = self._starting
        await starting.done.wait()
        if starting.process is None:
            raise CallFailedError("extension_error", starting.failure, is_counted=False)
        return starting.process

    async def _run(self, start: _Start) -> None:
        """Start a process and serve it to its end."""
        process = cleared = None
        try:
            cleared = await self._clear()
            process = self._spawn(cleared)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(process.serve)
                await self._greet(process, start)
        except CallFailedError as error:
            self._fail_start(start, error)
        except Exception as error:
            # A defect in serving one extension: it counts as failed, the daemon and the others go on.
            log.error("extension_crashed", extension=self.name, error=repr(error))
            if not start.done.is_set():
                self._fail_start(start, CallFailedError("extension_error", f"a defect ({type(error).__name__})"))
        finally:
            self._forget(process)
            if cleared is not None:
                cleared.release()
            if not start.done.is_set():
                self._settle(start, "the daemon is ending")

    async def _clear(self) -> Cleared:
        try:
            return await self._launch.take()
        except NousError as error:
            raise CallFailedError("extension_error", f"it may not run: {error.cause}", is_counted=False) from None

    def _spawn(self, cleared: Cleared) -> ExtensionProcess:
        if cleared.manifest != self.manifest:
            reason = "its manifest is not the one that the daemon started with: start nous again"
            raise CallFailedError("extension_error", reason, is_counted=False)
        argv = make_argv(cleared)
        if self._was_started:
            self.restarts += 1
        self._was_started = True
        try:
            child = spawn(argv, cwd=cleared.directory, env=self._launch.environ, stdin="pipe", stderr="pipe")
        except OSError as error:
            raise CallFailedError("extension_error", f"it could not be started: {error.strerror}") from None
        log.info("extension_started", extension=self.name, pid=child.pid)
        return ExtensionProcess(child, self.policy, self.name)

    async def _greet(self, process: ExtensionProcess, start: _Start) -> None:
        """Hear what the process says of itself; let calls to it, or end it."""
        timeout_ms = self.policy.start_timeout_ms
        try:
            with anyio.fail_after(timeout_ms / 1000):
                hello = await process.wait_hello()
            self._check(hello)
            await self._on_hello(self, hello)
        except TimeoutError:
            failed = CallFailedError("extension_timeout", f"it did not say hello within {timeout_ms} ms")
        except ProtocolError as error:
            failed = CallFailedError("extension_error", f"its hello does not do: {error}")
        except CallFailedError as error:
            failed = error
        else:
            self.hello, self._process, start.process = hello, process, process
            self._settle(start)
            return
        process.stop(failed.reason)
        await process.ended.wait()
        self._fail_start(start, failed)

    def _check(self, hello: HelloLine) -> None:
        if hello.name != self.name:
            raise ProtocolError("it does not have the name of its manifest")
        if set(hello.hooks) != set(self.manifest.hooks):
            raise ProtocolError(f"its hooks are not those of its manifest ({', '.join(self.manifest.hooks) or 'none'})")
        for names in ([tool.name for tool in hello.tools], [command.name for command in hello.commands]):
            if len(set(names)) < len(names):
                raise ProtocolError("it declares a name twice")

    def _fail_start(self, start: _Start, error: CallFailedError) -> None:
        self.last_error = bound_text(error.reason, MAX_REASON_BYTES)
        self._count(error, self._clock.mono_ns())
        log.warning("extension_start_failed", extension=self.name, reason=self.last_error)
        self._settle(start, self.last_error)

    def _settle(self, start: _Start, failure: str = "") -> None:
        start.failure = failure
        self._starting = None
        start.done.set()

    def _forget(self, process: ExtensionProcess | None) -> None:
        if process is None:
            return
        self._late_answers += process.late_answers
        if self._process is process:
            self._process = None
        if process.end_reason is not None and process.end_reason != ENDING:
            self.last_error = bound_text(process.end_reason, MAX_REASON_BYTES)
        log.info("extension_ended", extension=self.name, pid=process.pid, reason=process.end_reason)


def make_argv(cleared: Cleared) -> list[str]:
    """Return the command line of an extension; a program with a relative path stands in its directory."""
    program, *arguments = cleared.manifest.command
    if program == PYTHON:
        program = sys.executable
    elif "/" in program:
        program = str(cleared.directory / program)
    return [program, *arguments]


OnHello = Callable[[Extension, HelloLine], Awaitable[None]]
OnTrial = Callable[["Extension", Trial], None]
"""What is told of each hello before any call is made; may refuse it with a :class:`ProtocolError`."""


class _Start:
    """A start under way.  Once ``done``: ``process``, or ``None`` and why in ``failure``."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.process: ExtensionProcess | None = None
        self.failure = ""
