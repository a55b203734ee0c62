"""Faults on purpose: the world as it is, but for what a seeded plan lets go wrong.

Each fault enters where a real one would, as an error of a provider, a tool, a session or a client, so a trace records
it as an input and a replay repeats it without any plan.  Every cause begins with ``injected``, and the trace's header
holds the plan.  The n-th draw of a part is the same for the same seed, whatever the other parts do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final, Literal

from nous.config.faults import FaultPlan
from nous.errors import NousError
from nous.ports.model import ModelItem, ModelRequest, Provider
from nous.ports.system import Clock
from nous.ports.tool import Tool, ToolContext, ToolResult
from nous.protocol.entries import Compaction
from nous.protocol.messages import Message
from nous.runtime.seams import EntryLog, LiveSeams

Part = Literal["provider", "tool", "disk", "client"]

_CODES: Final = {"unavailable": "provider_unavailable", "permanent": "provider_error", "cut": "provider_unavailable"}
_DISK: Final = {"full": "no space left", "broken": "the device failed"}


class FaultDraw:
    """Draws what goes wrong next, part by part."""

    def __init__(self, plan: FaultPlan) -> None:
        self.plan = plan
        self._randoms = {part: Random(f"{plan.seed}:{part}") for part in ("provider", "tool", "disk", "client")}

    def next(self, part: Part) -> str | None:
        """Return the kind of fault that the part's next operation meets, or None."""
        wanted, random = getattr(self.plan, part), self._randoms[part]
        # Two draws each time, so that one part's sequence does not depend on its rate.
        chance, place = random.random(), random.random()
        if chance >= wanted.rate:
            return None
        kind: str = wanted.kinds[int(place * len(wanted.kinds))]
        return kind


class FaultySeams(LiveSeams):
    """``abort`` aborts a run as if its client had gone; whoever has the daemon sets it."""

    def __init__(self, clock: Clock, policy: dict[str, Literal["allow", "deny"]], plan: FaultPlan) -> None:
        super().__init__(clock, policy)
        self._draw = FaultDraw(plan)
        self.abort: Callable[[str], None] = lambda run_id: None

    @property
    def faults(self) -> FaultPlan:
        """The faults that are planned."""
        return self._draw.plan

    def entries(self, log: EntryLog) -> EntryLog:
        """Wrap the log so that appends may fail."""
        return _FaultyEntries(log, self._draw)

    def provider(self, live: Provider) -> Provider:
        """Wrap a provider so that its calls may fail."""
        return _FaultyProvider(live, self._draw, self.abort)

    def tool(self, live: Tool) -> Tool:
        """Wrap a tool so that its calls may fail."""
        return _FaultyTool(live, self._draw)


class _FaultyProvider:
    def __init__(self, live: Provider, draw: FaultDraw, abort: Callable[[str], None]) -> None:
        self.name = live.name
        self.model = live.model
        self._live = live
        self._draw = draw
        self._abort = abort

    @property
    def builds(self) -> int:
        return self._live.builds

    @property
    def summarises(self) -> bool:
        return self._live.summarises

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[list[ModelItem]]]:
        kind, gone = self._draw.next("provider"), self._draw.next("client")
        if kind is not None and kind != "cut":
            raise NousError(_CODES[kind], f"injected: {kind}")
        async with self._live.stream(request) as batches:
            yield self._disturb(batches, request.run_id, kind, gone)

    async def _disturb(
        self, batches: AsyncIterator[list[ModelItem]], run_id: str, kind: str | None, gone: str | None
    ) -> AsyncIterator[list[ModelItem]]:
        async for batch in batches:
            yield batch
            if gone is not None:
                self._abort(run_id)
            if kind is not None:
                raise NousError(_CODES[kind], f"injected: {kind}")

    async def warm(self) -> None:
        await self._live.warm()

    async def aclose(self) -> None:
        await self._live.aclose()


class _FaultyTool:
    def __init__(self, live: Tool, draw: FaultDraw) -> None:
        self.name = live.name
        self.description = live.description
        self.schema = live.schema
        self.source = live.source
        self._live = live
        self._draw = draw

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        kind = self._draw.next("tool")
        if kind is None:
            return await self._live.run(arguments, context)
        return ToolResult(text=f"injected: {kind}", outcome="crashed" if kind == "crash" else "error")


class _FaultyEntries:
    def __init__(self, live: EntryLog, draw: FaultDraw) -> None:
        self._live = live
        self._draw = draw

    def try_append(self, entry: Message | Compaction, /) -> bool:
        kind = self._draw.next("disk")
        if kind is not None:
            raise NousError("io_failure", f"injected: {_DISK[kind]}")
        return self._live.try_append(entry)

    async def append(self, entry: Message | Compaction, /) -> None:
        await self._live.append(entry)
