"""What the runtime does with extensions: it registers their tools, passes on what they say, and asks about sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from msgspec import structs

from nous.errors import NousError, bound_text
from nous.ports.extensions import ExtensionListener, Extensions, HookCall, HookName, HookOutcome, HookWarning
from nous.ports.tool import Tool
from nous.protocol.events import StatusCode, StatusEvent, WarningEvent
from nous.protocol.responses import ExtensionInfo
from nous.runtime.toolbox import Toolbox
from nous.telemetry.log import get_log

log = get_log("runtime")

MAX_NAMES_BYTES: Final = 1024
"""How many bytes of names a message may list."""


class NoExtensions:
    """See :class:`nous.ports.extensions.Extensions`: there are none."""

    hooks: frozenset[HookName] = frozenset()

    async def run(self, listener: ExtensionListener) -> None:
        """Return at once."""
        return

    async def ready(self) -> None:
        """Return at once."""
        return

    async def call(self, call: HookCall) -> HookOutcome:
        """Answer that nobody wants anything."""
        return HookOutcome()

    def tell(self, call: HookCall) -> None:
        """Do nothing."""
        return

    async def command(self, name: str, payload: dict[str, Any], session_id: str) -> dict[str, Any]:
        """Refuse: there is no such command."""
        raise NousError(
            "command_rejected",
            f"no extension has the command {name[:64]!r}",
            hint="This daemon has no extensions: see docs/extensions.md.",
        )

    def states(self) -> list[ExtensionInfo]:
        """Return an empty list."""
        return []


class DaemonListener:
    """Takes what extensions say of their own accord.  See :class:`nous.ports.extensions.ExtensionListener`.

    ``announce`` sends an event to every subscriber.
    """

    def __init__(self, toolbox: Toolbox, announce: Callable[[StatusEvent | WarningEvent], None]) -> None:
        self._toolbox = toolbox
        self._announce = announce
        self._tools: dict[str, set[str]] = {}

    def tools_changed(self, extension: str, tools: Iterable[Tool]) -> None:
        """Register an extension's tools in the place of those it had, and announce the ones that are gone.

        A name that is taken stays with its tool; the newcomer is not registered, which the log says.
        """
        mine = self._tools.setdefault(extension, set())
        wanted = {tool.name: tool for tool in tools}
        gone = mine.difference(wanted)
        self._toolbox.remove(gone)
        if gone:
            names = bound_text(", ".join(sorted(gone)), MAX_NAMES_BYTES)
            self.tell("extension_tools_gone", f"The extension has these tools no longer: {names}.", extension)
        mine.intersection_update(wanted)
        for name, tool in wanted.items():
            if name in self._toolbox.tools and name not in mine:
                log.warning("extension_tool_ignored", extension=extension, tool=name, reason="the name is taken")
                continue
            mine.add(name)
            self._toolbox.add(tool)

    def warn(self, warning: HookWarning) -> None:
        """Announce a warning of an extension."""
        self._announce(WarningEvent(**structs.asdict(warning)))

    def tell(self, code: StatusCode, message: str, extension: str) -> None:
        """Announce a status that an extension causes."""
        self._announce(StatusEvent(message=message, code=code, extension=extension))


async def ask_about_session(extensions: Extensions, listener: ExtensionListener, call: HookCall) -> None:
    """Ask whether a session may be left or forked.

    Raises ``policy_blocked`` if an extension does not want it.
    """
    outcome = await extensions.call(call)
    for warning in outcome.warnings:
        listener.warn(warning)
    if outcome.block is not None:
        raise NousError("policy_blocked", outcome.block)
