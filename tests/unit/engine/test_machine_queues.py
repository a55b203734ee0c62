"""Steers and follow-ups: when they are looked for, in which order, one at a time or all (protocol v1, section 4)."""

from __future__ import annotations

import pytest

from nous.engine.effects import AppendEntry, CallModel
from nous.engine.inputs import FollowedUp, FollowUpModeSet, RunStarted, Steered, SteeringModeSet
from nous.ports.model import TextDelta
from tests.support.engine import Bench, make_spec, tool_call

SKIPPED = "Skipped due to queued user message."


def turns(bench: Bench) -> list[tuple[str, str, str]]:
    """Return kind, command ids and text of every turn that began."""
    asked = [effect.message.text for effect in bench.asked(AppendEntry) if effect.message.role == "user"]
    starts = bench.payloads("turn_start")
    ids = [",".join(start.get("command_ids", [start["command_id"]])) for start in starts]
    return [(s["turn_kind"], i, text) for s, i, text in zip(starts, ids, asked, strict=True)]


def test_a_follow_up_is_the_next_turn_of_the_same_run() -> None:
    bench = Bench().start().follow_up("and then?").say("first").store().say("second")
    assert turns(bench) == [("prompt", "c1", "hello"), ("follow_up", "f1", "and then?")]
    assert [t["turn_id"] for t in bench.payloads("turn_start", "turn_end")] == ["1", "1", "2", "2"]
    assert bench.types().count("agent_end") == 1
    assert bench.stored[2].turn_kind == "follow_up"


def test_a_steer_after_an_answer_is_the_next_turn() -> None:
    bench = Bench().start().answer(TextDelta("hi")).steer("wait").store()
    assert bench.types()[-4:] == ["message_end", "turn_end", "turn_start", "message_start"]
    assert turns(bench.store().say()) == [("prompt", "c1", "hello"), ("steer", "s1", "wait")]


def test_a_steer_before_the_first_model_call_ends_that_turn_without_an_answer() -> None:
    bench = Bench()
    bench.give(RunStarted("c1", "hello"), Steered("s1", "no, this"))
    bench.store()
    assert bench.asked(CallModel) == []
    assert bench.types()[-4:] == ["message_end", "turn_end", "turn_start", "message_start"]
    bench.store().say()
    assert len(bench.asked(CallModel)) == 1
    assert turns(bench) == [("prompt", "c1", "hello"), ("steer", "s1", "no, this")]


def test_a_follow_up_before_the_first_model_call_waits_for_the_answer() -> None:
    bench = Bench()
    bench.give(RunStarted("c1", "hello"), FollowedUp("f1", "later"))
    bench.store()
    assert len(bench.asked(CallModel)) == 1


def test_a_steer_while_the_model_talks_waits_for_the_end_of_its_answer() -> None:
    bench = Bench().start().produce(TextDelta("one ")).steer("wait").answer(TextDelta("two")).store()
    assert bench.payloads("message_end")[1]["text"] == "one two"
    assert bench.types()[-3:] == ["turn_end", "turn_start", "message_start"]


def test_a_steer_while_the_model_asks_for_tools_skips_them_all() -> None:
    bench = Bench().start().steer("wait").call_tools(tool_call("read"), tool_call("nothing", index=1))
    bench.store().store()
    skipped = ["warning", "tool_execution_start", "tool_execution_end"]
    assert bench.types()[-9:] == [*skipped, *skipped, "turn_end", "turn_start", "message_start"]
    assert {w["code"] for w in bench.payloads("warning")} == {"tool_execution_skipped"}
    assert [w["tool_call_id"] for w in bench.payloads("warning")] == ["t0", "t1"]
    ends = bench.payloads("tool_execution_end")
    assert [(e["result"], e["is_error"], e["truncated"]) for e in ends] == [(SKIPPED, True, False)] * 2


@pytest.mark.parametrize("moment", ["asking", "running", "storing"])
def test_a_steer_during_a_tool_lets_it_end_and_skips_the_rest(moment: str) -> None:
    bench = Bench().start().call_tools(*[tool_call("read", index=n) for n in range(3)])
    if moment == "asking":
        bench.steer("wait").allow().finish_tool("done").store()
    elif moment == "running":
        bench.allow().steer("wait").finish_tool("done").store()
    else:
        bench.allow().finish_tool("done").steer("wait").store()
    bench.store().store()
    results = [(e["tool_call_id"], e["result"], e["is_error"]) for e in bench.payloads("tool_execution_end")]
    assert results == [("t0", "done", False), ("t1", SKIPPED, True), ("t2", SKIPPED, True)]
    warned = [(w["code"], w["tool_call_id"], w["tool_name"]) for w in bench.payloads("warning")]
    assert warned == [("tool_execution_skipped", "t1", "read"), ("tool_execution_skipped", "t2", "read")]
    stored = [(b.tool_call_id, b.text, b.is_error) for m in bench.stored[2:] for b in m.blocks]  # type: ignore[union-attr]
    assert stored == results
    assert bench.types()[-3:] == ["turn_end", "turn_start", "message_start"]


def test_a_steer_during_the_last_tool_comes_before_the_next_model_call() -> None:
    bench = Bench().start().call_tools(tool_call("read")).allow().steer("wait").finish_tool().store()
    assert len(bench.asked(CallModel)) == 1
    assert bench.types()[-3:] == ["turn_end", "turn_start", "message_start"]
    assert not bench.payloads("warning")


def test_a_follow_up_during_tools_skips_nothing() -> None:
    bench = Bench().start().call_tools(tool_call("read"), tool_call("write", index=1)).follow_up("later")
    bench.run_tool().run_tool().say()
    assert not bench.payloads("warning")
    assert turns(bench)[-1] == ("follow_up", "f1", "later")


def test_steers_are_taken_before_follow_ups_and_each_kind_in_order() -> None:
    bench = Bench().start()
    bench.follow_up("f-one", "f1").steer("s-one", "s1").follow_up("f-two", "f2").steer("s-two", "s2")
    bench.run_to_end()
    assert [t[1] for t in turns(bench)] == ["c1", "s1", "s2", "f1", "f2"]
    assert bench.payload("agent_end")["discarded"] == []


@pytest.mark.parametrize("kind", ["steer", "follow_up"])
@pytest.mark.parametrize("when", ["from the start", "mid-run"])
def test_mode_all_makes_everything_queued_one_turn(kind: str, when: str) -> None:
    mode = {"steer": "steering_mode", "follow_up": "follow_up_mode"}[kind]
    bench = Bench(make_spec(**{mode: "all"} if when == "from the start" else {})).start()
    for n in (1, 2):
        bench.give(Steered(f"k{n}", f"text {n}") if kind == "steer" else FollowedUp(f"k{n}", f"text {n}"))
    if when == "mid-run":
        bench.give(SteeringModeSet("all") if kind == "steer" else FollowUpModeSet("all"))
    bench.run_to_end()
    assert turns(bench)[1:] == [(kind, "k1,k2", "text 1\ntext 2")]
    start = bench.payloads("turn_start")[1]
    assert (start["command_id"], start["command_ids"]) == ("k1", ["k1", "k2"])
    assert bench.payloads("turn_end")[1] == start


def test_mode_all_joins_one_kind_only() -> None:
    bench = Bench(make_spec(steering_mode="all", follow_up_mode="all")).start()
    bench.follow_up("f").steer("s").run_to_end()
    assert [t[0] for t in turns(bench)] == ["prompt", "steer", "follow_up"]
    assert all("command_ids" not in start for start in bench.payloads("turn_start"))


def test_a_mode_counts_when_the_queue_is_taken_from() -> None:
    bench = Bench(make_spec(follow_up_mode="all")).start().follow_up("a", "k1").follow_up("b", "k2")
    bench.give(FollowUpModeSet("one-at-a-time"))
    bench.run_to_end()
    assert [t[1] for t in turns(bench)] == ["c1", "k1", "k2"]


def test_what_arrives_while_an_input_is_stored_waits_its_turn() -> None:
    bench = Bench(make_spec(steering_mode="all")).start().steer("a", "k1").say()
    bench.steer("b", "k2").run_to_end()
    assert [t[1] for t in turns(bench)] == ["c1", "k1", "k2"]
    assert "" not in [t[2] for t in turns(bench)]
