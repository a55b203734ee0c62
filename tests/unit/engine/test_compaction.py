"""Compaction inside a run: what starts it, who summarises, what it changes, how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from nous.engine.compaction import MAX_SUMMARY_BYTES
from nous.engine.effects import AppendCompaction, CallModel, PlanCompaction, StartTimer, StopModel
from nous.engine.inputs import CompactionPlanned, CompactionRefused, ModelDone, ModelFailed, ModelProduced
from nous.engine.spec import EngineLimits
from nous.engine.transitions import Phase
from nous.ports.model import Finish, TextDelta, ThinkingDelta, UsageReport
from nous.protocol.messages import Usage
from tests.support.engine import Bench, Json, make_spec, tool_call

START, END = "compaction_start", "compaction_end"


def manual() -> Bench:
    return Bench(make_spec(leaf_id="old-7")).compact("keep names").plan()


def large(**limits: Any) -> Bench:
    """Return a run that will compact once its first turn has ended."""
    return Bench(make_spec(limits=EngineLimits(compact_at_tokens=10, **limits))).start("x" * 100)


def entry_of(bench: Bench) -> Any:
    [effect] = bench.asked(AppendCompaction)
    return effect.entry


def codes(bench: Bench) -> list[str]:
    return [status["code"] for status in bench.payloads("status")]


# -- by command


def test_a_manual_compaction_is_a_run_without_turns() -> None:
    bench = manual().answer(TextDelta("short"), UsageReport(Usage(output_tokens=3))).store_compaction(5)
    assert bench.types() == ["agent_start", "status", "status", "agent_end"]
    assert codes(bench) == [START, END]
    assert all("turn_id" not in status for status in bench.payloads("status"))
    end = bench.payload("agent_end")
    assert (end["status"], end["leaf_id"], end["usage"]["output_tokens"]) == ("completed", "old-7", 3)
    entry = entry_of(bench)
    assert (entry.id, entry.parent_id, entry.first_kept_entry_id) == ("run-1-c1", "old-7", "kept")
    assert (entry.summary, entry.by, entry.trigger, entry.instruction) == ("short", "model", "manual", "keep names")
    assert entry.tokens_before == 1000
    assert bench.machine.run.compaction == entry


def test_what_is_asked_of_the_planner_and_of_the_model() -> None:
    bench = manual()
    assert bench.asked(PlanCompaction) == [PlanCompaction("run-1-c1", "old-7", "keep names")]
    [call] = bench.asked(CallModel)
    assert (call.purpose, call.leaf_id, call.tools) == ("compaction", "old-7", ())
    assert (call.first_kept_entry_id, call.instruction) == ("kept", "keep names")


def test_nothing_to_compact_fails_a_manual_compaction() -> None:
    bench = Bench().compact().refuse_plan()
    assert bench.types() == ["agent_start", "error", "agent_end"]
    error = bench.payload("error")
    assert (error["code"], error["cause"], "turn_id" in error) == ("command_rejected", "nothing_to_compact", False)


def test_what_is_said_to_a_compaction_is_handed_back() -> None:
    bench = manual().steer("hello").answer(TextDelta("short")).store()
    assert bench.payload("agent_end")["discarded"] == [{"command_id": "s1", "kind": "steer", "text": "hello"}]


# -- by size


def test_a_turn_past_the_threshold_is_followed_by_a_compaction() -> None:
    bench = large().say("done")
    assert bench.types()[-1] == "turn_end"
    bench.plan().answer(TextDelta("short")).store_compaction(5)
    assert bench.types()[-3:] == ["status", "status", "agent_end"]
    assert entry_of(bench).trigger == "threshold"
    assert bench.payload("agent_end")["leaf_id"] == entry_of(bench).parent_id == "run-1-m2"


def test_without_a_threshold_nothing_is_compacted() -> None:
    assert Bench().start("x" * 1_000_000).say().payload("agent_end")["status"] == "completed"


def test_the_context_before_the_run_counts() -> None:
    spec = make_spec(limits=EngineLimits(compact_at_tokens=1000), context_tokens=1000)
    assert Bench(spec).start().say().state is Phase.PLANNING


def test_what_the_provider_counted_counts() -> None:
    spec = make_spec(limits=EngineLimits(compact_at_tokens=1000))
    for tokens, state in ((500, Phase.PLANNING), (499, Phase.ENDED)):
        usage = Usage(input_tokens=500, output_tokens=tokens)
        assert Bench(spec).start().answer(TextDelta("hi"), UsageReport(usage)).store().state is state


def test_what_waits_is_the_next_turn_after_the_compaction() -> None:
    bench = large().follow_up("more").say().plan().steer("now").answer(TextDelta("short")).store_compaction(0)
    assert bench.types()[-3:] == ["status", "turn_start", "message_start"]
    assert [turn["turn_kind"] for turn in bench.payloads("turn_start")] == ["prompt", "steer"]
    assert all("turn_id" not in status for status in bench.payloads("status"))


def test_nothing_to_compact_lets_the_run_go_on() -> None:
    bench = large().follow_up("more").say().refuse_plan()
    assert codes(bench) == []
    assert bench.types()[-2:] == ["turn_start", "message_start"]
    assert large().say().refuse_plan().payload("agent_end")["status"] == "completed"


def test_the_next_call_is_made_with_the_new_context() -> None:
    bench = large().follow_up("more").say().plan().answer(TextDelta("short")).store_compaction(0)
    assert bench.machine.run.context_digest == "digest"
    bench.store()
    other = large().follow_up("more").say().refuse_plan().store()
    assert bench.asked(CallModel)[-1].digest != other.asked(CallModel)[-1].digest
    assert bench.asked(CallModel)[-1].leaf_id == other.asked(CallModel)[-1].leaf_id == "run-1-m3"


def test_what_the_provider_counted_before_a_compaction_is_forgotten() -> None:
    bench = Bench(make_spec(limits=EngineLimits(compact_at_tokens=1000))).start().follow_up("a", "f1")
    bench.answer(TextDelta("hi"), UsageReport(Usage(input_tokens=5000))).store()
    bench.plan().answer(TextDelta("short")).store_compaction(10)
    bench.steer("wait").store()  # ends the follow-up's turn without an answer
    assert len(bench.asked(PlanCompaction)) == 1
    assert bench.payloads("turn_start")[-1]["turn_kind"] == "steer"


# -- because a call did not fit


def test_an_overflow_is_compacted_and_the_call_made_again() -> None:
    bench = Bench().start().fail_model("context_overflow").plan().answer(TextDelta("short")).store_compaction(5)
    assert [status["turn_id"] for status in bench.payloads("status")] == ["1", "1"]
    assert entry_of(bench).trigger == "overflow"
    assert [call.purpose for call in bench.asked(CallModel)] == ["answer", "compaction", "answer"]
    assert [call.call for call in bench.asked(CallModel)] == [1, 2, 3]
    bench.say("done")
    assert bench.payload("agent_end")["status"] == "completed"
    assert not bench.payloads("error")


def test_a_second_overflow_fails_the_run() -> None:
    bench = Bench().start().fail_model("context_overflow").plan().answer(TextDelta("short")).store_compaction(5)
    bench.fail_model("context_overflow", "still")
    assert (bench.payload("error")["code"], bench.payload("error")["cause"]) == ("context_overflow", "still")


def test_an_overflow_with_nothing_to_compact_fails_the_run() -> None:
    bench = Bench().start().fail_model("context_overflow", "too long").refuse_plan()
    assert bench.payload("error")["cause"] == "too long"
    assert bench.types()[-3:] == ["error", "turn_end", "agent_end"]


def test_an_overflow_inside_an_answer_fails_the_run() -> None:
    bench = Bench().start().produce(TextDelta("half")).fail_model("context_overflow")
    assert bench.asked(PlanCompaction) == []
    assert bench.payload("error")["code"] == "context_overflow"


def test_the_call_that_did_not_fit_does_not_count_towards_the_limit() -> None:
    bench = Bench(make_spec(limits=EngineLimits(max_model_calls=1))).start().fail_model("context_overflow")
    bench.plan().answer(TextDelta("short")).store_compaction(5)
    assert bench.state is Phase.CALLING
    assert bench.say().payload("agent_end")["status"] == "completed"


def test_a_steer_during_it_goes_before_the_call_is_made_again() -> None:
    bench = Bench().start().fail_model("context_overflow").plan().steer("stop").answer(TextDelta("s")).store()
    assert bench.types()[-3:] == ["turn_end", "turn_start", "message_start"]


# -- the summary


@pytest.mark.parametrize("said", [(), (TextDelta(" \n"),), (ThinkingDelta("hm"),), (tool_call("read"),)])
def test_an_empty_summary_falls_back_to_the_plain_one(said: tuple[Any, ...]) -> None:
    entry = entry_of(manual().answer(*said))
    assert (entry.summary, entry.by) == ("the plain summary", "deterministic")


@pytest.mark.parametrize("finish", ["refusal", "tool_use", None])
def test_a_summary_that_did_not_end_well_falls_back(finish: Any) -> None:
    bench = manual().produce(TextDelta("half"))
    entry = entry_of(bench.done() if finish is None else bench.answer(finish=finish))
    assert entry.summary == "the plain summary"


def test_a_summary_cut_by_its_length_falls_back() -> None:
    """It stands for nothing of what came last; the first traces took it all the same."""
    assert entry_of(manual().answer(TextDelta(" most \n"), finish="length")).summary == "most"
    strict = Bench(make_spec(leaf_id="old-7", runs_cut_calls=False)).compact("keep names").plan()
    assert entry_of(strict.answer(TextDelta(" most \n"), finish="length")).summary == "the plain summary"


def test_a_failed_call_falls_back() -> None:
    bench = manual().produce(TextDelta("half"), UsageReport(Usage(input_tokens=7))).fail_model("provider_unavailable")
    assert entry_of(bench).by == "deterministic"
    end: Json = bench.store().payload("agent_end")
    assert (end["status"], end["usage"]["input_tokens"]) == ("completed", 7)


def test_a_plan_without_a_model_makes_no_call() -> None:
    bench = Bench().compact().plan("deterministic")
    assert bench.asked(CallModel) == []
    assert entry_of(bench).summary == "the plain summary"


def test_a_later_report_of_usage_replaces_an_earlier_one() -> None:
    reports = [UsageReport(Usage(input_tokens=n)) for n in (3, 5)]
    bench = manual().answer(TextDelta("short"), *reports).store()
    assert bench.payload("agent_end")["usage"]["input_tokens"] == 5


def test_a_long_summary_is_cut() -> None:
    summary = entry_of(manual().answer(*[TextDelta("x" * 100_000)] * 2)).summary
    assert (len(summary), summary[-4:]) == (MAX_SUMMARY_BYTES, "x...")


@pytest.mark.parametrize("piece", [TextDelta("x" * 60), ThinkingDelta("x" * 60)])
def test_a_summary_without_end_is_stopped(piece: Any) -> None:
    limits = EngineLimits(max_message_bytes=100)
    bench = Bench(make_spec(limits=limits)).compact().plan().produce(piece)
    assert bench.state is Phase.SUMMARISING
    bench.produce(piece, piece)
    assert bench.asked(StopModel) == [StopModel(1)]
    assert entry_of(bench).summary == "the plain summary"


def test_its_text_makes_no_message_and_is_recorded_whole() -> None:
    bench = manual()
    assert not bench.machine.elides([TextDelta("x")])
    bench.produce(TextDelta("x"))
    assert not bench.machine.elides([TextDelta("x")])
    assert bench.types() == ["agent_start", "status"]


def test_news_of_something_else_is_late() -> None:
    bench = Bench().compact()
    bench.give(CompactionRefused("run-1-c2"), CompactionPlanned("run-1-c2", "", 0, "model", ""))
    assert bench.state is Phase.PLANNING
    bench.plan()
    bench.give(ModelProduced(2, [TextDelta("x"), Finish("stop")]), ModelDone(2), ModelFailed(2, "provider_error"))
    assert bench.waiting.call == 1
    assert bench.types()[-1] == "status"


# -- endings


def test_aborted_while_planning_or_summarising() -> None:
    for bench, stopped in ((Bench().compact(), []), (manual(), [StopModel(1)])):
        bench.abort()
        assert bench.payload("agent_end")["status"] == "aborted"
        assert bench.asked(StopModel) == stopped


def test_aborted_while_it_is_stored() -> None:
    bench = manual().answer(TextDelta("short")).abort()
    assert len(bench.asked(StartTimer)) == 1
    bench.store()
    assert codes(bench) == [START, END]
    assert bench.payload("agent_end")["status"] == "aborted"


def test_aborted_while_it_is_stored_for_too_long() -> None:
    bench = manual().answer(TextDelta("short")).abort().fire()
    assert bench.types()[-1] == "agent_end"
    assert bench.machine.run.compaction is None


@pytest.mark.parametrize("start", [manual, lambda: large().say().plan()])
def test_one_that_cannot_be_stored_fails_the_run(start: Any) -> None:
    bench = start().answer(TextDelta("short")).fail_store()
    assert bench.types()[-2:] == ["error", "agent_end"]
    assert "turn_id" not in bench.payload("error")
    assert bench.machine.run.compaction is None
