"""Abort, in every state: what is stopped, what is closed, what is handed back (protocol v1, section 4)."""

from __future__ import annotations

import pytest

from nous.engine.effects import RunTool, StartTimer, StopModel, StopTool
from nous.engine.inputs import AbortRequested, ModelDone, ModelProduced, RunStarted, TimerFired, ToolDone
from nous.engine.transitions import Phase
from nous.ports.model import Finish, TextDelta, UsageReport
from nous.protocol.messages import Usage
from tests.support.engine import Bench, tool_call

END = ["turn_end", "agent_end"]


def aborted(bench: Bench) -> bool:
    end = bench.payload("agent_end")
    return bool((end["status"], end["stop_reason"]) == ("aborted", "aborted"))


def test_while_the_prompt_is_stored() -> None:
    bench = Bench()
    bench.give(RunStarted("c1", "hello"))
    bench.abort()
    assert (bench.state, bench.machine.run.aborting) == (Phase.STORING_INPUT, True)
    bench.store()
    assert bench.types()[-3:] == ["message_end", *END]
    assert "stop_reason" not in bench.payload("message_end")
    assert bench.payload("agent_end")["leaf_id"] == "run-1-m1"
    assert aborted(bench)


def test_while_the_prompt_is_stored_for_too_long() -> None:
    bench = Bench()
    bench.give(RunStarted("c1", "hello"))
    bench.abort().fire()
    assert bench.types()[-3:] == ["message_end", *END]
    message = bench.payload("message_end")
    assert (message["text"], message["stop_reason"]) == ("hello", "aborted")
    assert bench.payload("agent_end")["leaf_id"] == ""
    assert aborted(bench)


def test_before_the_first_delta() -> None:
    bench = Bench().start().abort()
    assert bench.types()[-3:] == ["warning", *END]
    assert bench.payload("warning")["code"] == "provider_aborted"
    assert bench.asked(StopModel) == [StopModel(1)]
    assert bench.asked(StartTimer) == []
    assert aborted(bench)


def test_in_the_middle_of_an_answer() -> None:
    usage = Usage(input_tokens=3)
    bench = Bench().start().produce(TextDelta("half "), TextDelta("a wo"), UsageReport(usage)).abort()
    assert bench.types()[-4:] == ["warning", "message_end", *END]
    message = bench.payloads("message_end")[-1]
    assert (message["text"], message["stop_reason"]) == ("half a wo", "aborted")
    assert bench.payload("agent_end")["leaf_id"] == "run-1-m1"
    assert bench.payload("agent_end")["usage"]["input_tokens"] == 3
    assert aborted(bench)


def test_what_the_model_still_says_is_late() -> None:
    bench = Bench().start().produce(TextDelta("half")).abort()
    count = len(bench.events)
    bench.give(ModelProduced(1, [TextDelta("more"), Finish("stop")]), ModelDone(1))
    assert len(bench.events) == count


@pytest.mark.parametrize("calls", [0, 1])
def test_while_an_answer_is_stored(calls: int) -> None:
    bench = Bench().start().answer(TextDelta("hi"), *[tool_call("read")] * calls).abort()
    assert not bench.machine.ended
    bench.store()
    assert bench.types()[-3:] == ["message_end", *END]
    message = bench.payloads("message_end")[-1]
    assert (message["text"], message["stop_reason"]) == ("hi", "tool_use" if calls else "stop")
    assert bench.payload("agent_end")["leaf_id"] == "run-1-m2"
    assert aborted(bench)


def test_while_an_answer_is_stored_for_too_long() -> None:
    bench = Bench().start().answer(TextDelta("hi")).abort().fire()
    message = bench.payloads("message_end")[-1]
    assert (message["text"], message["stop_reason"]) == ("hi", "aborted")
    assert bench.payload("agent_end")["leaf_id"] == "run-1-m1"
    assert aborted(bench)


def test_while_a_tool_is_asked_about() -> None:
    bench = Bench().start().call_tools(tool_call("read"), tool_call("write", index=1)).abort()
    assert bench.types()[-3:] == ["message_end", *END]
    assert bench.asked(RunTool) == []
    assert aborted(bench)


def test_while_a_tool_runs() -> None:
    bench = Bench().start().call_tools(tool_call("read"), tool_call("write", index=1)).allow().abort()
    assert bench.state is Phase.STOPPING_TOOL
    assert bench.asked(StopTool) == [StopTool("t0")]
    assert bench.asked(StartTimer) == [StartTimer("abort_grace", 2000)]
    bench.progress("last words").finish_tool("The tool call was aborted.", "error").store()
    assert bench.types()[-4:] == ["tool_execution_update", "tool_execution_end", *END]
    end = bench.payload("tool_execution_end")
    assert (end["tool_call_id"], end["is_error"], end["message_id"]) == ("t0", True, "run-1-m3")
    assert not bench.payloads("warning")
    assert aborted(bench)


def test_a_tool_that_does_not_stop_in_time() -> None:
    bench = Bench().start().call_tools(tool_call("read")).allow().abort().fire()
    assert bench.types()[-3:] == ["tool_execution_end", *END]
    end = bench.payload("tool_execution_end")
    assert end["result"] == "The tool did not stop in time; the run was aborted."
    assert (end["is_error"], end["truncated"], "message_id" in end) == (True, False, False)
    assert bench.payload("agent_end")["leaf_id"] == "run-1-m2"
    count = len(bench.events)
    bench.give(ToolDone("t0", "too late", "ok", truncated=False))
    assert len(bench.events) == count
    assert aborted(bench)


def test_while_a_result_is_stored() -> None:
    bench = Bench().start().call_tools(tool_call("read"), tool_call("write", index=1)).allow().finish_tool("fine")
    bench.abort().store()
    end = bench.payload("tool_execution_end")
    assert (end["result"], end["is_error"], end["message_id"]) == ("fine", False, "run-1-m3")
    assert bench.types()[-3:] == ["tool_execution_end", *END]
    assert aborted(bench)


def test_while_a_result_is_stored_for_too_long() -> None:
    bench = Bench().start().call_tools(tool_call("read")).allow().finish_tool("fine").abort().fire()
    end = bench.payload("tool_execution_end")
    assert (end["result"], end["is_error"], "message_id" in end) == ("fine", True, False)
    assert aborted(bench)


def test_a_store_that_fails_during_an_abort_fails_the_run() -> None:
    bench = Bench().start().answer(TextDelta("hi")).abort().fail_store()
    assert bench.payload("agent_end")["status"] == "failed"
    assert bench.payload("error")["code"] == "io_failure"


def test_aborting_twice_is_aborting_once() -> None:
    bench = Bench().start().call_tools(tool_call("read")).allow().abort()
    bench.give(AbortRequested("a2", "signal"))
    assert len(bench.asked(StartTimer)) == len(bench.asked(StopTool)) == 1


def test_both_queues_are_handed_back_with_what_came_while_aborting() -> None:
    bench = Bench().start().call_tools(tool_call("read")).allow()
    bench.follow_up("f one", "f1").steer("s one", "s1").abort().steer("s two", "s2").finish_tool().store()
    assert bench.payload("agent_end")["discarded"] == [
        {"command_id": "s1", "kind": "steer", "text": "s one"},
        {"command_id": "s2", "kind": "steer", "text": "s two"},
        {"command_id": "f1", "kind": "follow_up", "text": "f one"},
    ]
    assert bench.types().count("turn_start") == 1


def test_a_timer_without_an_abort_means_nothing() -> None:
    bench = Bench().start().answer(TextDelta("hi"))
    bench.give(TimerFired("abort_grace"))
    assert bench.state is Phase.STORING_ANSWER
    assert bench.store().payload("agent_end")["status"] == "completed"
