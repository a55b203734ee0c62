"""A run from its prompt to its end: events, entries, effects, failures (protocol v1, sections 3 to 5)."""

from __future__ import annotations

import json

import pytest

from nous.engine.effects import AppendEntry, CallModel
from nous.engine.inputs import EntryFailed, EntryStored, Input, ModelDone, ModelProduced, RunStarted, Stamp, ToolsSet
from nous.engine.machine import RunMachine
from nous.engine.spec import EngineLimits, chain_digest, request_digest
from nous.errors import WIRE_CODES
from nous.ports.model import Finish, TextDelta, UsageReport
from nous.protocol.messages import Usage
from tests.support.engine import Bench, make_spec, make_stamp, tool_call, types_of

PROMPT = ["agent_start", "turn_start", "message_start", "message_end"]
END = ["turn_end", "agent_end"]


def test_a_prompt_with_a_plain_answer() -> None:
    bench = Bench().start("hello").say("hi there")
    assert bench.types() == [*PROMPT, "message_start", "message_update", "message_end", *END]
    start, turn = bench.payload("agent_start"), bench.payload("turn_start")
    assert start == {
        "run_id": "run-1",
        "session_id": "session-1",
        "leaf_id": "",
        "provider": "mock",
        "model": "mock-1",
    }
    assert turn == {"run_id": "run-1", "turn_id": "1", "turn_kind": "prompt", "command_id": "c1"}
    assert bench.payload("turn_end") == turn
    user, assistant = bench.payloads("message_end")
    assert user == {"run_id": "run-1", "turn_id": "1", "message_id": "run-1-m1", "role": "user", "text": "hello"}
    assert (assistant["role"], assistant["text"], assistant["stop_reason"]) == ("assistant", "hi there", "stop")
    end = bench.payload("agent_end")
    assert (end["status"], end["stop_reason"], end["leaf_id"]) == ("completed", "stop", assistant["message_id"])
    assert end["discarded"] == []
    assert bench.machine.status == "completed"
    assert bench.machine.failure is None


def test_event_envelopes() -> None:
    bench = Bench().start().say()
    first = bench.events[0].line
    assert first.startswith(b'{"v":"1","id":"run-1.1","type":"agent_start","seq":1,"ts":"2026-01-02T03:00:00.000Z",')
    assert [json.loads(line)["seq"] for line in bench.lines()] == list(range(1, 10))
    assert all(line.endswith(b"}}\n") and line.count(b"\n") == 1 for line in bench.lines())


def test_events_carry_the_time_of_the_input_that_caused_them() -> None:
    bench = Bench()
    bench.step(Stamp("2026-01-02T03:04:05.678Z", 0), RunStarted("c1", "hello"))
    bench.step(Stamp("2026-01-02T03:04:06.000Z", 5), EntryStored("run-1-m1"))
    times = [event["ts"][-7:] for event in bench.decoded()]
    assert times == ["05.678Z", "05.678Z", "05.678Z", "06.000Z"]


def test_the_duration_is_of_the_monotonic_clock() -> None:
    bench = Bench()
    stamps = [Stamp("2026-01-02T03:04:05.000Z", ns * 1_000_000) for ns in (7_000, 7_100, 7_200, 7_300, 8_234)]
    said = ModelProduced(1, [TextDelta("hi"), Finish("stop")])
    inputs: list[Input] = [RunStarted("c1", "x"), EntryStored("run-1-m1"), said, ModelDone(1), EntryStored("run-1-m2")]
    for stamp, item in zip(stamps, inputs, strict=True):
        bench.step(stamp, item)
    assert bench.payload("agent_end")["duration_ms"] == 1234


def test_an_entry_is_announced_only_once_it_is_stored() -> None:
    bench = Bench()
    bench.give(RunStarted("c1", "hello"))
    assert bench.types() == PROMPT[:-1]
    bench.store().answer(TextDelta("hi"))
    assert bench.types() == [*PROMPT, "message_start", "message_update"]
    assert bench.store().types()[-3:] == ["message_end", *END]


def test_entries_hang_in_one_chain_from_the_leaf() -> None:
    bench = Bench(make_spec(leaf_id="old-7")).start("hello").call_tools(tool_call("read")).run_tool().say()
    entries = [effect.message for effect in bench.asked(AppendEntry)]
    assert [(m.role, m.parent_id) for m in entries] == [
        ("user", "old-7"),
        ("assistant", "run-1-m1"),
        ("tool_result", "run-1-m2"),
        ("assistant", "run-1-m3"),
    ]
    assert {m.run_id for m in entries} == {"run-1"}
    assert [m.turn_kind for m in entries] == ["prompt", None, None, None]
    assert [m.created_at for m in entries][:1] == [make_stamp(0).ts]
    assert bench.payload("agent_start")["leaf_id"] == "old-7"
    assert bench.payload("agent_end")["leaf_id"] == entries[-1].id == "run-1-m4"


def test_a_model_call_asks_for_the_path_to_the_leaf_with_the_active_tools() -> None:
    bench = Bench().start()
    [call] = bench.asked(CallModel)
    [entry] = bench.asked(AppendEntry)
    context = chain_digest(bench.machine.spec.context_digest, entry.message)
    assert call == CallModel(
        call=1,
        purpose="answer",
        leaf_id="run-1-m1",
        tools=("read", "write"),
        digest=request_digest(context, "0" * 64, ("read", "write")),
    )


def test_the_next_call_is_made_with_the_tools_of_its_moment() -> None:
    bench = Bench().start()
    bench.give(ToolsSet(("write",)))
    bench.call_tools(tool_call("write")).run_tool()
    assert [call.tools for call in bench.asked(CallModel)] == [("read", "write"), ("write",)]


def test_one_turn_may_have_many_model_calls() -> None:
    bench = Bench().start().call_tools(tool_call("read")).run_tool()
    bench.call_tools(tool_call("read", call_id="t9")).run_tool().say()
    assert [call.call for call in bench.asked(CallModel)] == [1, 2, 3]
    assert bench.types().count("turn_start") == 1
    assert bench.payload("agent_end")["status"] == "completed"


def test_usage_is_summed_over_all_calls_of_the_run() -> None:
    bench = Bench().start().follow_up("more")
    first = Usage(input_tokens=5, output_tokens=7, cached_tokens=1, reasoning_tokens=2)
    # A later report of the same call replaces the earlier one.
    bench.answer(UsageReport(Usage(input_tokens=1000)), UsageReport(first), tool_call("read")).store().run_tool()
    bench.answer(TextDelta("a"), UsageReport(Usage(input_tokens=10, output_tokens=20))).store()
    bench.store().produce(UsageReport(Usage(input_tokens=100))).fail_model("provider_error")
    full = {"input_tokens": 115, "output_tokens": 27, "cached_tokens": 1, "reasoning_tokens": 2}
    assert bench.payload("agent_end")["usage"] == full
    each = [e["usage"]["input_tokens"] for e in bench.payloads("message_end") if "usage" in e]
    assert each == [5, 10, 100]


# -- the limit of model calls


def test_a_turn_that_reaches_the_limit_ends_the_run() -> None:
    bench = Bench().start().follow_up("later")
    for n in range(64):
        assert not bench.machine.ended
        bench.call_tools(tool_call("read", call_id=f"t{n}")).run_tool()
    assert bench.types()[-4:] == ["tool_execution_end", "warning", *END]
    assert bench.payload("warning")["code"] == "tool_loop_limit_exceeded"
    assert bench.payload("warning")["limit"] == 64
    end = bench.payload("agent_end")
    assert (end["status"], end["stop_reason"]) == ("max_steps", "tool_use")
    assert end["discarded"] == [{"command_id": "f1", "kind": "follow_up", "text": "later"}]
    assert not bench.payloads("error")


def test_the_limit_counts_the_calls_of_one_turn() -> None:
    bench = Bench(make_spec(limits=EngineLimits(max_model_calls=2))).start().follow_up("more")
    for n in range(2):
        bench.call_tools(tool_call("read", call_id=f"t{n}")).run_tool().say()
        if n == 0:
            bench.store()
    assert len(bench.asked(CallModel)) == 4
    assert bench.payload("agent_end")["status"] == "completed"


def test_a_steer_goes_before_the_limit() -> None:
    bench = Bench(make_spec(limits=EngineLimits(max_model_calls=1))).start().call_tools(tool_call("read"))
    bench.steer("now this").run_tool()
    assert bench.types()[-3:] == ["turn_end", "turn_start", "message_start"]
    assert not bench.payloads("warning")


# -- failures


@pytest.mark.parametrize("code", sorted(set(WIRE_CODES) - {"context_overflow"}))
def test_a_failed_call_ends_the_run_with_its_code(code: str) -> None:
    bench = Bench().start().follow_up("later").fail_model(code, "why")
    assert bench.types() == [*PROMPT, "error", *END]
    error, end = bench.payload("error"), bench.payload("agent_end")
    info = WIRE_CODES[code]
    assert error["turn_id"] == "1"
    assert (error["code"], error["message"], error["category"]) == (code, info.message, info.category)
    assert error["cause"] == "why"
    assert error["retryable"] == (info.category in ("network_transient", "state_contention"))
    assert (end["status"], end["stop_reason"]) == ("failed", "error")
    assert end["discarded"] == [{"command_id": "f1", "kind": "follow_up", "text": "later"}]
    assert bench.machine.failure is not None
    assert bench.machine.failure.code == code
    with_reasons = Bench(make_spec(error_reasons=True)).start().fail_model(code, "why").payload("error")
    assert with_reasons == {**error, "message": f"{info.message} (why)"}


def test_a_code_that_is_not_the_wires_becomes_an_internal_error() -> None:
    for code in ("unheard_of", "invalid_usage"):
        bench = Bench().start().fail_model(code, "why")
        assert (bench.payload("error")["code"], bench.payload("error")["cause"]) == ("internal_error", "why")


def test_a_failure_without_a_cause_says_none() -> None:
    assert "cause" not in Bench().start().fail_model("provider_auth").payload("error")


def test_a_prompt_that_cannot_be_stored() -> None:
    bench = Bench()
    bench.give(RunStarted("c1", "hello"))
    bench.fail_store()
    assert bench.types() == [*PROMPT, "error", *END]
    message = bench.payload("message_end")
    assert (message["text"], message["stop_reason"]) == ("hello", "error")
    assert bench.payload("error")["cause"] == "disk full"
    assert bench.payload("agent_end")["leaf_id"] == ""
    assert bench.asked(CallModel) == []


def test_an_answer_that_cannot_be_stored() -> None:
    bench = Bench().start().answer(TextDelta("hi"), tool_call("read")).fail_store("state_contention")
    assert bench.types()[-4:] == ["message_end", "error", *END]
    message = bench.payloads("message_end")[-1]
    assert (message["text"], message["stop_reason"]) == ("hi", "error")
    assert bench.payload("error")["retryable"] is True
    assert bench.payload("agent_end")["leaf_id"] == "run-1-m1"


def test_a_tool_result_that_cannot_be_stored() -> None:
    bench = Bench().start().call_tools(tool_call("read")).allow().finish_tool("much", truncated=True).fail_store()
    assert bench.types()[-4:] == ["tool_execution_end", "error", *END]
    end = bench.payload("tool_execution_end")
    assert (end["result"], end["is_error"], end["truncated"]) == ("much", True, True)
    assert "message_id" not in end
    assert bench.payload("agent_end")["leaf_id"] == "run-1-m2"


def test_news_of_another_entry_is_late() -> None:
    first = Bench()
    first.give(RunStarted("c1", "hello"))
    answered = Bench().start().answer(TextDelta("hi"))
    ran = Bench().start().call_tools(tool_call("read")).allow().finish_tool()
    for bench in (first, answered, ran):
        state, count = bench.state, len(bench.events)
        bench.give(EntryStored("run-1-m9"), EntryFailed("run-1-m9", "io_failure"))
        assert (bench.state, len(bench.events)) == (state, count)


# -- long texts


@pytest.mark.parametrize(
    ("text", "fits"),
    [("x" * 98, True), ("x" * 99, False), ("\u00e9" * 49, True), ("\u00e9" * 50, False), ("\x01" * 17, False)],
)
def test_a_text_that_is_too_long_as_json_is_only_measured(text: str, fits: bool) -> None:
    bench = Bench(make_spec(limits=EngineLimits(inline_text_bytes=100))).start(text).say(text)
    for end in bench.payloads("message_end"):
        shown = {key: end[key] for key in ("text", "text_bytes", "text_omitted") if key in end}
        assert shown == ({"text": text} if fits else {"text_bytes": len(text.encode()), "text_omitted": True})
    assert [effect.message.text for effect in bench.asked(AppendEntry)] == [text, text]


def test_discarded_texts_share_one_budget() -> None:
    bench = Bench(make_spec(limits=EngineLimits(inline_text_bytes=100))).start()
    for n, text in enumerate(["a" * 60, "b" * 60, "\x01" * 10, "c" * 30]):
        bench.follow_up(text, f"f{n}")
    shown = bench.abort().payload("agent_end")["discarded"]
    left_out = {"kind": "follow_up", "text": "", "text_omitted": True}
    assert shown == [
        {"command_id": "f0", "kind": "follow_up", "text": "a" * 60},
        {"command_id": "f1", "text_bytes": 60, **left_out},
        {"command_id": "f2", "text_bytes": 10, **left_out},
        {"command_id": "f3", "kind": "follow_up", "text": "c" * 30},
    ]


# -- the doors


def test_events_and_effects_are_handed_over_once() -> None:
    machine = RunMachine(make_spec())
    machine.receive(make_stamp(0), RunStarted("c1", "hello"))
    assert types_of(machine.take_events()) == PROMPT[:-1]
    assert len(machine.take_effects()) == 1
    assert (machine.take_events(), machine.take_effects()) == ([], [])
