"""What this daemon uses of the sessions it shares with other processes: its active session and those of its runs."""

from __future__ import annotations

from nous.store.leases import Lease, Leases
from nous.store.locks import LockProfile


class SessionUses:
    """Holds the leases of one daemon.  Belongs to the loop's thread."""

    def __init__(self, leases: Leases, profile: LockProfile) -> None:
        self.active_id = ""
        self._leases = leases
        self._profile = profile
        self._active: Lease | None = None
        self._runs: dict[str, Lease] = {}

    async def activate(self, session_id: str) -> None:
        """Make a session the active one; nobody removes it until another one is.

        Raises:
            NousError: ``state_contention`` if it is being removed; ``io_failure``.
        """
        if session_id == self.active_id:
            return
        lease = await self._leases.hold(session_id, "active", self._profile)
        before, self._active = self._active, lease
        self.active_id = session_id
        if before is not None:
            before.release()

    async def begin_run(self, run_id: str, session_id: str) -> None:
        """Keep others from removing or pruning a session until :meth:`end_run`.

        Raises:
            NousError: ``state_contention`` if somebody is doing so; ``io_failure``.
        """
        self._runs[run_id] = await self._leases.hold(session_id, "run", self._profile)

    def end_run(self, run_id: str) -> None:
        """Let others remove and prune the run's session.  May be repeated."""
        lease = self._runs.pop(run_id, None)
        if lease is not None:
            lease.release()

    def close(self) -> None:
        """Give up everything: the daemon ends."""
        for run_id in tuple(self._runs):
            self.end_run(run_id)
        if self._active is not None:
            self._active.release()
        self._active, self.active_id = None, ""
