"""Whole runs out of nothing: strategies for what may happen to a daemon, and the daemon it happens to.

A scenario says what the model yields, what the tools do, what the disk does, what the clock shows, and what clients
send; *when* is counted in turns of the event loop, so that the same scenario always gives the same interleaving.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, cycle, repeat
from pathlib import Path
from typing import Any, Final, Literal

import anyio
import anyio.lowlevel
import msgspec
from hypothesis import strategies as st

from nous import __version__
from nous.cli.serve import make_recorded_world
from nous.client import Client, CommandError
from nous.config.settings import DaemonSettings, EngineSettings, ProviderSection, Settings, TraceSettings
from nous.engine.effects import AskPolicy, StartTimer
from nous.engine.inputs import AbortReason
from nous.errors import NousError
from nous.ports.extensions import HookCall, HookName, HookOutcome
from nous.ports.model import (
    Finish,
    FinishReason,
    ModelItem,
    ModelRequest,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReport,
)
from nous.ports.tool import Outcome, ToolContext, ToolResult
from nous.protocol.commands import QueueMode
from nous.protocol.entries import Compaction
from nous.protocol.messages import Message, Usage
from nous.replay.daemon_mode import compare_traces, play, prepare
from nous.replay.judge import examine
from nous.replay.report import Divergence
from nous.replay.stage import CONFIG
from nous.runtime.daemon import Daemon
from nous.runtime.seams import EntryLog, LiveSeams
from nous.system.clock import SystemClock, format_time
from nous.system.ids import RandomIds, new_epoch
from nous.testing.memory import serve_in_memory
from tests.support.engine_moves import hook_outcomes, hook_sets
from tests.support.extensions import RecordingExtensions

TOOLS: Final = ("read", "write", "bash")

# -- what may happen


@dataclass(frozen=True)
class ModelCall:
    """What one model call yields, ``pauses`` before each read, and how it ends."""

    reads: Sequence[Sequence[ModelItem]]
    pauses: Sequence[int]
    end: Literal["done", "cut", "hang", "crash"] | NousError = "done"
    finish: FinishReason = "stop"


@dataclass(frozen=True)
class ToolRun:
    """What one tool call says and how it ends; ``stubborn`` turns of the loop pass before it obeys a cancellation."""

    progress: Sequence[str]
    pauses: Sequence[int]
    end: ToolResult | Literal["hang", "crash"]
    stubborn: int = 0
    last_words: str = ""


@dataclass(frozen=True)
class HookRun:
    """What one hook comes to, after so many turns of the loop."""

    pause: int
    end: HookOutcome | Literal["hang", "crash"]


@dataclass(frozen=True)
class Sent:
    """A command of the client, or of the daemon itself (``abort_all``), ``pause`` turns after the one before it."""

    pause: int
    kind: str
    payload: dict[str, Any]
    command_id: str | None = None


COMPACT: Final = "/compact"
"""Stands among the earlier prompts for a compaction."""


@dataclass(frozen=True)
class Scenario:
    """``prompt`` left out: the run compacts what came ``earlier``."""

    prompt: str | None
    earlier: Sequence[str]
    steering_mode: QueueMode
    follow_up_mode: QueueMode
    active_tools: Sequence[str]
    max_model_calls: int
    max_message_bytes: int
    max_event_bytes: int
    compact_at_tokens: int
    compact_keep_tokens: int
    summarises: bool
    calls: Sequence[ModelCall]
    tools: Sequence[ToolRun]
    commands: Sequence[Sent]
    denied: frozenset[str]
    failing_entry: int | None
    slow_entries: int
    hooks: Sequence[HookName] = ()
    answers: Sequence[HookRun] = ()
    ticks_ms: Sequence[int] = field(default=(1,))


# -- strategies


def _often(strategy: st.SearchStrategy[Any], times: int) -> st.SearchStrategy[Any]:
    """Give a strategy more weight among its alternatives."""
    return st.one_of([strategy.map(lambda value: value) for _ in range(times)])


pauses = st.lists(st.integers(0, 6), min_size=1, max_size=3)
texts = st.text(min_size=1, max_size=8) | st.sampled_from(
    ["\u2028\u0085", "\x00\x1f", '"\\', "\U0001f600" * 3, "long " * 60]
)
# What a line, or a whole answer, does not hold: cut and measured on the way.
long_texts = st.sampled_from([("x", 9000), ("\x01", 9000), ("\U0001f600", 5000)]).map(lambda piece: piece[0] * piece[1])
usages = st.builds(Usage, input_tokens=st.integers(0, 9), output_tokens=st.integers(0, 9))
whole_calls = st.builds(
    ToolCallDelta,
    index=st.integers(0, 2),
    id=st.sampled_from([None, "t0", "t1", "t2"]),
    name=st.sampled_from([*TOOLS, "nothing"]),
    arguments=st.sampled_from(["{}", "", '{"path":"a"}', "[]", "{"]),
)
fragments = st.builds(
    ToolCallDelta,
    index=st.integers(0, 2),
    id=st.sampled_from([None, "", "t0", "x" * 129]),
    name=st.sampled_from([None, "", "bash"]),
    arguments=st.sampled_from(["", "{", "}", '"a":', "1", '{"\\ud800":1e999}']),
)
plain: st.SearchStrategy[ModelItem] = st.builds(TextDelta, texts)
items: st.SearchStrategy[ModelItem] = st.one_of(
    plain,
    st.builds(TextDelta, long_texts),
    st.builds(ThinkingDelta, texts, st.none() | st.just("signed")),
    whole_calls,
    fragments,
    st.builds(UsageReport, usages),
)
reads = st.lists(plain, max_size=5) | st.lists(items, max_size=5)
codes = st.sampled_from(["provider_unavailable", "provider_error", "provider_auth", "context_overflow"])
finishes: st.SearchStrategy[FinishReason] = st.sampled_from(["stop", "length", "tool_use", "refusal"])
failures = st.builds(NousError, codes, st.none() | texts, retry_after_ms=st.none() | st.integers(0, 5))


def _calls(reads: st.SearchStrategy[Any], **ends: st.SearchStrategy[Any]) -> st.SearchStrategy[ModelCall]:
    return st.builds(ModelCall, reads=reads, pauses=pauses, **ends)


def _tool_round(names: list[str], said: list[ModelItem]) -> list[list[ModelItem]]:
    return [said, [ToolCallDelta(index, name=name, arguments="{}") for index, name in enumerate(names)]]


tool_rounds = _calls(
    st.builds(_tool_round, st.lists(st.sampled_from(TOOLS), min_size=1, max_size=3), st.lists(plain, max_size=2)),
)
talk = _calls(st.lists(reads, max_size=4), finish=finishes | st.just("stop"))
trouble = _calls(st.lists(reads, max_size=3), end=st.sampled_from(["cut", "hang", "crash"]) | failures)
model_calls = _often(tool_rounds, 3) | _often(talk, 2) | trouble
outcomes: st.SearchStrategy[Outcome] = st.sampled_from(["ok", "error", "invalid_arguments", "crashed"])
tool_runs = st.builds(
    ToolRun,
    progress=st.lists(texts | long_texts, max_size=3),
    pauses=pauses,
    end=_often(st.builds(ToolResult, text=texts, outcome=outcomes, truncated=st.booleans()), 4)
    | st.sampled_from(["hang", "crash"]),
    stubborn=st.integers(0, 4) | st.just(300),
    last_words=st.just("") | texts,
)
hook_runs = st.builds(
    HookRun,
    pause=st.integers(0, 4),
    end=_often(st.just(HookOutcome()), 4) | _often(hook_outcomes, 3) | st.sampled_from(["hang", "crash"]),
)
modes: st.SearchStrategy[QueueMode] = st.sampled_from(["one-at-a-time", "all"])
tool_sets = st.lists(st.sampled_from(TOOLS), max_size=3, unique=True)
reasons: st.SearchStrategy[AbortReason] = st.sampled_from(["eof", "signal", "client_gone", "shutdown"])


def _sent(kind: str, **payload: st.SearchStrategy[Any]) -> st.SearchStrategy[Sent]:
    # Ids are used again now and then: the second command of an id is answered without being carried out.
    names = st.none() | st.sampled_from(["k1", "k2"])
    return st.builds(Sent, st.integers(0, 15), st.just(kind), st.fixed_dictionaries(payload), names)


commands = st.one_of(
    _sent("steer", text=texts),
    _sent("follow_up", text=texts),
    _sent("abort"),
    _sent("set_steering_mode", mode=modes),
    _sent("set_follow_up_mode", mode=modes),
    _sent("set_active_tools", tools=tool_sets),
    _sent("prompt", text=texts, wait=st.just(False)),
    _sent("abort_all", reason=reasons),
)
scenarios = st.builds(
    Scenario,
    prompt=_often(texts, 5) | st.none(),
    earlier=st.lists(_often(texts, 2) | st.just(COMPACT), max_size=3),
    steering_mode=modes,
    follow_up_mode=modes,
    active_tools=_often(st.just(TOOLS), 4) | tool_sets,
    max_model_calls=_often(st.just(64), 3) | st.integers(1, 3),
    max_message_bytes=_often(st.just(1 << 25), 4) | st.integers(64, 2000),
    max_event_bytes=st.sampled_from([1 << 20, 1 << 16]),
    compact_at_tokens=_often(st.just(150_000), 3) | st.integers(1, 100),
    compact_keep_tokens=st.sampled_from([0, 10, 30, 20_000]),
    summarises=st.booleans(),
    calls=st.lists(model_calls, min_size=1, max_size=5),
    tools=st.lists(tool_runs, min_size=1, max_size=4),
    commands=st.lists(commands, max_size=6),
    denied=_often(st.just(frozenset()), 3) | st.frozensets(st.sampled_from(TOOLS), max_size=1),
    failing_entry=_often(st.none(), 6) | st.integers(0, 6),
    slow_entries=st.integers(0, 3),
    hooks=_often(st.just(()), 2) | hook_sets,
    answers=st.lists(hook_runs, min_size=1, max_size=6),
    ticks_ms=st.lists(st.integers(-2, 3) | st.integers(0, 5000), min_size=1, max_size=4),
)

# -- the world of a scenario


async def turns(count: int) -> None:
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


class ScriptedClock:
    """Wall time goes by the ticks, backwards too; monotonic time never goes back."""

    def __init__(self, ticks_ms: Sequence[int]) -> None:
        self._ticks_ms = cycle(ticks_ms)
        self._wall_ms = 1_800_000_000_000
        self._mono_ns = 0

    def now(self) -> str:
        self._wall_ms += next(self._ticks_ms)
        return format_time(self._wall_ms * 1_000_000)

    def mono_ns(self) -> int:
        self._mono_ns += abs(next(self._ticks_ms)) * 1_000_000 + 1
        return self._mono_ns


class NotedIds(RandomIds):
    def __init__(self) -> None:
        super().__init__()
        self.runs: list[str] = []

    def run_id(self) -> str:
        self.runs.append(super().run_id())
        return self.runs[-1]


class ScriptedProvider:
    """Yields what the scenario says; what hangs says so first, so that somebody can end it."""

    name = "scripted"
    model = "scripted-1"
    builds = 0

    def __init__(self, on_hang: Callable[[], None], *, summarises: bool) -> None:
        self.summarises = summarises
        self._on_hang = on_hang
        self.follow([])

    def follow(self, calls: Sequence[ModelCall]) -> None:
        """Yield these from the next call on, then plain answers."""
        plain_answer = ModelCall([[TextDelta("fine")]], [0])
        self._calls: Iterator[ModelCall] = chain(calls, repeat(plain_answer))

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[list[ModelItem]]]:
        yield self._items(next(self._calls))

    async def _items(self, call: ModelCall) -> AsyncIterator[list[ModelItem]]:
        for read, pause in zip(call.reads, cycle(call.pauses), strict=False):
            await turns(pause)
            yield list(read)
        await turns(call.pauses[0])
        if isinstance(call.end, NousError):
            raise call.end
        if call.end == "crash":
            raise RuntimeError("a provider with a bug")
        if call.end == "hang":
            self._on_hang()
            await anyio.sleep_forever()
        if call.end == "done":
            yield [Finish(call.finish)]

    async def warm(self) -> None: ...

    async def aclose(self) -> None: ...


class ScriptedTool:
    description = "Does what a scenario says."
    source = "test"

    def __init__(self, name: str, runs: Iterator[ToolRun], on_hang: Callable[[], None]) -> None:
        self.name = name
        self.schema: dict[str, Any] = {"type": "object"}
        self._runs = runs
        self._on_hang = on_hang

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        run = next(self._runs)
        try:
            return await self._perform(run, context)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await turns(run.stubborn)
                if run.last_words:
                    await context.progress(run.last_words)
            raise

    async def _perform(self, run: ToolRun, context: ToolContext) -> ToolResult:
        for text, pause in zip(run.progress, cycle(run.pauses), strict=False):
            await turns(pause)
            await context.progress(text)
        await turns(run.pauses[0])
        if run.end == "crash":
            raise RuntimeError("a tool with a bug")
        if run.end == "hang":
            self._on_hang()
            await anyio.sleep_forever()
        assert isinstance(run.end, ToolResult)
        return run.end


class ScriptedSeams(LiveSeams):
    """The world as it is, but for a disk that fails or is slow, and timers that do not wait."""

    def __init__(self, scenario: Scenario, clock: ScriptedClock) -> None:
        super().__init__(clock, dict.fromkeys(scenario.denied, "deny"))
        self._scenario = scenario

    def entries(self, log: EntryLog) -> EntryLog:
        return _FaultyLog(log, self._scenario)

    def delay_ms(self, effect: StartTimer) -> int:
        return 0

    def allows(self, effect: AskPolicy) -> tuple[bool, str | None]:
        allowed, reason = super().allows(effect)
        return allowed, reason


class _FaultyLog:
    def __init__(self, log: EntryLog, scenario: Scenario) -> None:
        self._log = log
        self._failing = scenario.failing_entry
        self._slow = scenario.slow_entries
        self._count = 0

    def try_append(self, entry: Message | Compaction, /) -> bool:
        self._count += 1
        if self._slow and self._count % 2:
            return False
        self._fail()
        return self._log.try_append(entry)

    async def append(self, entry: Message | Compaction, /) -> None:
        await turns(self._slow)
        self._fail()
        await self._log.append(entry)

    def _fail(self) -> None:
        if self._failing is not None and self._count > self._failing:
            raise NousError("io_failure", "no space left")


def answers_of(scenario: Scenario, on_hang: Callable[[], None]) -> Callable[[HookCall], Awaitable[HookOutcome]]:
    """Return who answers the hooks of a scenario, one after the other; what comes after those has nothing to say."""
    runs: Iterator[HookRun] = chain(scenario.answers, repeat(HookRun(0, HookOutcome())))

    async def answer(call: HookCall) -> HookOutcome:
        run = next(runs)
        await turns(run.pause)
        if run.end == "crash":
            raise RuntimeError("extensions with a bug")
        if run.end == "hang":
            on_hang()
            await anyio.sleep_forever()
        assert isinstance(run.end, HookOutcome)
        return run.end

    return answer


# -- recording one


def record(scenario: Scenario, state: Path) -> Path:
    """Let a scenario happen to a daemon below ``state``; return the trace of its run."""
    return anyio.run(_record, scenario, state)


async def _record(scenario: Scenario, state: Path) -> Path:
    daemon: Daemon | None = None

    def on_hang() -> None:
        assert daemon is not None
        daemon.abort_all("signal")

    settings = Settings(
        trace=TraceSettings(fsync="off"),
        engine=EngineSettings(
            max_model_calls=scenario.max_model_calls,
            compact_at_tokens=scenario.compact_at_tokens,
            compact_keep_tokens=scenario.compact_keep_tokens,
        ),
        daemon=DaemonSettings(max_message_bytes=scenario.max_message_bytes, max_event_bytes=scenario.max_event_bytes),
    )
    clock, ids = ScriptedClock(scenario.ticks_ms), NotedIds()
    runs: Iterator[ToolRun] = chain(scenario.tools, repeat(ToolRun([], [0], ToolResult(text="done"))))
    provider = ScriptedProvider(on_hang, summarises=scenario.summarises)
    daemon = Daemon(
        settings=settings,
        state_root=state,
        workdir=state,
        provider=provider,
        tools=lambda: [ScriptedTool(name, runs, on_hang) for name in TOOLS],
        clock=clock,
        ids=ids,
        seams=LiveSeams(SystemClock(), {}),
        epoch=new_epoch(),
        version=__version__,
    )
    async with serve_in_memory(daemon) as client:
        for text in scenario.earlier:
            await _run(client, None if text == COMPACT else text)
        daemon.seams = ScriptedSeams(scenario, clock)
        daemon.extensions = RecordingExtensions(scenario.hooks, answers_of(scenario, on_hang))
        provider.follow(scenario.calls)
        await client.call("set_steering_mode", mode=scenario.steering_mode)
        await client.call("set_follow_up_mode", mode=scenario.follow_up_mode)
        await client.call("set_active_tools", tools=list(scenario.active_tools))
        before = len(ids.runs)
        await _run(client, scenario.prompt, lambda: _send(client, daemon, scenario.commands))
        if len(ids.runs) == before:
            # There was nothing to compact; but a prompt among the commands may be on its way.
            with suppress(CommandError):
                await _run(client, "hello")
        await daemon.wait_idle()
    return state / "traces" / f"{ids.runs[before]}.ndjson"


async def _nothing() -> None: ...


async def _run(client: Client, prompt: str | None, meanwhile: Callable[[], Awaitable[None]] = _nothing) -> None:
    """Begin a run, do something meanwhile, wait for its end."""
    if prompt is None:
        pending = client.start("compact_session", {"instruction": "Be brief."})
        await meanwhile()
        await pending.answer()
    else:
        run_id = (await client.call("prompt", text=prompt, wait=False))["run_id"]
        await meanwhile()
        async for _ in client.events(run_id):
            pass


async def _send(client: Client, daemon: Daemon, commands: Sequence[Sent]) -> None:
    for sent in commands:
        await turns(sent.pause)
        if sent.kind == "abort_all":
            daemon.abort_all(sent.payload["reason"])
        else:
            client.start(sent.kind, sent.payload, command_id=sent.command_id)


# -- replaying one through a daemon, without a process


def replay_in_memory(path: Path, state: Path, idle_seconds: float = 2.0) -> Divergence | None:
    """Do what daemon mode does, with a daemon in this process that lives below ``state``."""
    return anyio.run(_replay, path, state, idle_seconds)


async def _replay(path: Path, state: Path, idle_seconds: float) -> Divergence | None:
    recording = prepare(path, *examine(path))
    given = ProviderSection(name="replay", replay_from=str(path), replay_drive="client")
    world = make_recorded_world(given, state / "traces")
    daemon = Daemon(
        settings=Settings(
            trace=TraceSettings(fsync="off"), provider=given, engine=msgspec.convert(CONFIG["engine"], EngineSettings)
        ),
        state_root=state,
        workdir=state,
        provider=world.provider,
        tools=world.tools,
        clock=SystemClock(),
        ids=world.ids,
        seams=world.seams,
        epoch=new_epoch(),
        version=__version__,
    )
    async with serve_in_memory(daemon) as client:
        found = await play(client, recording, state / "sessions", idle_seconds=idle_seconds)
    return found or compare_traces(recording, state / "traces")
