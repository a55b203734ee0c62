"""A bench for run machines: feeds stamped inputs, keeps all that a machine says, checks each step against the table.

It is a second, much simpler opinion on what a run waits for: from the effects it has seen and the inputs it has given
it knows what is outstanding, so it can tell late news from news.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

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
    TellHook,
)
from nous.engine.emitter import EmittedEvent
from nous.engine.inputs import (
    AbortRequested,
    CompactionPlanned,
    CompactionRefused,
    CompactionStarted,
    EntryFailed,
    EntryStored,
    FollowedUp,
    HookAnswered,
    Input,
    ModelDone,
    ModelFailed,
    ModelProduced,
    OutputChecked,
    PolicyAnswered,
    RunStarted,
    Stamp,
    Steered,
    TimerFired,
    ToolDone,
    ToolProgressed,
)
from nous.engine.machine import RunMachine
from nous.engine.spec import EMPTY_CONTEXT, EngineLimits, RunSpec
from nous.engine.transitions import TRANSITIONS, AfterHook, Phase
from nous.ports.extensions import TOLD_HOOKS, HookOutcome
from nous.ports.model import Finish, FinishReason, ModelItem, TextDelta, ToolCallDelta
from nous.protocol.entries import Compaction, Summariser
from nous.protocol.messages import Message

Json = dict[str, Any]


def make_spec(**changes: Any) -> RunSpec:
    """Return a spec with the tools ``read``, ``write`` (active) and ``idle`` (not)."""
    fields: dict[str, Any] = {
        "run_id": "run-1",
        "session_id": "session-1",
        "leaf_id": "",
        "provider": "mock",
        "model": "mock-1",
        "context_digest": EMPTY_CONTEXT,
        "system_digest": "0" * 64,
        "known_tools": ("read", "write", "idle"),
        "active_tools": ("read", "write"),
        "steering_mode": "one-at-a-time",
        "follow_up_mode": "one-at-a-time",
        "limits": EngineLimits(),
    }
    return RunSpec(**(fields | changes))


def make_stamp(step: int) -> Stamp:
    """Return the stamp of a run's ``step``-th input: they come a millisecond and a half apart."""
    ns = step * 1_500_000
    seconds, ms = divmod(ns // 1_000_000, 1000)
    return Stamp(f"2026-01-02T03:{seconds // 60:02}:{seconds % 60:02}.{ms:03}Z", ns)


def tool_call(name: str, arguments: str = "{}", *, index: int = 0, call_id: str | None = None) -> ToolCallDelta:
    """Return a whole tool call in one fragment; its id is ``t<index>`` unless another is given."""
    return ToolCallDelta(index=index, id=f"t{index}" if call_id is None else call_id, name=name, arguments=arguments)


class Waiting:
    """What a run has asked for and was not yet told: at most one of each kind, which is asserted."""

    def __init__(self) -> None:
        self.call: int | None = None
        self.question: AskPolicy | None = None
        self.tool: RunTool | None = None
        self.entry: Message | Compaction | None = None
        self.plan: PlanCompaction | None = None
        self.timer: StartTimer | None = None
        self.output: CheckOutput | None = None
        self.hook: CallHook | None = None

    def ask(self, effect: Effect) -> None:
        match effect:
            case CallModel(call):
                assert self.call is None
                self.call = call
            case StopModel(call):
                assert self.call == call
                self.call = None
            case AskPolicy():
                assert self.question is None
                self.question = effect
            case RunTool():
                assert self.tool is None
                self.tool = effect
            case AppendEntry(message):
                assert self.entry is None
                self.entry = message
            case AppendCompaction(entry):
                assert self.entry is None
                self.entry = entry
            case PlanCompaction():
                assert self.plan is None
                self.plan = effect
            case CheckOutput():
                assert self.output is None
                self.output = effect
            case StartTimer():
                assert self.timer is None
                self.timer = effect
            case CallHook():
                assert self.hook is None
                self.hook = effect
            case StopHook(operation):
                assert self.hook is not None
                assert self.hook.operation == operation
                self.hook = None
            case TellHook(hook):
                assert hook in TOLD_HOOKS
            case _:
                assert self.tool is not None
                assert effect.tool_call_id == self.tool.tool_call_id

    def is_late(self, item: Input) -> bool:
        """Whether ``item`` is news of something that is not, or no longer, waited for."""
        match item:
            case ModelProduced(call) | ModelDone(call) | ModelFailed(call):
                return call != self.call
            case PolicyAnswered(tool_call_id):
                return self.question is None or tool_call_id != self.question.tool_call_id
            case ToolProgressed(tool_call_id) | ToolDone(tool_call_id):
                return self.tool is None or tool_call_id != self.tool.tool_call_id
            case EntryStored(entry_id) | EntryFailed(entry_id):
                return self.entry is None or entry_id != self.entry.id
            case CompactionPlanned(entry_id) | CompactionRefused(entry_id):
                return self.plan is None or entry_id != self.plan.entry_id
            case OutputChecked(entry_id):
                return self.output is None or entry_id != self.output.entry_id
            case HookAnswered(operation):
                return self.hook is None or operation != self.hook.operation
            case TimerFired(timer):
                return self.timer is None or timer != self.timer.timer
            case _:
                return False

    def hear(self, item: Input) -> None:
        """Take note of news that is not late."""
        match item:
            case ModelDone() | ModelFailed():
                self.call = None
            case PolicyAnswered():
                self.question = None
            case ToolDone():
                self.tool = None
            case EntryStored() | EntryFailed():
                self.entry = None
            case CompactionPlanned() | CompactionRefused():
                self.plan = None
            case OutputChecked():
                self.output = None
            case HookAnswered():
                self.hook = None
            case TimerFired():
                self.timer = None


class Bench:
    """One machine and its whole life so far.

    ``edges`` are the (state, input, next state) that were passed; ``accepted`` the queued inputs that were given while
    the run was on, ``stored`` the messages whose entries were stored, both in order.
    """

    def __init__(self, spec: RunSpec | None = None) -> None:
        self.machine = RunMachine(spec or make_spec())
        self.waiting = Waiting()
        self.inputs: list[tuple[Stamp, Input]] = []
        self.events: list[EmittedEvent] = []
        self.effects: list[Effect] = []
        self.edges: set[tuple[Phase, type[Input], Phase]] = set()
        self.hook_edges: set[tuple[AfterHook, Phase]] = set()
        self.accepted: list[Steered | FollowedUp] = []
        self.stored: list[Message] = []
        self.last_call = 0

    @property
    def state(self) -> Phase:
        return self.machine.state

    def give(self, *items: Input) -> list[EmittedEvent]:
        """Give inputs, each with the next stamp; return the events they caused."""
        start = len(self.events)
        for item in items:
            self.step(make_stamp(len(self.inputs)), item)
        return self.events[start:]

    def step(self, stamp: Stamp, item: Input) -> None:
        """Give one input and hold the machine to its table: late news changes nothing, all else follows a row."""
        machine, before, then = self.machine, self.machine.state, self.machine.hooks.asked_for
        row = TRANSITIONS.get((before, type(item)))
        entry = self.waiting.entry
        self.inputs.append((stamp, item))
        machine.receive(stamp, item)
        events, effects = machine.take_events(), machine.take_effects()
        if row is None or self.waiting.is_late(item):
            assert (machine.state, events, effects) == (before, [], [])
            return
        assert machine.state in row.to
        self.edges.add((before, type(item), machine.state))
        if then is not None and type(item) is HookAnswered:
            self.hook_edges.add((then, machine.state))
        self.waiting.hear(item)
        for effect in effects:
            self.waiting.ask(effect)
        if isinstance(item, Steered | FollowedUp):
            self.accepted.append(item)
        if isinstance(item, EntryStored) and isinstance(entry, Message):
            self.stored.append(entry)
        self.last_call = max(self.last_call, self.waiting.call or 0)
        self.events += events
        self.effects += effects

    # -- the usual inputs, about what is outstanding

    def start(self, text: str = "hello") -> Bench:
        """Begin the run and store its prompt: the model is called next, unless something is queued."""
        self.give(RunStarted("c1", text))
        return self.store()

    def steer(self, text: str, command_id: str = "s1") -> Bench:
        self.give(Steered(command_id, text))
        return self

    def follow_up(self, text: str, command_id: str = "f1") -> Bench:
        self.give(FollowedUp(command_id, text))
        return self

    def abort(self) -> Bench:
        self.give(AbortRequested("a1"))
        return self

    def fire(self) -> Bench:
        self.give(TimerFired("abort_grace"))
        return self

    def retry(self) -> Bench:
        """Let the pause before a retry end."""
        self.give(TimerFired("provider_retry"))
        return self

    def store(self) -> Bench:
        assert self.waiting.entry is not None
        self.give(EntryStored(self.waiting.entry.id))
        return self

    def store_compaction(self, context_tokens: int) -> Bench:
        """Store a compaction that leaves a context of this size."""
        assert self.waiting.entry is not None
        self.give(EntryStored(self.waiting.entry.id, "digest", context_tokens))
        return self

    def compact(self, instruction: str = "") -> Bench:
        """Begin a run without turns."""
        self.give(CompactionStarted("c1", instruction))
        return self

    def plan(self, by: Summariser = "model") -> Bench:
        assert self.waiting.plan is not None
        self.give(CompactionPlanned(self.waiting.plan.entry_id, "kept", 1000, by, "the plain summary"))
        return self

    def refuse_plan(self) -> Bench:
        assert self.waiting.plan is not None
        self.give(CompactionRefused(self.waiting.plan.entry_id))
        return self

    def fail_store(self, code: str = "io_failure", cause: str | None = "disk full") -> Bench:
        assert self.waiting.entry is not None
        self.give(EntryFailed(self.waiting.entry.id, code, cause))
        return self

    def produce(self, *items: ModelItem) -> Bench:
        assert self.waiting.call is not None
        self.give(ModelProduced(self.waiting.call, list(items)))
        return self

    def done(self) -> Bench:
        assert self.waiting.call is not None
        self.give(ModelDone(self.waiting.call))
        return self

    def fail_model(self, code: str, cause: str | None = None, retry_after_ms: int | None = None) -> Bench:
        assert self.waiting.call is not None
        self.give(ModelFailed(self.waiting.call, code, cause, retry_after_ms))
        return self

    def refuse_images(self, *message_ids: str) -> Bench:
        """Fail the model call because of an image of these messages."""
        assert self.waiting.call is not None
        cause = "HTTP 400: bad image"
        self.give(ModelFailed(self.waiting.call, "provider_error", cause, refused_images=message_ids))
        return self

    def answer(self, *items: ModelItem, finish: FinishReason = "stop") -> Bench:
        """Answer the model call with ``items``; the entry that holds them is asked for next."""
        return self.produce(*items, Finish(finish)).done()

    def say(self, text: str = "done") -> Bench:
        """Answer the model call with ``text`` alone, and store it."""
        return self.answer(TextDelta(text)).store()

    def call_tools(self, *calls: ToolCallDelta) -> Bench:
        """Answer the model call with tool calls, and store it: the first call is dealt with next."""
        return self.answer(*calls, finish="tool_use").store()

    def allow(self, *, allow: bool = True, reason: str | None = None) -> Bench:
        assert self.waiting.question is not None
        self.give(PolicyAnswered(self.waiting.question.tool_call_id, allow, reason))
        return self

    def hook(self, **outcome: Any) -> Bench:
        """Answer the hook that is asked; without an outcome nobody has anything to say."""
        assert self.waiting.hook is not None
        self.give(HookAnswered(self.waiting.hook.operation, HookOutcome(**outcome)))
        return self

    def finish_tool(self, text: str = "result", outcome: Any = "ok", *, truncated: bool = False) -> Bench:
        assert self.waiting.tool is not None
        self.give(ToolDone(self.waiting.tool.tool_call_id, text, outcome, truncated))
        return self

    def progress(self, text: str) -> Bench:
        assert self.waiting.tool is not None
        self.give(ToolProgressed(self.waiting.tool.tool_call_id, text))
        return self

    def check_output(self, fault: str | None = None) -> Bench:
        assert self.waiting.output is not None
        self.give(OutputChecked(self.waiting.output.entry_id, fault))
        return self

    def run_tool(self, text: str = "result") -> Bench:
        """Allow the tool that is asked about, let it end, store its result."""
        return self.allow().finish_tool(text).store()

    def go_on(self) -> Bench:
        """Give the plain good answer to whatever is outstanding."""
        waiting = self.waiting
        if waiting.entry is not None:
            return self.store()
        if self.state is Phase.AWAITING_RETRY:
            return self.retry()
        if waiting.plan is not None:
            return self.plan()
        if waiting.hook is not None:
            return self.hook()
        if waiting.question is not None:
            return self.allow()
        if waiting.tool is not None:
            return self.finish_tool()
        if waiting.output is not None:
            return self.check_output()
        self.produce(TextDelta("fine"), Finish("stop"))
        # What has grown too long was stopped by now.
        return self if self.waiting.call is None else self.done()

    def run_to_end(self, max_steps: int = 1000) -> Bench:
        """Give plain good answers until the run has ended."""
        for _ in range(max_steps):
            if self.machine.ended:
                return self
            self.go_on()
        raise AssertionError(f"no end after {max_steps} steps")

    # -- what it said

    def payloads(self, *types: str) -> list[Json]:
        """Return the payloads of the events of these types, in order."""
        return [e["payload"] for e in self.decoded() if e["type"] in types]

    def payload(self, kind: str) -> Json:
        """Return the payload of the only event of this type."""
        [found] = self.payloads(kind)
        return found

    def decoded(self) -> list[Json]:
        return decode(self.events)

    def types(self) -> list[str]:
        return types_of(self.events)

    def asked(self, kind: type[Effect]) -> list[Any]:
        return [e for e in self.effects if type(e) is kind]

    def lines(self) -> list[bytes]:
        return [e.line for e in self.events]


def decode(events: Sequence[EmittedEvent]) -> list[Json]:
    return [json.loads(e.line) for e in events]


def types_of(events: Sequence[EmittedEvent]) -> list[str]:
    return [e["type"] for e in decode(events)]


def replay(spec: RunSpec, inputs: Sequence[tuple[Stamp, Input]]) -> Bench:
    """Give the same inputs to a new machine."""
    bench = Bench(spec)
    for stamp, item in inputs:
        bench.step(stamp, item)
    return bench
