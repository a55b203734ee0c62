"""All extensions of a daemon, behind the port :class:`nous.ports.extensions.Extensions`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup
from msgspec import UNSET, Struct, structs

from nous.config.settings import ExtensionsSettings
from nous.errors import NousError, bound_text
from nous.extensions.answers import read_answer
from nous.extensions.clearance import Cleared, clear, clear_in_time
from nous.extensions.discovery import Installed, find_installed
from nous.extensions.environment import extension_environment
from nous.extensions.extension import (
    Extension,
    ExtensionFailedError,
    Launch,
    OnHello,
    OnTrial,
    Trial,
    ignore_trial,
)
from nous.extensions.lapsed import Lapsed, find_lapsed
from nous.extensions.manifest import Manifest
from nous.extensions.pending import Question
from nous.extensions.policy import policy_in_force
from nous.extensions.tool import ExtensionTool
from nous.extensions.wire import HelloLine, ProtocolError, ResultLine
from nous.ports.extensions import ExtensionListener, HookCall, HookName, HookOutcome, HookWarning
from nous.ports.system import Clock
from nous.ports.tool import Tool
from nous.protocol.events import StatusCode
from nous.protocol.responses import ExtensionInfo
from nous.schemas.checker import CheckFailedError, SchemaChecker
from nous.system.threads import run_in_thread
from nous.system.trust import TrustStore
from nous.telemetry.log import get_log

log = get_log("extensions")

MAX_NAMES_BYTES: Final = 1024
"""How many bytes of names a hint may list."""

LOAD_AGAIN_S: Final = 5.0
"""How long to wait after extensions could not be loaded."""

MAX_TOLD: Final = 256
"""So many hooks nobody waits for may be under way; what comes up beyond is dropped and logged."""

MESSAGES: Final = {
    "extension_timeout": "An extension took too long.",
    "extension_error": "An extension failed.",
    "extension_disabled": "An extension failed too often and is left alone for a while.",
}


TRIALS: Final[dict[Trial, tuple[StatusCode, str]]] = {
    "half_open": ("extension_half_open", "An extension that was left alone is tried again."),
    "recovered": ("extension_recovered", "An extension that was left alone is well again."),
}


class Surroundings(Struct, frozen=True, kw_only=True):
    """Where extensions are looked for, and what they meet.

    ``closed_names`` are environment variables that no extension gets, because they hold the daemon's own keys.
    """

    state_root: Path
    workdir: Path
    environ: Mapping[str, str]
    closed_names: tuple[str, ...]
    settings: ExtensionsSettings
    clock: Clock


def make_extension(
    around: Surroundings,
    one: Installed,
    manifest: Manifest,
    on_hello: OnHello,
    on_trial: OnTrial = ignore_trial,
    cleared: Cleared | None = None,
) -> Extension:
    """Return an extension with the limits in force.

    Whether it may run is checked anew at each of its starts, except at the first if ``cleared`` says what may.
    """
    settings = around.settings
    override = settings.on_failure.get(manifest.name)
    return Extension(
        manifest,
        policy_in_force(manifest.name, manifest, settings),
        manifest.on_failure if override is None else dict.fromkeys(manifest.hooks, override),
        Launch(
            extension_environment(around.environ, manifest.env, around.closed_names, around.workdir),
            partial(clear, one, around.state_root),
            cleared,
        ),
        around.clock,
        on_hello,
        on_trial,
    )


class ExtensionHost:
    """The extensions that are installed and trusted, in the order in which they are asked."""

    def __init__(self, around: Surroundings, schemas: SchemaChecker) -> None:
        self._around = around
        self._schemas = schemas
        self._lapsed: list[Lapsed] = []
        self._extensions: list[Extension] = []
        self._refused: list[ExtensionInfo] = []
        self._hooks: frozenset[HookName] = frozenset()
        self._listener: ExtensionListener | None = None
        self._tasks: TaskGroup | None = None
        self._tools: dict[str, str] = {}
        self._commands: dict[str, Extension] = {}
        self._is_ready = anyio.Event()
        # Why there are no extensions, while they cannot be loaded.
        self._fault: NousError | None = None
        self._operations = itertools.count(1)
        self._told = 0

    @property
    def hooks(self) -> frozenset[HookName]:
        """The hooks that somebody listens to."""
        return self._hooks

    # -- life

    async def run(self, listener: ExtensionListener) -> None:
        """Load and start extensions, and keep them until cancelled.

        While they cannot be loaded, :meth:`ready` raises why, and loading is tried again every :data:`LOAD_AGAIN_S`.
        """
        self._listener = listener
        try:
            await self._load_at_last()
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                for extension in self._extensions:
                    extension.bind(tasks)
                async with anyio.create_task_group() as starts:
                    for extension in self._extensions:
                        starts.start_soon(extension.start)
                self._is_ready.set()
                await anyio.sleep_forever()
        finally:
            # Whoever waits for extensions that will not come any more goes on without them.
            self._is_ready.set()

    async def ready(self) -> None:
        """Wait until extensions have been started.  Raises why they cannot be loaded: what they guard is not done."""
        await self._is_ready.wait()
        if self._fault is not None:
            raise self._fault

    async def _load_at_last(self) -> None:
        while True:
            try:
                await self._load()
            except Exception as error:
                cause = f"extensions cannot be loaded: {error!r}"
                self._fault = NousError("policy_blocked", cause, hint="Loading is tried again; see the log.")
                log.error("extensions_not_loaded", error=repr(error))
                self._is_ready.set()
                await anyio.sleep(LOAD_AGAIN_S)
            else:
                if self._fault is not None:
                    self._fault, self._is_ready = None, anyio.Event()
                return

    async def _load(self) -> None:
        self._extensions, self._refused = [], []
        around = self._around
        found = await run_in_thread(find_installed, around.workdir, around.environ)
        wanted = [one for one in found if one.name not in around.settings.skip]
        started: set[Path] = set()
        faults: dict[Path, NousError] = {}
        for one in wanted:
            try:
                if one.fault is not None:
                    raise one.fault
                cleared = await clear_in_time(partial(clear, one, around.state_root))
            except NousError as fault:
                faults[one.directory.resolve()] = fault
                self._refuse(one.name, str(fault))
            else:
                started.add(one.directory.resolve())
                manifest = cleared.manifest
                extension = make_extension(around, one, manifest, self._greet, self._tell_trial, cleared)
                self._extensions.append(extension)
        store = TrustStore(around.state_root)
        self._lapsed = await run_in_thread(find_lapsed, around.workdir, store, around.settings, started, faults)
        self._extensions.sort(key=self._place)
        self._hooks = frozenset(hook for extension in self._extensions for hook in extension.manifest.hooks)
        self._hooks |= frozenset(hook for lapsed in self._lapsed for hook in lapsed.on_failure)
        refused = {info.name for info in self._refused}
        for lapsed in self._lapsed:
            if lapsed.name not in refused:
                self._refuse(lapsed.name, lapsed.reason)

    def _refuse(self, name: str, cause: str) -> None:
        log.warning("extension_refused", extension=name, cause=cause)
        self._refused.append(ExtensionInfo(name=name, version="", state="down", restarts=0, last_error=cause))
        if self._listener is not None:
            self._listener.tell("extension_refused", bound_text(f"An extension may not run: {cause}"), name)

    def _place(self, extension: Extension) -> tuple[int, str]:
        priority = self._around.settings.priority.get(extension.name, extension.manifest.priority)
        return priority, extension.name

    # -- what they bring

    async def _greet(self, extension: Extension, hello: HelloLine) -> None:
        """Register what an extension says it has.  What it had before, and has no more, is gone.

        Raises:
            ProtocolError: a tool's schema is none, or another extension has a tool of the same name.
        """
        tools = await self._make_tools(extension, hello)
        for tool in tools:
            owner = self._tools.get(tool.name, extension.name)
            if owner != extension.name:
                raise ProtocolError(f"the extension {owner} has a tool {tool.name} already")
        self._tools = {name: owner for name, owner in self._tools.items() if owner != extension.name}
        self._tools.update(dict.fromkeys((tool.name for tool in tools), extension.name))
        self._commands = {name: owner for name, owner in self._commands.items() if owner is not extension}
        for command in hello.commands:
            if self._commands.setdefault(command.name, extension) is not extension:
                log.warning("extension_command_taken", extension=extension.name, command=command.name)
        if self._listener is not None:
            self._listener.tools_changed(extension.name, tools)

    async def _make_tools(self, extension: Extension, hello: HelloLine) -> list[Tool]:
        """Return the tools of a hello.

        Raises:
            ProtocolError: the schema of one of them cannot be used.
        """
        if not hello.tools:
            return []
        try:
            fault = await self._schemas.check_tools({tool.name: tool.schema for tool in hello.tools})
        except CheckFailedError as failed:
            fault = f"it {failed.reason}"
        if fault is not None:
            raise ProtocolError(f"the schema of a tool cannot be used: {fault}")
        on_failed = partial(self._warn_of_tool, extension)
        return [ExtensionTool(extension, declared, self._schemas, on_failed) for declared in hello.tools]

    def _warn_of_tool(self, extension: Extension, tool: str, call_id: str, failed: ExtensionFailedError) -> None:
        self._tell_listener(
            structs.replace(warning, tool=tool, operation_id=call_id) for warning in warnings_of(extension, failed)
        )

    def _tell_trial(self, extension: Extension, trial: Trial) -> None:
        if self._listener is not None:
            self._listener.tell(*TRIALS[trial], extension.name)

    def _tell_listener(self, warnings: Iterable[HookWarning]) -> None:
        for warning in warnings:
            if self._listener is not None:
                self._listener.warn(warning)

    # -- hooks

    async def call(self, call: HookCall) -> HookOutcome:
        """Ask all extensions of a hook, one after the other; each sees what the ones before it changed."""
        outcome = HookOutcome()
        payload = dict(call.payload)
        for lapsed in self._lapsed:
            failed = lapsed.fail(call)
            if failed is not None:
                outcome = merge(outcome, failed)
            if outcome.block is not None:
                return outcome
        for extension in self._extensions:
            if call.hook not in extension.manifest.hooks:
                continue
            outcome = merge(outcome, await self._ask(extension, call, payload))
            if outcome.block is not None or outcome.handled:
                break
            changed = {"text": outcome.text, "arguments": outcome.arguments, "is_error": outcome.is_error}
            payload.update({key: value for key, value in changed.items() if value is not None})
        return outcome

    async def _ask(self, extension: Extension, call: HookCall, payload: dict[str, Any]) -> HookOutcome:
        question = Question(
            kind="hook",
            name=call.hook,
            given=payload,
            context={
                "operation_id": call.operation_id,
                "run_id": call.run_id,
                "session_id": call.session_id,
                "workdir": str(self._around.workdir),
            },
            timeout_ms=extension.policy.hook_timeout_ms,
            read=partial(read_answer, call.hook),
        )
        try:
            return await extension.call(question)
        except ExtensionFailedError as failed:
            warnings = tuple(
                structs.replace(warning, hook=call.hook, operation_id=call.operation_id)
                for warning in warnings_of(extension, failed)
            )
            blocks = extension.on_failure(call.hook) == "block"
            reason = f"the extension {extension.name} could not be asked: {failed.reason}"
            return HookOutcome(block=reason if blocks else None, warnings=warnings)

    def tell(self, call: HookCall) -> None:
        """Tell all extensions of a hook in a task of its own; past a bound the call is dropped, with a log record."""
        if self._tasks is None:
            return
        if self._told >= MAX_TOLD:
            log.warning("extension_hook_dropped", hook=call.hook, run_id=call.run_id)
            return
        self._told += 1
        self._tasks.start_soon(self._tell, call)

    async def _tell(self, call: HookCall) -> None:
        try:
            outcome = await self.call(call)
            self._tell_listener(outcome.warnings)
        except Exception as error:
            log.error("extensions_crashed", hook=call.hook, error=repr(error))
        finally:
            self._told -= 1

    # -- commands

    async def command(self, name: str, payload: dict[str, Any], session_id: str) -> dict[str, Any]:
        """Have the extension that has a command carry it out."""
        await self.ready()
        extension = self._commands.get(name)
        if extension is None:
            known = bound_text(", ".join(sorted(self._commands)), MAX_NAMES_BYTES)
            hint = f"There are: {known}." if known else "get_state lists the extensions; none that runs has a command."
            raise NousError("command_rejected", f"no extension has the command {name[:64]!r}", hint=hint)
        question = Question(
            kind="command",
            name=name,
            given=payload,
            context={"session_id": session_id, "workdir": str(self._around.workdir)},
            timeout_ms=extension.policy.tool_timeout_ms,
            read=_as_it_is,
        )
        try:
            result = await extension.call(question)
        except ExtensionFailedError as failed:
            operation_id = f"command-{next(self._operations)}"
            self._tell_listener(structs.replace(w, operation_id=operation_id) for w in warnings_of(extension, failed))
            code = "timeout" if failed.code == "extension_timeout" else "internal_error"
            hint = "The daemon's log has what the extension wrote."
            raise NousError(code, f"the extension {extension.name}: {failed.reason}", hint=hint) from None
        if result.error is not None:
            raise NousError("command_rejected", f"the extension {extension.name}: {result.error}", hint="")
        return result.value

    # -- seen from outside

    def states(self) -> list[ExtensionInfo]:
        """Return what is known of each extension."""
        running = [
            ExtensionInfo(
                name=extension.name,
                version=extension.version,
                state=extension.state,
                restarts=extension.restarts,
                late_answers=extension.late_answers,
                last_error=extension.last_error or UNSET,
            )
            for extension in self._extensions
        ]
        return [*running, *self._refused]


def _as_it_is(result: ResultLine) -> ResultLine:
    return result


def merge(before: HookOutcome, after: HookOutcome) -> HookOutcome:
    """Return what two extensions, asked one after the other, come to together."""
    return HookOutcome(
        block=after.block,
        handled=after.handled,
        text=before.text if after.text is None else after.text,
        arguments=before.arguments if after.arguments is None else after.arguments,
        is_error=before.is_error if after.is_error is None else after.is_error,
        warnings=before.warnings + after.warnings,
    )


def warnings_of(extension: Extension, failed: ExtensionFailedError) -> Iterable[HookWarning]:
    """Yield what is to be said of a failure: itself, and that it disabled the extension if it did."""
    for code in (failed.code, *(("extension_disabled",) if failed.disables else ())):
        yield HookWarning(
            code=code,
            message=MESSAGES[code],
            extension=extension.name,
            version=extension.version,
            timeout_ms=failed.timeout_ms,
            elapsed_ms=failed.elapsed_ms,
            reason=failed.reason,
            consecutive_failures=failed.consecutive_failures,
        )
