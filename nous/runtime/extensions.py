"""What the runtime does with extensions: none of them where there are none, their words on the wire, their tools."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import anyio
from msgspec import structs

from nous.errors import NousError, bound_text
from nous.ports.extensions import ExtensionListener, Extensions, HookCall, HookName, HookOutcome, HookWarning
from nous.ports.tool import Tool
from nous.protocol.events import StatusEvent, WarningEvent
from nous.protocol.responses import ExtensionInfo
from nous.telemetry.log import get_log

if TYPE_CHECKING:
    from nous.runtime.daemon import Daemon

log = get_log("runtime")

MAX_NAMES_BYTES: Final = 1024
"""How many bytes of names a message may list."""


class NoExtensions:
    """See :class:`nous.ports.extensions.Extensions`: there are none."""

    hooks: frozenset[HookName] = frozenset()

    async def run(self, listener: ExtensionListener) -> None:
        return

    async def ready(self) -> None:
        return

    async def call(self, call: HookCall) -> HookOutcome:
        return HookOutcome()

    def tell(self, call: HookCall) -> None:
        return

    async def command(self, name: str, payload: dict[str, Any], session_id: str) -> dict[str, Any]:
        raise NousError(
            "command_rejected",
            f"no extension has the command {name[:64]!r}",
            hint="This daemon has no extensions: see docs/extensions.md.",
        )

    def states(self) -> list[ExtensionInfo]:
        return []


class DaemonListener:
    """Takes what extensions say of their own accord.  See :class:`nous.ports.extensions.ExtensionListener`."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._tools: dict[str, set[str]] = {}

    def tools_changed(self, extension: str, tools: Iterable[Tool]) -> None:
        """Register an extension's tools in the place of those it had, and announce the ones that are gone.

        A name that is taken stays with its tool; the newcomer is not registered, which the log says.
        """
        daemon = self._daemon
        mine = self._tools.setdefault(extension, set())
        wanted = {tool.name: tool for tool in tools}
        gone = mine.difference(wanted)
        daemon.toolbox.remove(gone)
        if gone:
            names = bound_text(", ".join(sorted(gone)), MAX_NAMES_BYTES)
            self.tell("extension_tools_gone", f"The extension has these tools no longer: {names}.", extension)
        mine.intersection_update(wanted)
        for name, tool in wanted.items():
            if name in daemon.toolbox.tools and name not in mine:
                log.warning("extension_tool_ignored", extension=extension, tool=name, reason="the name is taken")
                continue
            mine.add(name)
            daemon.toolbox.add(tool)

    def warn(self, warning: HookWarning) -> None:
        daemon = self._daemon
        daemon.hub.announce(daemon.event_line(WarningEvent(**structs.asdict(warning))))

    def tell(self, code: str, message: str, extension: str) -> None:
        daemon = self._daemon
        daemon.hub.announce(daemon.event_line(StatusEvent(message=message, code=code, extension=extension)))


async def ask_about_session(daemon: Daemon, hook: HookName, session_id: str, payload: dict[str, Any]) -> None:
    """Ask whether a session may be left or forked.

    Raises ``policy_blocked`` if an extension does not want it.
    """
    await daemon.extensions.ready()
    if hook not in daemon.extensions.hooks:
        return
    call = HookCall(hook=hook, operation_id=daemon.ids.entry_id(), session_id=session_id, payload=payload)
    outcome = await daemon.extensions.call(call)
    for warning in outcome.warnings:
        daemon.listener.warn(warning)
    if outcome.block is not None:
        raise NousError("policy_blocked", outcome.block)


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
        self._told += 1
        self._extensions.tell(self._call(f"{self._run_id}-t{self._told}", hook, payload))

    def _call(self, operation_id: str, hook: HookName, payload: dict[str, Any]) -> HookCall:
        return HookCall(
            hook=hook, operation_id=operation_id, session_id=self._session_id, run_id=self._run_id, payload=payload
        )


def operation_of(call: HookCall) -> int:
    """Return which of its run's questions a call is: the inverse of what :meth:`RunHooks.call` names it."""
    return int(call.operation_id.rpartition("-h")[2])
