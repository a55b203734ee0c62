"""Structured output: one answer, checked from outside, and the run is what came of it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from nous.engine.effects import CallModel, CheckOutput, PlanCompaction
from nous.engine.inputs import OutputChecked, ToolsSet
from nous.engine.output import compact_json
from nous.engine.spec import EngineLimits
from nous.engine.transitions import Phase
from nous.ports.model import TextDelta
from tests.support.engine import Bench, make_spec, tool_call

SCHEMA = {"type": "object"}


def structured(**changes: Any) -> Bench:
    return Bench(make_spec(**({"output_schema": SCHEMA, "active_tools": ()} | changes))).start()


def test_an_answer_that_fits_is_the_output() -> None:
    bench = structured().say('{\n  "a": [1.50, "\u2028 x"]\n}')
    [asked] = bench.asked(CheckOutput)
    assert (asked.entry_id, asked.text) == (bench.stored[-1].id, bench.stored[-1].text)
    assert bench.state is Phase.CHECKING_OUTPUT
    bench.check_output()
    end = bench.payload("agent_end")
    assert (end["status"], end["output"]) == ("completed", {"a": [1.5, "\u2028 x"]})
    assert b'"output":{"a":[1.50,"\xe2\x80\xa8 x"]}' in bench.lines()[-1]
    assert bench.types()[-3:] == ["message_end", "turn_end", "agent_end"]


def test_null_is_an_output_too() -> None:
    assert structured().say("null").check_output().payload("agent_end")["output"] is None


def test_an_answer_that_does_not_fit_fails_the_run_and_is_asked_for_only_once() -> None:
    bench = structured().say("{}").check_output("$.name: missing")
    error, end = bench.payload("error"), bench.payload("agent_end")
    assert (error["code"], error["category"], error["cause"]) == (
        "output_invalid",
        "verification_failed",
        "$.name: missing",
    )
    assert (end["status"], "output" in end) == ("failed", False)
    assert len(bench.asked(CallModel)) == 1
    assert end["leaf_id"] == bench.stored[-1].id


def test_news_of_another_entry_is_late() -> None:
    bench = structured().say("{}")
    bench.give(OutputChecked("run-1-m1"), OutputChecked("", "$: no"))
    assert bench.state is Phase.CHECKING_OUTPUT


def test_a_tool_call_is_a_hard_failure() -> None:
    bench = structured().answer(TextDelta("{}"), tool_call("read"))
    assert bench.payload("error")["cause"] == "$: the model called the tool 'read', and tools are off"
    assert bench.payload("agent_end")["status"] == "failed"
    assert [m.role for m in bench.stored] == ["user"]


def test_tools_cannot_be_switched_on_meanwhile() -> None:
    bench = structured()
    bench.give(ToolsSet(("read",)))
    assert bench.machine.run.active_tools == ()
    allowed = structured(output_tools=True)
    allowed.give(ToolsSet(("read",)))
    assert allowed.machine.run.active_tools == ("read",)


def test_tools_on_the_way_where_the_spec_allows_them() -> None:
    bench = structured(output_tools=True, active_tools=("read",)).call_tools(tool_call("read")).run_tool()
    assert bench.say("[]").check_output().payload("agent_end")["output"] == []


def test_nothing_that_is_queued_makes_another_turn() -> None:
    bench = structured().follow_up("and then").say("{}").steer("no, wait").check_output()
    end = bench.payload("agent_end")
    assert (end["status"], len(end["discarded"]), bench.types().count("turn_start")) == ("completed", 2, 1)


def test_nothing_is_compacted_for_it() -> None:
    full = structured().fail_model("context_overflow")
    assert (full.payload("error")["code"], full.asked(PlanCompaction)) == ("context_overflow", [])
    large = structured(limits=EngineLimits(compact_at_tokens=1)).say("{}").check_output()
    assert (large.payload("agent_end")["status"], large.asked(PlanCompaction)) == ("completed", [])


def test_a_call_that_does_not_come_through_is_not_made_again() -> None:
    limits = EngineLimits(max_retries=2)
    alone = structured(limits=limits).fail_model("provider_unavailable")
    assert (alone.payload("error")["code"], len(alone.asked(CallModel))) == ("provider_unavailable", 1)
    with_tools = structured(limits=limits, output_tools=True).fail_model("provider_unavailable")
    assert with_tools.state is Phase.AWAITING_RETRY


def test_an_abort_while_it_is_checked() -> None:
    bench = structured().say("{}").abort()
    assert (bench.payload("agent_end")["status"], "output" in bench.payload("agent_end")) == ("aborted", False)


def test_an_output_too_long_for_an_event_is_measured() -> None:
    bench = structured(limits=EngineLimits(inline_text_bytes=16)).say('{"a": "0123456789"}').check_output()
    end = bench.payload("agent_end")
    assert ("output" in end, end["output_bytes"], end["output_omitted"]) == (False, 18, True)


def test_the_schema_is_part_of_what_the_model_is_asked_with() -> None:
    digests = {
        Bench(make_spec(output_schema=schema)).start().asked(CallModel)[0].digest
        for schema in (None, SCHEMA, {"type": "array"}, {})
    }
    assert len(digests) == 4


@pytest.mark.parametrize("text", ["", "{", "\ud800", "[" * 100_000, "```json\n{}\n```"])
def test_what_is_no_json_is_never_an_output(text: str) -> None:
    assert compact_json(text) is UNSET


@pytest.mark.parametrize("finish", ["length", "other"])
def test_a_cut_answer_fits_no_schema(finish: Any) -> None:
    """Half a number is a number."""
    bench = Bench(make_spec(output_schema={"type": "integer"}, active_tools=(), runs_cut_calls=False)).start()
    bench.answer(TextDelta("12"), finish=finish).store()
    assert (bench.payload("error")["code"], bench.payload("agent_end")["status"]) == ("output_invalid", "failed")
