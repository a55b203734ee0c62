"""The hooks of extensions as one run asks them."""

from __future__ import annotations

from typing import Any

import anyio

from nous.ports.extensions import Extensions, HookCall, HookName, HookOutcome
from nous.telemetry.log import get_log

log = get_log("runtime")


class RunHooks:
    """The extensions as one run asks them."""

    def __init__(self, extensions: Extensions, session_id: str, run_id: str) -> None:
        self._extensions = extensions
        self._session_id = session_id
        self._run_id = run_id
        self._told = 0

    async def call(self, operation: int, hook: HookName, payload: dict[str, Any]) -> HookOutcome:
        """Ask a hook.  Never raises but when cancelled."""
        try:
            return await self._extensions.call(self._call(f"{self._run_id}-h{operation}", hook, payload))
        except anyio.get_cancelled_exc_class():
            raise
        except Exception as error:
            log.error("extensions_crashed", hook=hook, error=repr(error))
            # A defect of ours must not let a tool call pass that somebody wanted to see.
            return HookOutcome(block="the extensions could not be asked" if hook == "tool_call" else None)

    def tell(self, hook: HookName, payload: dict[str, Any]) -> None:
        """Tell the extensions that listen to a hook, and do not wait."""
        self._told += 1
        self._extensions.tell(self._call(f"{self._run_id}-t{self._told}", hook, payload))

    def _call(self, operation_id: str, hook: HookName, payload: dict[str, Any]) -> HookCall:
        return HookCall(
            hook=hook, operation_id=operation_id, session_id=self._session_id, run_id=self._run_id, payload=payload
        )


def operation_of(call: HookCall) -> int:
    """Return which of its run's questions a call is: the inverse of what :meth:`RunHooks.call` names it."""
    return int(call.operation_id.rpartition("-h")[2])
