"""Performs what a run's engine asks for, and comes back with inputs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any, Protocol

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from nous.engine.effects import (
    AppendCompaction,
    AppendEntry,
    AskPolicy,
    CallHook,
    CallModel,
    CheckOutput,
    Effect,
    PlanCompaction,
    RunTool,
    StartTimer,
    StopHook,
    StopModel,
    StopTool,
    TellHook,
)
from nous.engine.inputs import (
    CompactionPlanned,
    CompactionRefused,
    EntryFailed,
    EntryStored,
    HookAnswered,
    Input,
    ModelDone,
    ModelFailed,
    ModelProduced,
    PolicyAnswered,
    TimerFired,
    ToolDone,
    ToolProgressed,
)
from nous.errors import NousError, as_nous_error
from nous.ports.model import (
    MAX_DELTA_BYTES,
    ModelItem,
    ModelRequest,
    Provider,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from nous.ports.tool import Tool, ToolContext, ToolResult
from nous.protocol.entries import Compaction
from nous.protocol.messages import Message
from nous.protocol.text import clean, split_text
from nous.runtime.run_hooks import RunHooks
from nous.runtime.seams import EntryLog, Seams
from nous.telemetry.log import get_log

log = get_log("runtime")

MAX_PROGRESS_BYTES = 64 * 1024

UNSEEN_IMAGES = "[Images came with this result; they are left out, because the model takes none.]"
"""Stands for them, so that a model can say what it has not seen."""


class RunResources(Protocol):
    """What a run's effects are performed with."""

    @property
    def provider(self) -> Provider:
        """The provider that answers."""

    @property
    def entries(self) -> EntryLog:
        """Where the run's entries are stored."""

    @property
    def seams(self) -> Seams:
        """What stands between the run and the world."""

    @property
    def hooks(self) -> RunHooks:
        """The extensions as this run asks them."""

    def request(self, effect: CallModel) -> ModelRequest:
        """Return the request of a model call."""

    def refused_images(self, effect: CallModel) -> tuple[str, ...]:
        """Return the messages whose images are to be left out next, after the provider refused one; may be none."""
        ...

    def plan_compaction(self, effect: PlanCompaction) -> CompactionPlanned | CompactionRefused:
        """Return what a compaction would keep and summarise, or that there is nothing to compact."""

    def stored(self, entry: Message | Compaction) -> EntryStored:
        """Return the news that an entry was stored, with what the context has become if it was a compaction."""
        ...

    async def find_output_fault(self, text: str) -> str | None:
        """Return what keeps ``text`` from fitting the run's output schema, or None."""
        ...

    @property
    def takes_images(self) -> bool:
        """Whether the run's model is known to see images."""
        ...

    def tool(self, name: str) -> Tool | None:
        """Return a tool by name, if there is one."""

    def tool_context(self, tool_call_id: str, progress: Callable[[str], Awaitable[None]]) -> ToolContext:
        """Return what a tool call gets to know and may use."""


class Performer:
    """Starts one task per slow effect.  ``perform`` returns an input where the answer is known at once."""

    def __init__(self, resources: RunResources, room: Callable[[], Awaitable[None]], max_event_bytes: int) -> None:
        self._resources = resources
        # As JSON a byte may take six: pieces of an eighth of a line fit with all that stands around them.
        self._piece_bytes = max_event_bytes // 8
        self._room = room
        self._submit: Callable[[Input], None] = lambda item: None
        self._tasks: TaskGroup | None = None
        self._model_scope: anyio.CancelScope | None = None
        self._tool_scope: anyio.CancelScope | None = None
        self._hook_scope: anyio.CancelScope | None = None

    def bind(self, submit: Callable[[Input], None], tasks: TaskGroup) -> None:
        """Say where inputs go and which tasks the work runs in."""
        self._submit = submit
        self._tasks = tasks

    def stop(self) -> None:
        """Stop everything that is under way."""
        for scope in (self._model_scope, self._tool_scope, self._hook_scope):
            if scope is not None:
                scope.cancel()

    def perform(self, effect: Effect) -> Input | None:
        """Carry out an effect; return its answer if that is known at once, else submit it later."""
        match effect:
            case AppendEntry(message):
                return self._append(message)
            case AppendCompaction(entry):
                return self._append(entry)
            case PlanCompaction():
                return self._resources.plan_compaction(effect)
            case CallModel():
                self._model_scope = anyio.CancelScope()
                self._start(self._call_model, effect, self._model_scope)
            case StopModel():
                if self._model_scope is not None:
                    self._model_scope.cancel()
            case AskPolicy():
                allow, reason = self._resources.seams.allows(effect)
                return PolicyAnswered(effect.tool_call_id, allow, reason)
            case RunTool():
                self._tool_scope = anyio.CancelScope()
                self._start(self._run_tool, effect, self._tool_scope)
            case StopTool():
                if self._tool_scope is not None:
                    self._tool_scope.cancel()
            case CheckOutput():
                self._start(self._check_output, effect)
            case CallHook():
                self._hook_scope = anyio.CancelScope()
                self._start(self._call_hook, effect, self._hook_scope)
            case StopHook():
                if self._hook_scope is not None:
                    self._hook_scope.cancel()
            case TellHook():
                self._resources.hooks.tell(effect.hook, effect.payload)
            case StartTimer():
                self._start(self._wait, effect)
        return None

    def _start(self, function: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        assert self._tasks is not None
        self._tasks.start_soon(function, *arguments)

    # -- entries

    def _append(self, entry: Message | Compaction) -> Input | None:
        try:
            if self._resources.entries.try_append(entry):
                return self._resources.stored(entry)
        except NousError as error:
            return EntryFailed(entry.id, error.code, error.cause)
        self._start(self._append_slowly, entry)
        return None

    async def _append_slowly(self, entry: Message | Compaction) -> None:
        try:
            await self._resources.entries.append(entry)
        except NousError as error:
            self._submit(EntryFailed(entry.id, error.code, error.cause))
        else:
            self._submit(self._resources.stored(entry))

    # -- the model

    async def _call_model(self, effect: CallModel, scope: anyio.CancelScope) -> None:
        with scope:
            self._submit(await self._stream(effect))

    async def _stream(self, effect: CallModel) -> Input:
        """Pump one call's items into the run; return how it ended."""
        call = effect.call
        opened = False
        try:
            request = self._resources.request(effect)
            async with self._resources.provider.stream(request) as batches:
                async for produced in batches:
                    items = produced
                    if self._piece_bytes < MAX_DELTA_BYTES:
                        items = list(split_items(produced, self._piece_bytes))
                    for group in group_items(items, opened=opened):
                        self._submit(ModelProduced(call, group))
                        opened = True
                    await self._room()
                    await anyio.lowlevel.checkpoint()
        except NousError as error:
            refused = self._resources.refused_images(effect) if error.image_refused else ()
            return ModelFailed(call, error.code, error.cause, error.retry_after_ms, refused)
        except Exception as error:
            log.error("provider_crashed", error=repr(error))
            failure = as_nous_error(error)
            return ModelFailed(call, failure.code, failure.cause)
        return ModelDone(call)

    # -- tools

    async def _run_tool(self, effect: RunTool, scope: anyio.CancelScope) -> None:
        result: ToolResult | None = None
        with scope:
            result = await self._tool_result(effect)
        if result is None:
            result = ToolResult(text="The tool call was aborted.", outcome="error")
        text, images = clean(result.text), result.images
        if images and not self._resources.takes_images:
            text, images = f"{text}\n{UNSEEN_IMAGES}", ()
        self._submit(ToolDone(effect.tool_call_id, text, result.outcome, result.truncated, images))

    async def _tool_result(self, effect: RunTool) -> ToolResult:
        tool = self._resources.tool(effect.tool_name)
        if tool is None:
            return ToolResult(text=f"There is no tool named {effect.tool_name!r}.", outcome="not_found")

        async def progress(text: str) -> None:
            for piece in split_text(clean(text), min(self._piece_bytes, MAX_PROGRESS_BYTES)):
                self._submit(ToolProgressed(effect.tool_call_id, piece))
            await self._room()

        try:
            return await tool.run(effect.arguments, self._resources.tool_context(effect.tool_call_id, progress))
        except Exception as error:
            log.error("tool_crashed", tool=effect.tool_name, error=repr(error))
            return ToolResult(text=f"The tool crashed ({type(error).__name__}).", outcome="crashed")

    # -- structured output

    async def _check_output(self, effect: CheckOutput) -> None:
        resources = self._resources
        self._submit(await resources.seams.check_output(effect, resources.find_output_fault))

    # -- hooks

    async def _call_hook(self, effect: CallHook, scope: anyio.CancelScope) -> None:
        with scope:
            outcome = await self._resources.hooks.call(effect.operation, effect.hook, effect.payload)
            self._submit(HookAnswered(effect.operation, outcome))

    # -- timers

    async def _wait(self, effect: StartTimer) -> None:
        await anyio.sleep(self._resources.seams.delay_ms(effect) / 1000)
        self._submit(TimerFired(effect.timer))


def split_items(items: Iterable[ModelItem], max_bytes: int) -> Iterator[ModelItem]:
    """Yield items whose texts are no longer than ``max_bytes``: for a daemon whose lines are shorter than most."""
    for item in items:
        if isinstance(item, TextDelta):
            yield from (TextDelta(piece) for piece in split_text(item.text, max_bytes))
        elif isinstance(item, ThinkingDelta) and item.text:
            pieces = list(split_text(item.text, max_bytes))
            yield from (ThinkingDelta(piece) for piece in pieces[:-1])
            yield ThinkingDelta(pieces[-1], item.signature)
        elif isinstance(item, ToolCallDelta) and item.arguments:
            pieces = list(split_text(item.arguments, max_bytes))
            yield ToolCallDelta(item.index, item.id, item.name, pieces[0])
            yield from (ToolCallDelta(item.index, arguments=piece) for piece in pieces[1:])
        else:
            yield item


def group_items(items: list[ModelItem], *, opened: bool) -> list[list[ModelItem]]:
    """Cut a batch so that a trace can leave out as much as possible: where plain text meets anything else, and after
    the item that opens the answer."""
    if opened and all(type(i) is TextDelta for i in items):
        return [items] if items else []
    groups: list[list[ModelItem]] = []
    was_text: bool | None = None
    for item in items:
        is_text = type(item) is TextDelta
        if is_text is not was_text or not (opened or len(groups) > 1):
            groups.append([])
            was_text = is_text
        groups[-1].append(item)
    return groups
