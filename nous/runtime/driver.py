"""One run: every input goes through :meth:`RunDriver.submit`, and what the engine says goes out from there.

A step is synchronous: stamp the input, step the engine, append input, events and effects to the trace in one write,
publish the events, start the effects.  Slow things (model, tools, syncing the disk) are tasks that come back with
inputs.  The driver is the only one that touches its machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import anyio
from msgspec import UNSET

from nous.engine.inputs import AbortReason, AbortRequested, CompactionStarted, Input, ModelProduced, RunStarted, Stamp
from nous.engine.machine import RunMachine
from nous.engine.spec import RunSpec
from nous.errors import NousError, as_nous_error
from nous.ports.system import Clock
from nous.protocol.entries import Compaction
from nous.protocol.events import AgentEnd, ErrorEvent, MessageEnd, ToolExecutionEnd, untraced_line
from nous.protocol.responses import PendingCounts, RunStateName
from nous.runtime.performer import Performer
from nous.runtime.publisher import Publisher
from nous.runtime.recorder import Recorder
from nous.runtime.seams import Admitted, InputGate
from nous.store.spent import Spent
from nous.telemetry.log import get_log

log = get_log("runtime")

SYNC_EVENTS = frozenset({MessageEnd, ToolExecutionEnd, AgentEnd})
"""Where a trace is synced under the policy ``message``; under ``run`` only the last of them counts."""

MAX_QUEUED: Final = 256
"""Inputs a run may hold back: all of them stand in one event if it ends before their turn."""

MAX_QUEUED_CHARACTERS: Final = 32 * 1024 * 1024
"""A run whose queued texts are as long as this together takes no further one."""


class RunDriver:
    """A run from its prompt to its ``agent_end``.

    ``ended`` is set once ``agent_end`` was published and the trace's file is closed.  ``on_end`` is called just before
    ``agent_end`` leaves, and again at the end of :meth:`run`: it may be called any number of times.
    """

    def __init__(
        self,
        *,
        machine: RunMachine,
        gate: InputGate,
        recorder: Recorder,
        performer: Performer,
        publisher: Publisher,
        clock: Clock,
        sync_on: frozenset[type],
        on_end: Callable[[RunDriver], None],
    ) -> None:
        self._machine = machine
        self.begun = anyio.Event()
        self.ended = anyio.Event()
        self.started_at = clock.now()
        self._gate = gate
        self._recorder = recorder
        self._performer = performer
        self._publisher = publisher
        self._clock = clock
        self._sync_on = sync_on
        self._on_end = on_end
        # What comes up before the run has begun (a signal, a change of modes) waits until it has; then None.
        self._early: list[Input] | None = []
        self._inbox: deque[Admitted] = deque()
        self._stepping = False
        self.broken: NousError | None = None
        # Why it broke, until that is told.
        self._untold: NousError | None = None
        self._is_recorded = False

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._machine.spec.run_id

    @property
    def session_id(self) -> str:
        """The session that the run belongs to."""
        return self._machine.spec.session_id

    @property
    def spec(self) -> RunSpec:
        """What the run was made with."""
        return self._machine.spec

    @property
    def leaf_id(self) -> str:
        """The session's leaf as the run has moved it."""
        return self._machine.run.leaf_id

    @property
    def last_text(self) -> str:
        """The text of the last answer that was closed."""
        return self._machine.run.last_text

    @property
    def compaction(self) -> Compaction | None:
        """The last compaction that the run has stored."""
        return self._machine.run.compaction

    @property
    def active(self) -> bool:
        """Whether the run goes on."""
        return not self._machine.ended and self.broken is None

    @property
    def is_compaction(self) -> bool:
        """Whether this run has no turns: it only compacts its session."""
        return self._machine.run.is_compaction

    @property
    def failure(self) -> NousError | None:
        """Why the run failed, once it has."""
        return self.broken or self._machine.failure

    @property
    def refusal(self) -> NousError | None:
        """Why there is no such run: its first input could not be written."""
        return None if self._is_recorded else self.broken

    @property
    def state(self) -> RunStateName:
        """What clients are told: running or aborting."""
        return "aborting" if self._machine.run.aborting else "running"

    @property
    def spent(self) -> Spent:
        """What its model calls used that have ended."""
        run = self._machine.run
        return Spent(run.usage, run.costs.total_usd)

    @property
    def pending_counts(self) -> PendingCounts:
        """How many steers and follow-ups are queued."""
        queues = self._machine.run.queues
        return PendingCounts(steer=queues.count("steer"), follow_up=queues.count("follow_up"))

    @property
    def published_offset(self) -> int:
        """How many bytes of the trace file have been published."""
        return self._publisher.offset

    @property
    def published_seq(self) -> int:
        """The ``seq`` of the last event that was published."""
        return self._publisher.seq

    async def run(
        self, first: RunStarted | CompactionStarted, on_begun: Callable[[RunDriver], None] = lambda driver: None
    ) -> None:
        """Drive the run to its end.  ``begun`` is set once ``first`` is in the trace, or the run was refused.

        ``on_begun`` is called in the first case, before anything else can happen to the run.

        However this ends, the trace's file is closed and the run is forgotten.  Cancelling it ends nothing in order:
        that is what :meth:`abort` is for.
        """
        try:
            await self._drive(first, on_begun)
        except Exception as error:
            # A defect in one run's tasks: that run fails, the others go on.
            log.error("run_crashed", run_id=self.run_id, error=repr(error))
            self._break(as_nous_error(error))
            await self._end_broken()
        finally:
            self._release()

    async def _drive(self, first: RunStarted | CompactionStarted, on_begun: Callable[[RunDriver], None]) -> None:
        async with anyio.create_task_group() as tasks:
            self._performer.bind(self.submit, tasks)
            self._publisher.bind(before_last=lambda: self._on_end(self), on_failure=self._break)
            self._begin(first)
            if self.refusal is None:
                on_begun(self)
            self.begun.set()
            await self._publisher.finished.wait()
            await self._end_broken()
            tasks.cancel_scope.cancel()

    def _begin(self, first: RunStarted | CompactionStarted) -> None:
        early, self._early = self._early or [], None
        self.submit(first)
        for item in early:
            # Whoever sent it was told that it was taken; only a replay refuses what was not recorded.
            with suppress(NousError):
                self.submit(item)

    async def _end_broken(self) -> None:
        """Close the trace of a run that broke as far as it was published, then tell how it ended."""
        error, self._untold = self._untold, None
        if error is None:
            return
        await self._recorder.close_broken(self._publisher.offset, self._clock.now())
        self._publisher.put_untraced(untraced_end(self._machine, self._clock.now(), error))

    def _release(self) -> None:
        self._recorder.release()
        self._on_end(self)
        self.begun.set()
        self.ended.set()

    def open(self) -> None:
        """Let the run's events out: until then they wait, so that the prompt's answer stands before them."""
        self._publisher.open()

    def abort(self, command_id: str, reason: AbortReason) -> None:
        """Ask the run to end."""
        self.submit(AbortRequested(command_id, reason))

    def check_queue(self) -> None:
        """Check that the run takes a steer or a follow-up.

        Raises ``command_rejected`` (no_active_run, queue_full, structured_output).
        """
        if self.is_compaction or not self.active:
            raise NousError("command_rejected", "no_active_run")
        if self._machine.run.is_structured:
            raise NousError("command_rejected", "structured_output", hint="Such a run makes exactly one model call.")
        pending = self.pending_counts
        is_long = self._machine.run.queues.characters >= MAX_QUEUED_CHARACTERS
        if is_long or pending.steer + pending.follow_up >= MAX_QUEUED:
            raise NousError("command_rejected", "queue_full")

    def submit(self, item: Input) -> None:
        """The one door in.  Inputs that come up while one is being handled wait for it, in order."""
        if self._early is not None:
            self._early.append(item)
            return
        self._inbox.extend(self._gate.admit(item))
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._inbox:
                self._step(*self._inbox.popleft())
        except Exception as error:
            log.error("run_crashed", run_id=self.run_id, error=repr(error))
            self._break(as_nous_error(error))
        finally:
            self._stepping = False

    def _step(self, stamp: Stamp, item: Input) -> None:
        machine = self._machine
        if machine.ended or self.broken is not None:
            return
        elided = type(item) is ModelProduced and machine.elides(item.items)
        machine.receive(stamp, item)
        events, effects = machine.take_events(), machine.take_effects()
        try:
            self._recorder.step(stamp, None if elided else item, events, effects)
            self._is_recorded = True
            if machine.status is not None:
                self._recorder.finish(machine.status, stamp.ts)
        except NousError as error:
            self._break(error)
            return
        if machine.failure is not None and machine.status is not None:
            self._log_failure(machine.failure)
        if events:
            wants_sync = any(e.type in self._sync_on for e in events)
            self._publisher.put(events, self._recorder.offset, sync=wants_sync, last=machine.ended)
        for effect in effects:
            answer = self._performer.perform(effect)
            if answer is not None:
                self._inbox.extend(self._gate.admit(answer))

    def _log_failure(self, error: NousError) -> None:
        # Not its cause: a provider may have put there what somebody said.
        log.warning("run_failed", run_id=self.run_id, code=error.code, category=error.category)

    def _break(self, error: NousError) -> None:
        """End a run whose trace cannot be written: on the wire only, without ``seq``.

        If not even its first input was written, the run is refused: no trace is left.
        """
        if self.broken is not None:
            return
        self.broken = error
        self._log_failure(error)
        self._performer.stop()
        self._publisher.fail()
        if self._is_recorded:
            self._untold = error
        else:
            self._recorder.discard()
            self._on_end(self)


def untraced_end(machine: RunMachine, ts: str, error: NousError) -> list[bytes]:
    """Return the lines that tell a client of the end of a run that its trace does not hold."""
    run_id = machine.spec.run_id
    payloads = (
        ErrorEvent(
            run_id=run_id,
            code=error.code,
            message=error.full_message,
            category=error.category,
            retryable=error.retryable,
            cause=UNSET if error.cause is None else error.cause,
        ),
        AgentEnd(run_id=run_id, status="failed", stop_reason="error", leaf_id=machine.run.leaf_id, untraced=True),
    )
    return [untraced_line(run_id, k, ts, payload) for k, payload in enumerate(payloads, 1)]
