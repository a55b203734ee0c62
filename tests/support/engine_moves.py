"""What can happen to a run, as hypothesis strategies: timely, late, doubled, or about something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hypothesis import strategies as st
from msgspec import UNSET

from nous.engine.inputs import (
    AbortRequested,
    CompactionPlanned,
    CompactionRefused,
    CompactionStarted,
    EntryFailed,
    EntryStored,
    FollowedUp,
    FollowUpModeSet,
    HookAnswered,
    Input,
    ModelDone,
    ModelFailed,
    ModelProduced,
    OutputChecked,
    PolicyAnswered,
    RunStarted,
    Steered,
    SteeringModeSet,
    TimerFired,
    ToolDone,
    ToolProgressed,
    ToolsSet,
)
from nous.engine.spec import EngineLimits, RunSpec
from nous.engine.transitions import Phase
from nous.errors import WIRE_CODES
from nous.ports.extensions import HOOKS, RUN_HOOKS, HookOutcome, HookWarning
from nous.ports.model import Finish, ModelItem, Prices, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.commands import QueueMode
from nous.protocol.messages import Usage
from tests.support.engine import Bench, make_spec

# -- what a model may say

texts = st.text(max_size=6) | st.sampled_from(["\u2028", "\x00\x1f", '"\\', "\U0001f600" * 3, "x" * 40])
usages = st.builds(
    Usage,
    input_tokens=st.integers(0, 9),
    output_tokens=st.integers(0, 9),
    cached_tokens=st.integers(0, 9),
    reasoning_tokens=st.integers(0, 9),
)
fragments = st.builds(
    ToolCallDelta,
    index=st.integers(0, 3),
    # Also the ids that the engine itself would derive, and one that is too long.
    id=st.sampled_from([None, "", "t0", "t1", "run-1-m2-t0", "run-1-m2-t1", "run-1-m4-t0", "x" * 129]),
    name=st.sampled_from([None, "", "read", "write", "idle", "nothing"]),
    arguments=st.sampled_from(["", "{}", "{", "}", '"a":', "1", "[]", "NaN", '{"path":"\\ud800"}', '{"n":1e999}']),
)
whole_calls = st.builds(
    ToolCallDelta,
    index=st.integers(0, 3),
    id=st.sampled_from([None, "t0", "t1", "t2"]),
    name=st.sampled_from(["read", "write", "idle"]),
    arguments=st.sampled_from(["{}", "", '{"path":"a"}']),
)
items: st.SearchStrategy[ModelItem] = st.one_of(
    st.builds(TextDelta, texts),
    st.builds(ThinkingDelta, texts, st.none() | st.just("signed")),
    fragments,
    whole_calls,
    st.builds(UsageReport, usages),
    st.builds(Finish, st.sampled_from(["stop", "length", "tool_use", "refusal"])),
)
plain_texts: st.SearchStrategy[ModelItem] = st.builds(TextDelta, texts)
batches = st.lists(items, max_size=6) | st.lists(plain_texts, min_size=1, max_size=6)

# -- what extensions may say

warnings: st.SearchStrategy[HookWarning] = st.builds(
    HookWarning,
    code=st.sampled_from(["extension_timeout", "extension_error", "extension_disabled"]),
    message=texts,
    extension=st.just("guard"),
    version=st.sampled_from(["", "1.0"]),
    hook=st.just(UNSET) | st.sampled_from(HOOKS),
    tool=st.just(UNSET) | texts,
    operation_id=st.just(UNSET) | texts,
    timeout_ms=st.just(UNSET) | st.integers(0, 9),
    elapsed_ms=st.just(UNSET) | st.integers(0, 9),
    reason=st.just(UNSET) | texts,
    consecutive_failures=st.just(UNSET) | st.integers(0, 9),
)
hook_outcomes: st.SearchStrategy[HookOutcome] = st.builds(
    HookOutcome,
    block=st.none() | st.none() | texts,
    handled=st.booleans(),
    text=st.none() | texts,
    arguments=st.none() | st.dictionaries(st.sampled_from(["path", "n"]), texts | st.integers(0, 9)),
    is_error=st.none() | st.booleans(),
    warnings=st.lists(warnings, max_size=2).map(tuple),
)
hook_sets = st.just(()) | st.lists(st.sampled_from(sorted(RUN_HOOKS)), unique=True).map(tuple)

# -- what may happen to a run

Move = Callable[[Bench], list[Input]]
"""Makes inputs out of where a run stands."""


def current_call(bench: Bench) -> int:
    return bench.waiting.call or bench.last_call


def current_tool(bench: Bench) -> str:
    waiting = bench.waiting
    if waiting.tool is not None:
        return waiting.tool.tool_call_id
    return "t0" if waiting.question is None else waiting.question.tool_call_id


def current_entry(bench: Bench) -> str:
    entry = bench.waiting.entry
    return "run-1-m1" if entry is None else entry.id


def current_operation(bench: Bench) -> int:
    hook = bench.waiting.hook
    return 1 if hook is None else hook.operation


def current_plan(bench: Bench) -> str:
    plan = bench.waiting.plan
    return "run-1-c1" if plan is None else plan.entry_id


def current_output(bench: Bench) -> str:
    output = bench.waiting.output
    return "run-1-m2" if output is None else output.entry_id


def plain(*inputs: Input) -> Move:
    return lambda bench: list(inputs)


def good_answer(bench: Bench) -> list[Input]:
    """Take the next thing that a run needs to go on."""
    waiting = bench.waiting
    if waiting.entry is not None:
        return [EntryStored(waiting.entry.id)]
    if bench.state is Phase.AWAITING_RETRY and waiting.timer is not None:
        return [TimerFired(waiting.timer.timer)]
    if waiting.plan is not None:
        return [CompactionPlanned(waiting.plan.entry_id, "kept", 100, "model", "the plain summary")]
    if waiting.hook is not None:
        return [HookAnswered(waiting.hook.operation, HookOutcome())]
    if waiting.question is not None:
        return [PolicyAnswered(waiting.question.tool_call_id, allow=True)]
    if waiting.tool is not None:
        return [ToolDone(waiting.tool.tool_call_id, "result", "ok", truncated=False)]
    if waiting.output is not None:
        return [OutputChecked(waiting.output.entry_id)]
    return []


def whole_answer(said: Sequence[ModelItem]) -> Move:
    return lambda bench: [
        ModelProduced(current_call(bench), [*said, Finish("stop")]),
        ModelDone(current_call(bench)),
    ]


def again(back: int) -> Move:
    """Give an input a second time, out of its order."""
    return lambda bench: [bench.inputs[-min(back, len(bench.inputs))][1]]


other_calls = st.integers(0, 6)
other_tools = st.sampled_from(["t0", "t1", "t2", "run-1-m2-t0", ""])
other_entries = st.builds(lambda kind, n: f"run-1-{kind}{n}", st.sampled_from("mmc"), st.integers(0, 12))
command_ids = st.sampled_from(["k1", "k2", "k3"])
outcomes = st.sampled_from(["ok", "error", "not_found", "not_active", "invalid_arguments", "blocked", "crashed"])
codes = st.sampled_from(sorted(WIRE_CODES)) | st.sampled_from(["unheard_of", "invalid_usage"])
modes: st.SearchStrategy[QueueMode] = st.sampled_from(["one-at-a-time", "all"])
tool_sets = st.lists(st.sampled_from(["read", "write", "idle", "nothing"]), max_size=3, unique=True).map(tuple)

timely: st.SearchStrategy[Move] = st.one_of(
    st.lists(whole_calls, max_size=3).map(whole_answer),
    st.lists(items, max_size=4).map(whole_answer),
    batches.map(lambda said: lambda b: [ModelProduced(current_call(b), said)]),
    st.builds(lambda ok, why: lambda b: [PolicyAnswered(current_tool(b), ok, why)], st.booleans(), st.none() | texts),
    texts.map(lambda text: lambda b: [ToolProgressed(current_tool(b), text)]),
    st.builds(
        lambda text, outcome, cut: lambda b: [ToolDone(current_tool(b), text, outcome, cut)],
        texts,
        outcomes,
        st.booleans(),
    ),
    st.integers(0, 40).map(lambda tokens: lambda b: [EntryStored(current_entry(b), "digest", tokens)]),
    st.builds(
        lambda by, fallback: lambda b: [CompactionPlanned(current_plan(b), "kept", 100, by, fallback)],
        st.sampled_from(["model", "deterministic"]),
        texts,
    ),
    st.just(lambda b: [CompactionRefused(current_plan(b))]),
    (st.none() | texts).map(lambda fault: lambda b: [OutputChecked(current_output(b), fault)]),
    hook_outcomes.map(lambda outcome: lambda b: [HookAnswered(current_operation(b), outcome)]),
)
fatal: st.SearchStrategy[Move] = st.one_of(
    st.builds(AbortRequested, command_ids).map(plain),
    codes.map(lambda code: lambda b: [ModelFailed(current_call(b), code, "cause")]),
    codes.map(lambda code: lambda b: [EntryFailed(current_entry(b), code)]),
    st.just(lambda b: [ModelFailed(current_call(b), "context_overflow")]),
    st.just(lambda b: [ModelDone(current_call(b))]),
    st.builds(
        lambda ms: lambda b: [ModelFailed(current_call(b), "provider_unavailable", None, ms)],
        st.sampled_from([None, 0, 900, 60_000]),
    ),
)
untimely: st.SearchStrategy[Move] = st.one_of(
    st.integers(1, 9).map(again),
    st.one_of(
        st.builds(RunStarted, command_ids, texts),
        st.builds(CompactionStarted, command_ids, texts),
        st.builds(CompactionPlanned, other_entries, texts, st.integers(0, 9), st.just("model"), texts),
        st.builds(CompactionRefused, other_entries),
        st.builds(ModelProduced, other_calls, batches),
        st.builds(ModelDone, other_calls),
        st.builds(ModelFailed, other_calls, codes),
        st.builds(PolicyAnswered, other_tools, st.booleans()),
        st.builds(ToolProgressed, other_tools, texts),
        st.builds(ToolDone, other_tools, texts, outcomes, st.booleans()),
        st.builds(OutputChecked, other_entries),
        st.builds(EntryStored, other_entries),
        st.builds(EntryFailed, other_entries, codes),
        st.builds(TimerFired, st.sampled_from(["abort_grace", "provider_retry"])),
        st.builds(HookAnswered, st.integers(0, 12), hook_outcomes),
    ).map(plain),
)
said_by_user: st.SearchStrategy[Move] = st.one_of(
    st.builds(Steered, command_ids, texts),
    st.builds(FollowedUp, command_ids, texts),
    st.builds(SteeringModeSet, modes),
    st.builds(FollowUpModeSet, modes),
    st.builds(ToolsSet, tool_sets),
).map(plain)

# Mostly what takes a run further, or hardly any would get far.
KINDS_OF_MOVES = [st.just(good_answer)] * 10 + [timely] * 10 + [said_by_user] * 6 + [untimely] * 3 + [fatal]
moves = st.sampled_from(KINDS_OF_MOVES).flatmap(lambda kind: kind)

specs = st.builds(
    make_spec,
    steering_mode=modes,
    follow_up_mode=modes,
    active_tools=tool_sets,
    hooks=hook_sets,
    limits=st.builds(
        EngineLimits,
        max_model_calls=st.integers(1, 4),
        max_message_bytes=st.sampled_from([1 << 25, 1 << 20, 200, 24]),
        inline_text_bytes=st.sampled_from([8, 1 << 18]),
        compact_at_tokens=st.sampled_from([0, 0, 20]),
        max_retries=st.integers(0, 3),
        retry_seed=st.integers(0, 1 << 32),
    ),
    prices=st.sampled_from([None, Prices(input_usd_per_mtok=1.5, output_usd_per_mtok=10)]),
    output_schema=st.sampled_from([None, None, None, {"type": "object"}]),
    output_tools=st.booleans(),
    answer_form=st.sampled_from([1, 2]),
    runs_cut_calls=st.booleans(),
    shows_tool_output=st.booleans(),
    error_reasons=st.booleans(),
)


class Played(NamedTuple):
    """A run, and whether it was brought to its end by good answers."""

    spec: RunSpec
    bench: Bench


PROMPT = RunStarted("c1", "hello")
firsts: st.SearchStrategy[Input] = st.sampled_from([PROMPT, PROMPT, PROMPT, CompactionStarted("c1", "names")])


def play(spec: RunSpec, first: Input, steps: list[Move]) -> Played:
    """Give what the moves make of where the run stands; inputs that come after the end are ignored like any other."""
    bench = Bench(spec)
    for step in [plain(first), *steps]:
        for item in step(bench):
            bench.give(item)
    return Played(spec, bench)


# Short ones shrink well; long ones get far.
plays = st.lists(moves, max_size=12) | st.lists(moves, min_size=15, max_size=60)
runs = st.builds(play, specs, firsts, plays)
