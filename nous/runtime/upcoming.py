"""Runs that were asked for and have not started yet, so that ``abort``, ``steer`` and ``follow_up`` reach them.

Source: protocol v1, section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from nous.engine.inputs import FollowedUp, Steered
from nous.errors import NousError

if TYPE_CHECKING:
    from nous.runtime.driver import RunDriver


class HeldInput:
    """A steer or a follow-up that waits for its run."""

    def __init__(self, item: Steered | FollowedUp) -> None:
        self._item = item
        self._driver: RunDriver | None = None
        self._refusal: NousError | None = None

    @property
    def is_settled(self) -> bool:
        """Whether a run has taken or refused it."""
        return self._driver is not None or self._refusal is not None

    def offer(self, driver: RunDriver) -> None:
        """Give it to a run, once."""
        try:
            driver.check_queue()
            driver.submit(self._item)  # refuses what is not in the recording that is played
        except NousError as error:
            self._refusal = error
        else:
            self._driver = driver

    def taker(self) -> RunDriver | None:
        """Return the run that has taken it, if one has.  Raises why a run has refused it."""
        if self._refusal is not None:
            raise self._refusal
        return self._driver


class HeldAbort:
    """An abort that waits for its run, or for the run that is asked for next in the same session if that is refused.

    ``settled`` is set once a run has taken it, or there is none that can.
    """

    def __init__(self, command_id: str, heirs: tuple[UpcomingRun, ...]) -> None:
        self.heirs = heirs
        self.settled = anyio.Event()
        self._command_id = command_id
        self._driver: RunDriver | None = None

    def offer(self, driver: RunDriver) -> None:
        """Abort a run that has begun, and whose events nobody gets before the prompt is answered."""
        driver.abort(self._command_id, "client")
        self._driver = driver
        self.settled.set()

    def taker(self) -> RunDriver | None:
        """Return the run that it aborted, if there was one."""
        return self._driver


class UpcomingRun:
    """A run from the moment its command was read until that command is answered or refused.

    ``session_id`` is the session that the command names (None: the active one).  One that ``is_alone`` is refused
    while another run is active.  ``driver`` is set once the run is
    made.  ``settled`` is set once it is known whether there is a run.
    """

    def __init__(self, session_id: str | None, *, is_alone: bool = False) -> None:
        self.session_id = session_id
        self.is_alone = is_alone
        self.settled = anyio.Event()
        self.driver: RunDriver | None = None
        self.run_id = ""
        self.held: list[HeldInput | HeldAbort] = []
        self._begun: RunDriver | None = None

    def hold(self, item: HeldInput | HeldAbort) -> None:
        """Give an input to the run: at once if it has begun, else when it begins, in order."""
        if self._begun is not None:
            item.offer(self._begun)
        else:
            self.held.append(item)

    def begin(self, driver: RunDriver) -> None:
        """Note that the run has begun, and give it what was held."""
        self._begun = driver
        held, self.held = self.held, []
        for item in held:
            item.offer(driver)


class UpcomingRuns:
    """All of them, in the order in which their commands were read.  ``make_id`` makes the id of a run."""

    def __init__(self, make_id: Callable[[], str]) -> None:
        self._make_id = make_id
        self._runs: list[UpcomingRun] = []

    def add(self, session_id: str | None, *, is_alone: bool = False) -> UpcomingRun:
        """Note that a run was asked for."""
        run = UpcomingRun(session_id, is_alone=is_alone)
        self._runs.append(run)
        return run

    def run_id(self, run: UpcomingRun) -> str:
        """Return the id that a run has, or will have."""
        if not run.run_id:
            run.run_id = self._make_id()
        return run.run_id

    def find(self, session_id: str) -> UpcomingRun | None:
        """Return the run that comes up next in a session."""
        return next((run for run in self._runs if run.session_id in (None, session_id)), None)

    def only(self) -> UpcomingRun | None:
        """Return the run that is coming up, if there is exactly one."""
        return self._runs[0] if len(self._runs) == 1 else None

    def find_id(self, run_id: str, *, is_new: bool) -> UpcomingRun | None:
        """Return the run that has an id; ``is_new``: nothing else has it, so one that has no id yet may get it."""
        return next((run for run in self._runs if (self.run_id(run) if is_new else run.run_id) == run_id), None)

    def abort(self, run: UpcomingRun, session_id: str | None, command_id: str) -> HeldAbort:
        """Have a run start aborted; return what tells whether it did.

        With a ``session_id``: if the run is refused, the next one that was asked for in that session before the abort
        takes its place.
        """
        later = self._runs[self._runs.index(run) + 1 :] if run in self._runs else []
        heirs = tuple(other for other in later if session_id is not None and other.session_id in (None, session_id))
        held = HeldAbort(command_id, heirs)
        run.hold(held)
        return held

    def settle(self, run: UpcomingRun) -> None:
        """Note that a command was answered or refused.  May be repeated."""
        if run not in self._runs:
            return
        self._runs.remove(run)
        for item in run.held:
            if isinstance(item, HeldAbort):
                self._pass_on(item, run)
        run.settled.set()

    def _pass_on(self, abort: HeldAbort, refused: UpcomingRun) -> None:
        heirs = [heir for heir in abort.heirs if heir in self._runs]
        if not heirs:
            abort.settled.set()
            return
        abort.heirs = tuple(heirs[1:])
        heirs[0].run_id = heirs[0].run_id or refused.run_id
        heirs[0].hold(abort)
