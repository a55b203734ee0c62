"""Starts runs.

A run belongs to the daemon: once it is in its trace, it goes on whatever becomes of the connection that asked for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nous.engine.inputs import CompactionStarted, RunStarted
from nous.errors import NousError
from nous.runtime.terms import RunTerms, settle
from nous.system.steps import complete_async

if TYPE_CHECKING:
    from nous.runtime.daemon import Daemon
    from nous.runtime.driver import RunDriver
    from nous.runtime.upcoming import UpcomingRun
    from nous.store.sessions import Session


async def start_run(
    daemon: Daemon, session: Session, first: RunStarted, terms: RunTerms, leaf_id: str | None, upcoming: UpcomingRun
) -> RunDriver:
    """Start a run on a leaf of a session (None: the active one).

    It is in its trace when this returns, and in no stream yet: its events wait for :meth:`RunDriver.open`.  If this is
    cancelled once the run has been made, the run opens and goes on.

    Raises ``command_rejected`` (also for an unknown leaf), ``overloaded``, ``shutting_down`` or ``io_failure``; nothing
    was written then.
    """
    return await _launch(daemon, session, first, terms, leaf_id, upcoming)


async def start_compaction(
    daemon: Daemon, session: Session, first: CompactionStarted, upcoming: UpcomingRun
) -> RunDriver:
    """Start a run without turns that compacts a session.

    Raises as :func:`start_run`, and ``command_rejected`` if there is nothing to compact.
    """
    from nous.engine.summary import choose_cut

    path = await complete_async(session.path_in_steps(session.leaf_id))
    if not choose_cut(path, daemon.settings.engine.compact_keep_tokens):
        raise nothing_to_compact()
    return await _launch(daemon, session, first, settle(daemon, session, None), None, upcoming)


def nothing_to_compact() -> NousError:
    """Return the refusal of a compaction that would summarise nothing."""
    hint = "Compact once the session is longer, or keep less: engine.compact_keep_tokens."
    return NousError("command_rejected", "nothing_to_compact", hint=hint)


async def _launch(
    daemon: Daemon,
    session: Session,
    first: RunStarted | CompactionStarted,
    terms: RunTerms,
    leaf_id: str | None,
    upcoming: UpcomingRun,
) -> RunDriver:
    # Imported by the first run, or beside whatever came before it: a start does not wait for what no run uses yet.
    from nous.runtime.run import make_run, prepare_context

    await daemon.extensions.ready()
    daemon.check_free(session.id)
    daemon.check_may_start(upcoming)
    if len(daemon.runs) >= daemon.settings.daemon.max_runs:
        raise NousError("overloaded", f"{len(daemon.runs)} runs are active")
    run_id = daemon.upcoming.run_id(upcoming)
    await daemon.uses.begin_run(run_id, session.id)
    try:
        # Nobody prunes or removes the session any more: this is what the run will find in it.
        await complete_async(session.refresh())
        leaf_id = session.leaf_id if leaf_id is None else leaf_id
        await complete_async(prepare_context(session, leaf_id))
        daemon.check_free(session.id)
        daemon.check_may_start(upcoming)
        driver = make_run(daemon, session, run_id, leaf_id, terms, daemon.forget_run)
    except BaseException:
        daemon.uses.end_run(run_id)
        raise
    daemon.runs[driver.run_id] = driver
    upcoming.driver = driver
    daemon.start_task(driver.run, first, upcoming.begin)
    try:
        await driver.begun.wait()
    except BaseException:
        driver.open()
        raise
    daemon.warn_recovered(session)
    if driver.refusal is not None:
        raise driver.refusal
    return driver
