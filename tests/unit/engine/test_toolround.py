"""The tool calls of an answer: asked about, run in order, refused in a way the model can read."""

from __future__ import annotations

import pytest

from nous.engine.effects import AskPolicy, RunTool
from nous.engine.inputs import PolicyAnswered, ToolDone, ToolProgressed, ToolsSet
from nous.engine.spec import EngineLimits
from nous.engine.transitions import Phase
from nous.ports.model import Finish
from nous.ports.tool import Outcome
from nous.protocol.messages import ToolResultBlock
from tests.support.engine import Bench, Json, make_spec, tool_call


def result_of(bench: Bench) -> ToolResultBlock:
    [block] = bench.stored[-1].blocks
    assert isinstance(block, ToolResultBlock)
    return block


def refused(arguments: str = "{}", name: str = "read") -> Bench:
    return Bench().start().call_tools(tool_call(name, arguments)).store()


def test_a_tool_runs_after_its_message_ended_and_was_asked_about() -> None:
    bench = Bench().start().call_tools(tool_call("read", '{"path":"a"}'))
    assert bench.types()[-1] == "message_end"
    assert bench.asked(AskPolicy) == [AskPolicy("t0", "read", {"path": "a"})]
    assert bench.asked(RunTool) == []
    bench.allow()
    assert bench.asked(RunTool) == [RunTool("t0", "read", {"path": "a"})]
    bench.progress("1\n").progress("2\n").finish_tool("1\n2\n", truncated=True)
    assert "tool_execution_end" not in bench.types()  # not before its entry is stored
    bench.store()
    turn = {"run_id": "run-1", "turn_id": "1", "tool_call_id": "t0", "tool_name": "read"}
    assert bench.payload("tool_execution_start") == {**turn, "arguments": {"path": "a"}}
    assert bench.payloads("tool_execution_update") == [{**turn, "delta": "1\n"}, {**turn, "delta": "2\n"}]
    end = bench.payload("tool_execution_end")
    assert end.pop("duration_ms") >= 0
    assert end == {**turn, "result": "1\n2\n", "is_error": False, "truncated": True, "message_id": "run-1-m3"}
    assert result_of(bench) == ToolResultBlock("t0", "read", "1\n2\n", is_error=False)


def test_tools_of_one_message_run_in_the_order_of_their_index() -> None:
    bench = Bench().start()
    bench.call_tools(tool_call("write", index=5), tool_call("read", index=2), tool_call("read", index=3))
    bench.run_tool().run_tool().run_tool().say()
    started = [(e["tool_name"], e["tool_call_id"]) for e in bench.payloads("tool_execution_start")]
    assert started == [("read", "t2"), ("read", "t3"), ("write", "t5")]
    order = [t for t in bench.types() if t.startswith("tool_execution")]
    assert order == ["tool_execution_start", "tool_execution_end"] * 3


def test_the_duration_of_a_tool_is_from_its_start_to_its_stored_result() -> None:
    bench = Bench().start().call_tools(tool_call("read")).allow().progress("x").progress("y").finish_tool().store()
    assert bench.payload("tool_execution_end")["duration_ms"] == 6  # four inputs, 1.5 ms each


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("error", "tool_execution_error"),
        ("crashed", "tool_execution_error"),
        ("not_found", "tool_not_found"),
        ("not_active", "tool_not_active"),
        ("invalid_arguments", "tool_validation_error"),
        ("blocked", "tool_blocked"),
    ],
)
def test_a_tool_that_failed_warns_and_the_run_goes_on(outcome: Outcome, code: str) -> None:
    bench = Bench().start().call_tools(tool_call("read")).allow().finish_tool("no", outcome).store()
    warning = bench.payload("warning")
    assert (warning["code"], warning["tool_call_id"], warning["tool_name"]) == (code, "t0", "read")
    assert warning["turn_id"] == "1"
    assert bench.payload("tool_execution_end")["is_error"] is True
    assert result_of(bench) == ToolResultBlock("t0", "read", "no", is_error=True)
    assert bench.state is Phase.CALLING


# -- calls that cannot run


def check_refusal(bench: Bench, code: str, arguments: object) -> Json:
    """Check the events and the entry of a call that was refused; return its end."""
    assert bench.types()[-3:] == ["tool_execution_start", "warning", "tool_execution_end"]
    assert bench.payload("tool_execution_start")["arguments"] == arguments
    assert bench.payload("warning")["code"] == code
    assert bench.asked(RunTool) == []
    end = bench.payload("tool_execution_end")
    assert (end["is_error"], end["truncated"], end["message_id"]) == (True, False, "run-1-m3")
    assert result_of(bench).text == end["result"]
    assert bench.state is Phase.CALLING
    return end


def test_a_tool_that_does_not_exist() -> None:
    assert "'nothing'" in check_refusal(refused(name="nothing"), "tool_not_found", {})["result"]


def test_a_call_without_a_name() -> None:
    check_refusal(refused(name=""), "tool_not_found", {})


def test_a_tool_that_is_not_active() -> None:
    assert "'idle'" in check_refusal(refused(name="idle"), "tool_not_active", {})["result"]


def test_a_tool_that_was_switched_off_after_it_was_asked_for() -> None:
    bench = Bench().start()
    bench.give(ToolsSet(("read",)))
    bench.call_tools(tool_call("write")).store()
    check_refusal(bench, "tool_not_active", {})


def test_a_tool_that_was_switched_on_after_the_model_was_called() -> None:
    bench = Bench().start()
    bench.give(ToolsSet(("idle",)))
    bench.call_tools(tool_call("idle")).run_tool()
    assert bench.payload("tool_execution_end")["is_error"] is False


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "null", '"x"', "1", "{} {}", "{'a':1}", '{"a":NaN}', '{"a":1e999}', '{"a":"\\ud800"}', "[" * 100_000],
)
def test_arguments_that_are_not_an_object(text: str) -> None:
    bench = Bench().start().call_tools(tool_call("read", text)).store()
    assert bench.asked(AskPolicy) == []
    check_refusal(bench, "tool_validation_error", text)


def test_arguments_cut_off_by_the_length_of_the_answer() -> None:
    bench = Bench().start().answer(tool_call("read", '{"path":"a'), finish="length").store().store()
    check_refusal(bench, "tool_validation_error", '{"path":"a')


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_no_arguments_at_all_are_none(text: str) -> None:
    assert Bench().start().call_tools(tool_call("read", text)).asked(AskPolicy) == [AskPolicy("t0", "read", {})]


@pytest.mark.parametrize(
    ("reason", "text"), [("no writing here", "Blocked: no writing here"), (None, "Blocked by policy.")]
)
def test_a_call_that_the_policy_denies(reason: str | None, text: str) -> None:
    bench = Bench().start().call_tools(tool_call("read", '{"path":"a"}')).allow(allow=False, reason=reason).store()
    assert check_refusal(bench, "tool_blocked", {"path": "a"})["result"] == text


def test_a_denied_call_does_not_keep_the_next_from_running() -> None:
    bench = Bench().start().call_tools(tool_call("read"), tool_call("write", index=1))
    bench.allow(allow=False).store().run_tool("written")
    results = [(e["tool_call_id"], e["result"]) for e in bench.payloads("tool_execution_end")]
    assert results == [("t0", "Blocked by policy."), ("t1", "written")]


def test_news_of_another_call_is_late() -> None:
    bench = Bench().start().call_tools(tool_call("read"))
    bench.give(PolicyAnswered("t1", allow=True), ToolDone("t0", "early", "ok", truncated=False))
    assert bench.state is Phase.ASKING
    bench.allow()
    count = len(bench.events)
    bench.give(ToolProgressed("t1", "x"), ToolDone("t1", "x", "ok", truncated=False), PolicyAnswered("t0", allow=False))
    assert (bench.state, len(bench.events)) == (Phase.RUNNING_TOOL, count)


# -- output that was not streamed


def test_a_result_that_was_not_streamed_is_shown_in_an_update_before_the_end() -> None:
    bench = Bench(make_spec(shows_tool_output=True)).start()
    bench.call_tools(tool_call("read"), tool_call("write", index=1), tool_call("fly", index=2)).run_tool("lines")
    bench.allow()
    bench.give(ToolProgressed("t1", "said"), ToolDone("t1", "all of it", "ok", truncated=False))
    bench.store().store()
    shown = [(e["tool_call_id"], e["delta"]) for e in bench.payloads("tool_execution_update")]
    assert shown == [("t0", "lines"), ("t1", "said"), ("t2", "There is no tool named 'fly'.")]
    order = [t for t in bench.types() if t.startswith("tool_execution")]
    assert order == ["tool_execution_start", "tool_execution_update", "tool_execution_end"] * 3


def test_a_tool_that_said_nothing_shows_nothing() -> None:
    bench = Bench(make_spec(shows_tool_output=True)).start().call_tools(tool_call("read")).run_tool("")
    assert bench.payloads("tool_execution_update") == []


def test_the_result_that_an_update_shows_is_cut() -> None:
    spec = make_spec(shows_tool_output=True, limits=EngineLimits(inline_text_bytes=600))
    bench = Bench(spec).start().call_tools(tool_call("read")).run_tool("\u0001" * 150)
    assert bench.payload("tool_execution_update")["delta"] == "\u0001" * 97 + "..."


# -- long ones


def test_long_arguments_and_results_are_only_measured() -> None:
    bench = Bench(make_spec(limits=EngineLimits(inline_text_bytes=100))).start()
    arguments = '{"text":"' + "\u00e9" * 60 + '"}'
    bench.call_tools(tool_call("read", arguments)).run_tool("\u00e9" * 60)
    start, end = bench.payload("tool_execution_start"), bench.payload("tool_execution_end")
    assert "arguments" not in start
    assert (start["arguments_bytes"], start["arguments_omitted"]) == (len(arguments.encode()), True)
    assert (end["result"], end["result_bytes"], end["result_omitted"]) == ("", 120, True)
    assert result_of(bench).text == "\u00e9" * 60
    assert bench.asked(RunTool)[0].arguments == {"text": "\u00e9" * 60}


def test_a_long_name_is_cut_in_events_only() -> None:
    name, shown = "n" * 300, "n" * 253 + "..."
    for bench in (Bench().start(), Bench().start().steer("wait")):
        bench.call_tools(tool_call(name)).store()
        events = bench.payloads("tool_execution_start", "tool_execution_end", "warning")
        assert [e["tool_name"] for e in events] == [shown] * 3
        assert result_of(bench).tool_name == name
        assert len(result_of(bench).text) < 300


@pytest.mark.parametrize(
    ("finish", "shown", "words"),
    [
        (Finish("length"), {"stop_reason": "length"}, "cut by the limit of output tokens"),
        (Finish("other", "pause_turn"), {"stop_reason": "other", "finish_reason": "pause_turn"}, "'pause_turn'"),
    ],
)
@pytest.mark.parametrize("arguments", ["", "{}", '{"path":"a"}', '{"path":"a'])
def test_no_call_of_a_cut_answer_is_run(finish: Finish, shown: dict[str, str], words: str, arguments: str) -> None:
    bench = Bench(make_spec(runs_cut_calls=False)).start()
    bench.produce(tool_call("read", arguments), tool_call("write", arguments, index=1), finish).done()
    bench.store().store().store()
    end = bench.payloads("message_end")[-1]
    assert {name: end[name] for name in shown} == shown
    assert bench.asked(AskPolicy) == bench.asked(RunTool) == []
    assert [w["code"] for w in bench.payloads("warning")] == ["tool_execution_skipped"] * 2
    assert [(e["is_error"], words in e["result"]) for e in bench.payloads("tool_execution_end")] == [(True, True)] * 2
    bench.say()
    assert bench.payload("agent_end")["stop_reason"] == "stop"
