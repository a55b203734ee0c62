"""What ``nous serve --provider replay`` is built from: every seam answers from a recording, nothing real is touched."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import msgspec

from nous.engine.effects import AskPolicy, CheckOutput, StartTimer
from nous.engine.inputs import (
    EntryFailed,
    HookAnswered,
    Input,
    ModelFailed,
    ModelProduced,
    OutputChecked,
    ToolDone,
    ToolProgressed,
)
from nous.engine.spec import RunSpec
from nous.errors import NousError
from nous.ports.extensions import Extensions, HookCall, HookOutcome
from nous.ports.model import ModelItem, ModelRequest, Provider
from nous.ports.system import Clock, Ids
from nous.ports.tool import Tool, ToolContext, ToolResult
from nous.protocol.entries import Compaction
from nous.protocol.messages import Message
from nous.replay.recording import Header, read_header
from nous.replay.replayed_run import Paced, ReplayedRun, client_commands
from nous.replay.sequencer import BEGINNINGS, Sequencer, is_command
from nous.runtime.extensions import NoExtensions
from nous.runtime.run_hooks import operation_of
from nous.runtime.seams import Admitted, EntryLog, FindOutputFault

Speed = Literal["full", "recorded"]
Drive = Literal["recording", "client"]


class ReplaySeams:
    """The seams of every run of a replaying daemon, the ids it draws, and the recordings it goes through in turn.

    ``drive`` says who brings the recorded client commands: the recording itself, so that whoever sends a prompt sees
    the whole run, or the client, who then sends what was sent when the run was recorded.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        drive: Drive,
        speed: Speed,
        clock: Clock,
        ids: Ids,
        traces: Path,
    ) -> None:
        self._paths = paths
        self._drive = drive
        self.speed = speed
        self._clock = clock
        self._ids = ids
        self._next = 0
        self._traces = traces
        self.runs: dict[str, ReplayedRun] = {}

    # -- nous.ports.system.Ids

    def run_id(self) -> str:
        """Take the next recording; return its run id, or a new one if that was served before."""
        path = self._paths[self._next % len(self._paths)]
        self._next += 1
        recorded = read_header(path).run_id
        is_taken = (self._traces / f"{recorded}.ndjson").exists()
        run = ReplayedRun(path, self._ids.run_id() if is_taken else None)
        self.runs[run.run_id] = run
        return run.run_id

    def session_id(self) -> str:
        """Return the next recorded id of a session."""
        return self._ids.session_id()

    def entry_id(self) -> str:
        """Return the next recorded id of an entry."""
        return self._ids.entry_id()

    # -- nous.runtime.seams.Seams

    def spec(self, spec: RunSpec) -> RunSpec:
        """Return the recorded spec on the session and context at hand."""
        return msgspec.structs.replace(
            self.runs[spec.run_id].header.spec,
            session_id=spec.session_id,
            leaf_id=spec.leaf_id,
            context_digest=spec.context_digest,
        )

    def gate(self, run_id: str) -> Sequencer | _OwnPrompt:
        """Return what gives a run its recorded inputs in their order."""
        run = self.runs[run_id]
        sequencer = Sequencer(run.inputs, run.asked, self._comes_by_itself(run_id), self._clock)
        return sequencer if self._drive == "client" else _OwnPrompt(sequencer)

    def _comes_by_itself(self, run_id: str) -> Callable[[Input], bool]:
        run = self.runs[run_id]
        sent = set() if self._drive == "recording" else {id(a.item) for a in client_commands(run.inputs)}
        return lambda item: id(item) in run.late or (is_command(item) and id(item) not in sent)

    def entries(self, log: EntryLog) -> EntryLog:
        """Return a log that fails where the recorded one did."""
        return _ReplayedEntries(self, log)

    def allows(self, effect: AskPolicy) -> tuple[bool, str | None]:
        """Decide about a tool call as recorded."""
        for run in self.runs.values():
            answer = run.policy.get(effect.tool_call_id)
            if answer is not None:
                return answer.allow, answer.reason
        return False, "the recording has no answer to this"

    def extensions(self, live: Extensions) -> Extensions:
        """Return extensions that answer as recorded."""
        return ReplayExtensions(self)

    def provider(self, live: Provider) -> Provider:
        """Return the provider itself: it plays the recording already."""
        return live

    def tool(self, live: Tool) -> Tool:
        """Return the tool itself: it plays the recording already."""
        return live

    @property
    def faults(self) -> None:
        """None: those that were injected were recorded like all others."""
        return

    def delay_ms(self, effect: StartTimer) -> int:
        """Return no delay: what a timer caused is recorded."""
        return 0

    async def check_output(self, effect: CheckOutput, live: FindOutputFault) -> OutputChecked:
        """Answer as recorded: what is checked is what was checked then."""
        found = next((r.outputs[effect.entry_id] for r in self.runs.values() if effect.entry_id in r.outputs), None)
        return found or OutputChecked(effect.entry_id, "$: the recording has no answer to this")

    def failure_of(self, entry_id: str) -> EntryFailed | None:
        """Return how storing an entry failed, if it did."""
        return next((r.failures[entry_id] for r in self.runs.values() if entry_id in r.failures), None)


class _OwnPrompt:
    """A sequencer whose run is said to come from the command at hand: its ``command_id`` is the client's own."""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer

    def admit(self, item: Input) -> Sequence[Admitted]:
        admitted = self._sequencer.admit(item)
        if not isinstance(item, BEGINNINGS):
            return admitted
        return [
            Admitted(a.stamp, msgspec.structs.replace(a.item, command_id=item.command_id))
            if isinstance(a.item, BEGINNINGS)
            else a
            for a in admitted
        ]


class _ReplayedEntries:
    """A session that fails where it failed."""

    def __init__(self, seams: ReplaySeams, log: EntryLog) -> None:
        self._seams = seams
        self._log = log

    def try_append(self, entry: Message | Compaction, /) -> bool:
        failed = self._seams.failure_of(entry.id)
        if failed is not None:
            raise NousError(failed.code, failed.cause)
        return self._log.try_append(entry)

    async def append(self, entry: Message | Compaction, /) -> None:
        await self._log.append(entry)


class ReplayProvider:
    """See :class:`nous.ports.model.Provider`: answers each call with what was recorded of it."""

    builds = 0
    summarises = True

    def __init__(self, seams: ReplaySeams, header: Header) -> None:
        self.name = header.spec.provider
        self.model = header.spec.model
        self._seams = seams

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[list[ModelItem]]]:
        """Give the recorded items of a call."""
        yield self._items(self._seams.runs[request.run_id], request.call)

    async def _items(self, run: ReplayedRun, call: int) -> AsyncIterator[list[ModelItem]]:
        if ("call", call) not in run.asked:
            raise NousError("provider_error", f"the recording has no model call {call}")
        for item, pause_s in run.model[call]:
            if self._seams.speed == "recorded":
                await anyio.sleep(pause_s)
            if isinstance(item, ModelProduced):
                yield item.items
            elif isinstance(item, ModelFailed):
                raise NousError(
                    item.code,
                    item.cause,
                    retry_after_ms=item.retry_after_ms,
                    image_refused=bool(item.refused_images),
                )
            else:
                return
        # The recorded call was stopped here.
        await anyio.sleep_forever()

    async def warm(self) -> None:
        """Do nothing."""
        return

    async def aclose(self) -> None:
        """Do nothing."""
        return


class ReplayTool:
    """See :class:`nous.ports.tool.Tool`: answers each call with what was recorded of it."""

    description = "A recorded tool."
    source = "replay"

    def __init__(self, name: str, seams: ReplaySeams) -> None:
        self.name = name
        self.schema: dict[str, Any] = {"type": "object"}
        self._seams = seams

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """Give the recorded progress and result of a call."""
        run = self._seams.runs[context.run_id]
        if ("tool_call_id", context.tool_call_id) not in run.asked:
            return ToolResult(text="The recording has no such tool call.", outcome="error")
        left = deque(run.tools[context.tool_call_id])
        try:
            return await self._perform(left, context)
        except anyio.get_cancelled_exc_class():
            # What the recorded tool still said while it was being stopped.
            with anyio.CancelScope(shield=True):
                for item, _ in left:
                    if isinstance(item, ToolProgressed):
                        await context.progress(item.text)
            raise

    async def _perform(self, left: deque[Paced], context: ToolContext) -> ToolResult:
        while left:
            if self._seams.speed == "recorded":
                await anyio.sleep(left[0].pause_s)
            item = left.popleft().item
            if isinstance(item, ToolDone):
                return ToolResult(text=item.text, outcome=item.outcome, truncated=item.truncated, images=item.images)
            assert isinstance(item, ToolProgressed)
            await context.progress(item.text)
        # The recorded tool did not stop in time.
        await anyio.sleep_forever()
        raise AssertionError


class ReplayExtensions(NoExtensions):
    """See :class:`nous.ports.extensions.Extensions`: answers each hook of a run with what was recorded of it."""

    def __init__(self, seams: ReplaySeams) -> None:
        self._seams = seams

    async def call(self, call: HookCall) -> HookOutcome:
        """Answer a hook as recorded."""
        run = self._seams.runs[call.run_id]
        operation = operation_of(call)
        if ("operation", operation) not in run.asked:
            return HookOutcome(block="the recording has no such hook")
        answer = run.hooks.get(operation)
        if answer is None or not isinstance(answer.item, HookAnswered):
            # The recorded hook was stopped here.
            await anyio.sleep_forever()
            raise AssertionError
        if self._seams.speed == "recorded":
            await anyio.sleep(answer.pause_s)
        return answer.item.outcome


def find_recordings(path: Path) -> list[Path]:
    """Return a recording, or those of a directory in the order of their names.

    Raises ``invalid_usage`` if there is none, or what :func:`read_header` raises.
    """
    paths = sorted(path.rglob("*.trace.ndjson")) if path.is_dir() else [path]
    if not paths:
        raise NousError("invalid_usage", f"{path} holds no *.trace.ndjson")
    for each in paths:
        read_header(each)
    return paths
