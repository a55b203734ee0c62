"""The extensions port: what a run, and the daemon, may ask of programs that others wrote.

An extension can say much and decide little: every answer is data, bounded and typed, and the run goes on whatever it
is.  All extensions of a hook are asked in order by one :meth:`Extensions.call`; how each of them fails, and what that
means, is behind this port.
"""

from collections.abc import Iterable
from typing import Any, Final, Literal, Protocol, get_args

from msgspec import UNSET, Struct, UnsetType

from nous.ports.tool import Tool
from nous.protocol.events import StatusCode
from nous.protocol.responses import ExtensionInfo

HookName = Literal[
    "input",
    "before_agent_start",
    "run_start",
    "turn_start",
    "tool_call",
    "tool_result",
    "turn_end",
    "run_end",
    "session_before_switch",
    "session_before_fork",
    "before_compact",
]
HOOKS: Final[tuple[HookName, ...]] = get_args(HookName)

RUN_HOOKS: Final = frozenset(HOOKS) - {"session_before_switch", "session_before_fork"}
"""The hooks that a run asks; the others belong to commands."""

TOLD_HOOKS: Final = frozenset({"turn_end", "run_end"})
"""Hooks that can change nothing: they are told, and nobody waits for them."""

HookWarningCode = Literal["extension_timeout", "extension_error", "extension_disabled"]


class HookCall(Struct, frozen=True, kw_only=True):
    """One question to all extensions of a hook.

    ``operation_id`` is unique in a daemon's life; ``run_id`` is ``""`` for a hook outside any run.  What stands in
    ``payload`` is listed in docs/extensions.md.
    """

    hook: HookName
    operation_id: str
    session_id: str
    run_id: str = ""
    payload: dict[str, Any]


class HookWarning(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something an extension did, or failed to do, that whoever watches should know."""

    code: HookWarningCode
    message: str
    extension: str
    version: str = ""
    hook: str | UnsetType = UNSET
    tool: str | UnsetType = UNSET
    operation_id: str | UnsetType = UNSET
    timeout_ms: int | UnsetType = UNSET
    elapsed_ms: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    consecutive_failures: int | UnsetType = UNSET


class HookOutcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all extensions of a hook came to, in their order; each was asked with what those before it had changed.

    ``block`` is the reason why what was asked about is not to happen (a tool call is refused, a switch, a fork, a
    compaction or an input is cancelled).  ``handled``: an input needs no model.  ``text`` replaces an input's or a
    tool result's text, ``arguments`` a tool call's, ``is_error`` says anew whether a result is one.
    """

    block: str | None = None
    handled: bool = False
    text: str | None = None
    arguments: dict[str, Any] | None = None
    is_error: bool | None = None
    warnings: tuple[HookWarning, ...] = ()


class ExtensionListener(Protocol):
    """What the extensions tell the daemon of their own accord."""

    def tools_changed(self, extension: str, tools: Iterable[Tool]) -> None:
        """Take note of all the tools that an extension has now; none of them once it is gone."""
        ...

    def warn(self, warning: HookWarning) -> None:
        """Tell everyone who watches, outside any run."""
        ...

    def tell(self, code: StatusCode, message: str, extension: str) -> None:
        """Tell everyone who watches how an extension is doing."""
        ...


class Extensions(Protocol):
    """All extensions of a daemon.  Nothing here raises but what is said to; cancelling a call ends it at once."""

    @property
    def hooks(self) -> frozenset[HookName]:
        """The hooks that anyone listens to: known before any extension has started."""
        ...

    async def run(self, listener: ExtensionListener) -> None:
        """Start the extensions and look after them until cancelled; then none of their processes is left."""
        ...

    async def ready(self) -> None:
        """Wait until each extension is up or has failed, within their start timeouts.  Without any: at once."""
        ...

    async def call(self, call: HookCall) -> HookOutcome:
        """Ask the extensions of a hook and return what they came to."""

    def tell(self, call: HookCall) -> None:
        """Ask a hook whose answer does not matter.  Never blocks; what goes wrong is told to the listener."""
        ...

    async def command(self, name: str, payload: dict[str, Any], session_id: str) -> dict[str, Any]:
        """Run a command of an extension and return what it returned.

        Raises:
            NousError: ``capability_unavailable`` if no extension has it, ``timeout``, ``internal_error``.
        """
        ...

    def states(self) -> list[ExtensionInfo]:
        """Return what is known of each extension."""
