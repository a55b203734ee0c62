"""The daemon's state: its sessions, its runs, its modes.  Handlers ask it; transports only carry bytes to them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec
from anyio.abc import TaskGroup
from msgspec import UNSET

from nous.config.settings import Settings
from nous.engine.inputs import (
    AbortReason,
    FollowUpModeSet,
    Input,
    SteeringModeSet,
    ToolsSet,
)
from nous.errors import NousError
from nous.ports.extensions import Extensions, HookCall, HookName
from nous.ports.model import Catalogue, ModelChoice, Provider
from nous.ports.system import Clock, Ids
from nous.ports.tool import Tool
from nous.protocol.codec import UnfinishedLines
from nous.protocol.commands import QueueMode
from nous.protocol.entries import ModelChange
from nous.protocol.events import CONNECTION_FEATURES, StartWarning, StatusEvent, WarningEvent, daemon_line
from nous.protocol.responses import PROTOCOL_VERSION, Health
from nous.runtime.backlog import LONGEST_COMMANDS, Backlog
from nous.runtime.extensions import DaemonListener, NoExtensions, ask_about_session
from nous.runtime.health import LoopWatch, measure
from nous.runtime.hub import Hub
from nous.runtime.models import OneProvider
from nous.runtime.order import Order
from nous.runtime.prompters import Prompters
from nous.runtime.seams import LiveSeams, Seams
from nous.runtime.stop import StopRequest
from nous.runtime.syncs import Syncs
from nous.runtime.system_prompt import read_agents_file
from nous.runtime.toolbox import Toolbox
from nous.runtime.upcoming import UpcomingRun, UpcomingRuns
from nous.runtime.uses import SessionUses
from nous.schemas.checker import SchemaChecker
from nous.store.disk import io_failure
from nous.store.locks import STANDARD, LockProfile
from nous.store.session_format import LeafMove
from nous.store.sessions import Session, SessionStore
from nous.store.spent import NOTHING_SPENT, Spent, UsageLog
from nous.system.ids import is_safe_id
from nous.system.steps import complete_async
from nous.telemetry.log import get_log

if TYPE_CHECKING:
    from nous.runtime.driver import RunDriver

log = get_log("runtime")

LONGEST_LINES: Final = 4
"""The unfinished lines of all connections may hold as much as this many of the longest ones."""

Exporter = Callable[[str, str], Path]
"""Exports a run's trace in a format; returns the file, which lies under the state directory."""


class Daemon:
    """The state that all connections share: sessions, runs, modes, tools.  The command handlers work on it."""

    def __init__(
        self,
        *,
        settings: Settings,
        state_root: Path,
        workdir: Path,
        provider: Provider,
        catalogue: Catalogue | None = None,
        tools: Callable[[], Iterable[Tool]],
        clock: Clock,
        ids: Ids,
        epoch: str,
        version: str,
        system_override: str | None = None,
        seams: Seams | None = None,
        is_dead: Callable[[str], bool] = lambda epoch: False,
        exporter: Exporter | None = None,
        lock_profile: LockProfile = STANDARD,
        correlation_id: str | None = None,
        extensions: Extensions | None = None,
        schemas: SchemaChecker | None = None,
        warnings: tuple[StartWarning, ...] = (),
    ) -> None:
        self.settings = settings
        self.state_root = state_root
        self.traces_root = state_root / "traces"
        self.outputs_root = state_root / "outputs"
        self.workdir = workdir
        self.provider = provider
        self.catalogue: Catalogue = catalogue or OneProvider(provider)
        self.clock = clock
        self.started_ns = clock.mono_ns()
        self.loop_watch = LoopWatch(clock)
        self.ids = ids
        self.epoch = epoch
        self.correlation_id = correlation_id
        self.version = version
        self.system_override = system_override
        self.is_dead = is_dead
        self.exporter = exporter
        self.seams: Seams = seams or LiveSeams(clock, settings.tools.policy)
        self.extensions: Extensions = extensions or NoExtensions()
        self.warnings = warnings
        self.schemas = schemas or SchemaChecker()
        self.toolbox = Toolbox(tools, settings.tools.active, may_grow=extensions is not None)
        self.listener = DaemonListener(self.toolbox, self.announce)
        self.hub = Hub()
        self.unfinished_lines = UnfinishedLines(LONGEST_LINES * settings.daemon.max_line_bytes)
        self.order = Order()
        self.backlog = Backlog(LONGEST_COMMANDS * settings.daemon.max_line_bytes)
        self.syncs = Syncs()
        self.sessions = SessionStore(state_root / "sessions", profile=lock_profile)
        self.uses = SessionUses(self.sessions.leases, lock_profile)
        self.steering_mode: QueueMode = "one-at-a-time"
        self.follow_up_mode: QueueMode = "one-at-a-time"
        self.runs: dict[str, RunDriver] = {}
        self.upcoming = UpcomingRuns(ids.run_id)
        self.prompters = Prompters(clock)
        self._usage = UsageLog(state_root / "sessions")
        self.accepting = True
        self.stop = StopRequest()
        self._tasks: TaskGroup | None = None
        self._run_ended = anyio.Event()
        self._events_made = 0

    @property
    def active_session_id(self) -> str:
        """The session that commands mean which name none; ``""`` while there is none."""
        return self.uses.active_id

    # -- runs

    def bind(self, tasks: TaskGroup) -> None:
        """Let runs, and commands that change something, live in ``tasks``."""
        self._tasks = tasks

    def start_task(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Run ``work`` in a task that belongs to the daemon: nothing that happens to a connection ends it.

        An exception ends this task alone; it is logged.
        """
        assert self._tasks is not None
        self._tasks.start_soon(_contain, work, arguments)

    def run_of(self, session_id: str) -> RunDriver | None:
        """Return the run that is on in a session, if there is one."""
        return next((r for r in self.runs.values() if r.session_id == session_id), None)

    def provider_of(self, choice: ModelChoice) -> Provider:
        """Return what answers for ``choice``.  Raises as :meth:`nous.ports.model.Catalogue.find`."""
        return self.provider if choice == self.catalogue.default else self.catalogue.find(choice)

    def warn_recovered(self, session: Session) -> None:
        """Say which torn tails were cut from a session's file, and where they were kept."""
        for tail in session.take_recovered():
            name = Path(tail.path).name
            log.warning("torn_tail_recovered", session_id=session.id, kept_as=name)
            self.announce(
                WarningEvent(
                    code="torn_tail_recovered",
                    message="A line that was cut off in the middle was kept aside.",
                    cause=f"session {session.id}: kept as {name}",
                )
            )

    def spent_in(self, session_id: str) -> Spent:
        """Return what all runs of a session used, also before this daemon started, the active one included."""
        if not session_id:
            return NOTHING_SPENT
        try:
            spent = self._usage.total(session_id)
        except OSError as error:
            raise io_failure(error, session_id) from error
        run = self.run_of(session_id)
        return spent if run is None else spent.plus(run.spent)

    def _note_usage(self, driver: RunDriver) -> None:
        try:
            self._usage.add(driver.session_id, driver.run_id, driver.spent)
        except OSError as error:
            log.warning("usage_not_recorded", run_id=driver.run_id, error=repr(error))

    def check_free(self, session_id: str) -> None:
        """Check that a session may be changed now.  Raises ``shutting_down`` or ``command_rejected``."""
        if not self.accepting:
            raise NousError("shutting_down")
        run = self.run_of(session_id)
        if run is not None:
            raise _busy(run)

    def check_may_start(self, upcoming: UpcomingRun) -> None:
        """Check that a run which is to be the only one may start.  Raises ``command_rejected`` while another is on."""
        if upcoming.is_alone and self.runs:
            raise _busy(next(iter(self.runs.values())))

    def forget_run(self, driver: RunDriver) -> None:
        """Note that a run has ended.  May be repeated."""
        if self.runs.pop(driver.run_id, None) is None:
            return
        self.uses.end_run(driver.run_id)
        if driver.refusal is None:
            self._note_usage(driver)
            self.prompters.note_end(driver.run_id, self.hub.peer_pids())
        ended, self._run_ended = self._run_ended, anyio.Event()
        ended.set()

    def upcoming_run(self, run_id: str | None = None) -> UpcomingRun | None:
        """Return the run that is coming up and that a command means, if it means one that is.

        Without a ``run_id`` that is the one in the active session, unless another run is active there.  If no run is
        active at all, and none is coming up there, it is the only one that is coming up.
        """
        if run_id is not None:
            return self.upcoming.find_id(run_id, is_new=run_id not in self.runs and not self.knows_run(run_id))
        active = [run for run in self.runs.values() if run.active]
        upcoming = self.upcoming.find(self.active_session_id)
        if upcoming is None:
            return None if active else self.upcoming.only()
        if upcoming.is_alone and any(run is not upcoming.driver for run in active):
            # It will be refused.
            return None
        run = self.run_of(self.active_session_id) if self.active_session_id else None
        return upcoming if run is None or not run.active or run is upcoming.driver else None

    def unnamed_run(self) -> RunDriver | None:
        """Return the active run that a command means which names none.

        That is the active session's; if it has none and exactly one run is active in the daemon, that one.
        """
        run = self.run_of(self.active_session_id) if self.active_session_id else None
        if run is not None and run.active:
            return run
        active = [run for run in self.runs.values() if run.active]
        return active[0] if len(active) == 1 else None

    def find_run(self, run_id: str | None) -> RunDriver:
        """Return the active run a command means: the named one, or :meth:`unnamed_run`.

        Raises ``run_not_found``, or ``command_rejected`` (no_active_run).
        """
        if run_id is None:
            driver = self.unnamed_run()
        else:
            driver = self.runs.get(run_id)
            if driver is None and not self.knows_run(run_id):
                raise NousError("run_not_found")
        if driver is None or not driver.active:
            raise NousError("command_rejected", "no_active_run")
        return driver

    def knows_run(self, run_id: str) -> bool:
        """Return whether a run of this id has a trace."""
        return is_safe_id(run_id) and (self.traces_root / f"{run_id}.ndjson").exists()

    def lose_client(self, run_id: str) -> None:
        """Abort a run as if whoever asked had gone."""
        if run_id in self.runs:
            self.runs[run_id].abort("", "client_gone")

    def abort_all(self, reason: AbortReason) -> None:
        """Abort every run."""
        for driver in tuple(self.runs.values()):
            driver.abort("", reason)

    async def wait_idle(self) -> None:
        """Wait until no run is active."""
        while self.runs:
            await self._run_ended.wait()

    # -- modes and tools

    def set_active_tools(self, names: tuple[str, ...]) -> None:
        """Choose the tools that runs may use, those that are on included."""
        self.toolbox.choose(names)
        self._tell_runs(ToolsSet(names))

    def set_steering_mode(self, mode: QueueMode) -> None:
        """Choose how many queued steers a turn takes, also in the runs that are on."""
        self.steering_mode = mode
        self._tell_runs(SteeringModeSet(mode))

    def set_follow_up_mode(self, mode: QueueMode) -> None:
        """Choose how many queued follow-ups a turn takes, also in the runs that are on."""
        self.follow_up_mode = mode
        self._tell_runs(FollowUpModeSet(mode))

    def _tell_runs(self, item: Input) -> None:
        for driver in tuple(self.runs.values()):
            driver.submit(item)

    # -- sessions

    async def session_for_prompt(self, found: Session | None, leaf_id: str | None) -> Session:
        """Return the session a prompt means: the one that was found for it, or a new one that becomes active.

        Raises ``command_rejected`` for a leaf that the session does not have.
        """
        if leaf_id:
            if found is None:
                raise NousError("command_rejected", "leaf_id: there is no session yet", hint="Leave leaf_id out.")
            await complete_async(found.path_in_steps(leaf_id))
        if found is None:
            found = self.create_session()
            await self.uses.activate(found.id)
        return found

    async def named_or_active_session(self, session_id: str | None) -> Session | None:
        """Return the named session, or the active one if there is one.  Raises as :meth:`session`."""
        if session_id is None:
            session_id = self.active_session_id or None
        return None if session_id is None else await self.session(session_id)

    async def session(self, session_id: str) -> Session:
        """Return a session as it is on disk now.  Raises ``session_not_found`` or ``session_corrupt``.

        A long session is read in steps: the daemon serves others meanwhile.
        """
        return await self.sessions.load(session_id)

    def create_session(self) -> Session:
        """Make a session; it survives a power cut once :meth:`sync_session` has returned."""
        return self.sessions.create(self.ids.session_id(), self.clock.now())

    async def set_leaf(self, session: Session, leaf_id: str) -> None:
        """Make a message the active leaf.  Raises ``command_rejected`` if the session does not have it."""
        await complete_async(session.path_in_steps(leaf_id))
        if leaf_id == session.leaf_id:
            return
        move = LeafMove(id=self.ids.entry_id(), parent_id=session.leaf_id, leaf_id=leaf_id, created_at=self.clock.now())
        await session.append(move)
        self.warn_recovered(session)
        await self.sync_session(session)

    async def set_model(self, session: Session, choice: ModelChoice) -> None:
        """Let runs on the session's active leaf, and on what comes below it, use ``choice``; durable once returned."""
        change = ModelChange(
            id=self.ids.entry_id(),
            parent_id=session.leaf_id,
            provider=choice.provider,
            model=choice.model,
            thinking=choice.thinking,
            created_at=self.clock.now(),
        )
        await session.append(change)
        self.warn_recovered(session)
        await self.sync_session(session)

    async def branch_session(self, source_id: str, leaf_id: str | None) -> Session:
        """Make a session that begins with a copy of a path of another."""
        return await self.sessions.branch_in_steps(source_id, self.ids.session_id(), self.clock.now(), leaf_id)

    async def sync_session(self, session: Session) -> None:
        """Return once a session's entries would survive a power cut; at once with ``trace.fsync: off``."""
        if self.settings.trace.fsync != "off":
            await self.syncs.finish(session.begin_sync())

    async def ask_about_session(self, hook: HookName, session_id: str, payload: dict[str, Any]) -> None:
        """Ask the extensions whether a session may be left or forked.  Raises ``policy_blocked``."""
        await self.extensions.ready()
        if hook in self.extensions.hooks:
            call = HookCall(hook=hook, operation_id=self.ids.entry_id(), session_id=session_id, payload=payload)
            await ask_about_session(self.extensions, self.listener, call)

    # -- facts

    def health(self) -> Health:
        """Return how the daemon is now."""
        pending = [run.pending_counts for run in self.runs.values()]
        uptime_ns = self.clock.mono_ns() - self.started_ns
        return measure(self.loop_watch, uptime_ns=uptime_ns, pending=pending, queued_bytes=self.hub.queued_bytes)

    def agents_text(self) -> str | None:
        """Return the text of the AGENTS.md files that count for the working directory, if they are to be used."""
        return read_agents_file(self.workdir, self.outputs_root.parent) if self.settings.prompt.agents_md else None

    def ready(self) -> StatusEvent:
        """Return the first event of a connection: who serves, and its limits."""
        settings = self.settings.daemon
        return StatusEvent(
            message="ready",
            protocol=PROTOCOL_VERSION,
            server="nous",
            version=self.version,
            pid=os.getpid(),
            epoch=self.epoch,
            provider=self.provider.name,
            model=self.provider.model,
            max_line_bytes=settings.max_line_bytes,
            max_event_bytes=settings.max_event_bytes,
            features=CONNECTION_FEATURES,
            warnings=self.warnings or UNSET,
        )

    def event_line(self, payload: StatusEvent | WarningEvent) -> bytes:
        """Return the line of an event outside any run, with the next ``evt-<n>`` id."""
        self._events_made += 1
        return daemon_line(self._events_made, self.clock.now(), payload, self.settings.daemon.max_event_bytes)

    def announce(self, payload: StatusEvent | WarningEvent) -> None:
        """Send every subscriber an event outside any run."""
        self.hub.announce(self.event_line(payload))

    @cached_property
    def config_digest(self) -> str:
        """A digest of the settings in force (they hold no secrets: keys are named, not held)."""
        return hashlib.sha256(msgspec.json.encode(self.settings)).hexdigest()


def _busy(run: RunDriver) -> NousError:
    return NousError("command_rejected", "compaction_in_progress" if run.is_compaction else "run_in_progress")


async def _contain(work: Callable[..., Awaitable[None]], arguments: tuple[object, ...]) -> None:
    try:
        await work(*arguments)
    except Exception as error:
        log.error("task_crashed", task=getattr(work, "__qualname__", repr(work)), error=repr(error))
