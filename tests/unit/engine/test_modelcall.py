"""One model call: its answer while it streams, how it ends, what of it may be left out of a trace."""

from __future__ import annotations

import pytest

from nous.engine.effects import AppendEntry, StopModel
from nous.engine.inputs import ModelDone, ModelFailed, ModelProduced
from nous.engine.spec import EngineLimits
from nous.engine.transitions import Phase
from nous.ports.model import (
    Finish,
    FinishReason,
    ModelItem,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReport,
)
from nous.protocol.messages import TextBlock, ThinkingBlock, ToolCallBlock, Usage
from tests.support.engine import Bench, decode, make_spec, tool_call

END = ["turn_end", "agent_end"]
NO_USAGE = {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "reasoning_tokens": 0}


def calling(max_message_bytes: int = 1 << 20) -> Bench:
    return Bench(make_spec(limits=EngineLimits(max_message_bytes=max_message_bytes))).start()


def test_deltas_go_out_as_they_come() -> None:
    bench = calling()
    events = bench.give(ModelProduced(1, [TextDelta("a"), TextDelta("b\u2028"), TextDelta('"\x00')]))
    decoded = decode(events)
    assert [e["type"] for e in decoded] == ["message_start", *["message_update"] * 3]
    assert [e["payload"] for e in decoded[1:]] == [
        {"run_id": "run-1", "turn_id": "1", "message_id": "run-1-m2", "delta": d} for d in ("a", "b\u2028", '"\x00')
    ]


def test_a_message_opens_with_the_first_item_whatever_it_is() -> None:
    for item in (TextDelta("a"), ThinkingDelta("hm"), tool_call("read"), UsageReport(Usage()), Finish("stop")):
        bench = calling()
        assert bench.give(ModelProduced(1, [])) == []
        assert decode(bench.give(ModelProduced(1, [item])))[0]["type"] == "message_start"


def test_an_empty_answer_is_an_answer() -> None:
    bench = calling().answer().store()
    assert bench.types()[-4:] == ["message_start", "message_end", *END]
    end = bench.payloads("message_end")[-1]
    assert (end["text"], end["stop_reason"], end["usage"]) == ("", "stop", NO_USAGE)
    assert bench.stored[-1].blocks == ()
    assert bench.payload("agent_end")["status"] == "completed"


@pytest.mark.parametrize(
    ("finish", "items", "stop_reason"),
    [
        ("stop", [TextDelta("a")], "stop"),
        ("length", [TextDelta("a")], "length"),
        ("tool_use", [TextDelta("a")], "stop"),
        ("stop", [tool_call("read")], "tool_use"),
        ("length", [tool_call("read")], "tool_use"),
        ("tool_use", [tool_call("read")], "tool_use"),
    ],
)
def test_stop_reasons(finish: FinishReason, items: list[ModelItem], stop_reason: str) -> None:
    bench = calling().answer(*items, finish=finish).store()
    assert bench.payloads("message_end")[-1]["stop_reason"] == stop_reason
    if stop_reason != "tool_use":
        assert bench.payload("agent_end")["stop_reason"] == stop_reason


def test_text_that_ended_for_an_unknown_reason_says_which() -> None:
    bench = calling().produce(TextDelta("a"), Finish("other", "moon")).done().store()
    end = bench.payloads("message_end")[-1]
    assert (end["stop_reason"], end["finish_reason"]) == ("other", "moon")
    assert (bench.payload("agent_end")["status"], bench.payload("agent_end")["stop_reason"]) == ("completed", "other")


@pytest.mark.parametrize("said", [(), (TextDelta("I will not"),)])
def test_a_refusal_fails_the_run_and_stores_nothing(said: tuple[TextDelta, ...]) -> None:
    bench = calling().answer(*said, finish="refusal")
    assert bench.types()[-4:] == ["message_end", "error", *END]
    end = bench.payloads("message_end")[-1]
    assert (end["text"], end["stop_reason"]) == ("".join(t.text for t in said), "error")
    assert bench.payload("error")["code"] == "content_refused"
    assert len(bench.asked(AppendEntry)) == 1


def test_a_stream_without_a_finish_was_cut() -> None:
    bench = calling().produce(TextDelta("half")).done()
    assert bench.types()[-4:] == ["message_end", "error", *END]
    assert bench.payload("error")["code"] == "provider_unavailable"
    assert bench.payload("error")["retryable"] is True
    assert len(bench.asked(AppendEntry)) == 1


def test_a_provider_error_before_the_first_item() -> None:
    bench = calling().fail_model("provider_auth", "401")
    assert bench.types()[-4:] == ["message_end", "error", *END]
    assert bench.types().count("message_start") == 1


def test_a_provider_error_inside_the_stream() -> None:
    bench = calling().produce(TextDelta("half"), UsageReport(Usage(input_tokens=9))).fail_model("provider_unavailable")
    end = bench.payloads("message_end")[-1]
    assert (end["text"], end["stop_reason"], end["usage"]["input_tokens"]) == ("half", "error", 9)
    assert bench.payload("agent_end")["leaf_id"] == "run-1-m1"


def test_thinking_is_a_feature_event_and_no_part_of_the_text() -> None:
    bench = calling()
    bench.produce(ThinkingDelta("hm "), ThinkingDelta("yes"), TextDelta("I"), ThinkingDelta("", "sig"))
    bench.produce(ThinkingDelta("?")).answer(TextDelta(" do")).store()
    features = [e for e in bench.events if e.feature]
    assert {e.feature for e in features} == {"thinking"}
    assert [(e["id"], e["type"], e["after_seq"], e["payload"]["delta"]) for e in decode(features)] == [
        ("run-1.5.1", "thinking_update", 5, "hm "),
        ("run-1.5.2", "thinking_update", 5, "yes"),
        ("run-1.6.1", "thinking_update", 6, "?"),
    ]
    assert all("seq" not in e for e in decode(features))
    assert bench.payloads("message_end")[-1]["text"] == "I do"
    assert bench.stored[-1].blocks == (ThinkingBlock("hm yes?", "sig"), TextBlock("I do"))


def test_arguments_stream_as_a_feature_under_the_id_of_their_call() -> None:
    bench = calling()
    bench.produce(ToolCallDelta(index=0, id="t0", name="read"), ToolCallDelta(index=0, arguments='{"a"'))
    bench.produce(ToolCallDelta(index=1, id="t1", name="write", arguments="{"))
    bench.answer(ToolCallDelta(index=0, arguments=":1}"), ToolCallDelta(index=1, arguments="}")).store()
    features = decode([e for e in bench.events if e.feature == "tool_arguments"])
    assert [(e["payload"]["tool_call_id"], e["payload"]["delta"]) for e in features] == [
        ("t0", '{"a"'),
        ("t1", "{"),
        ("t0", ":1}"),
        ("t1", "}"),
    ]
    assert [e["id"] for e in features] == [f"run-1.5.{k}" for k in (1, 2, 3, 4)]
    assert bench.stored[-1].tool_calls == (ToolCallBlock("t0", "read", '{"a":1}'), ToolCallBlock("t1", "write", "{}"))


def test_the_entry_holds_thinking_text_and_calls_in_this_order() -> None:
    items: list[ModelItem] = [tool_call("read"), TextDelta("look"), ThinkingDelta("hm")]
    entry = calling().answer(*items).asked(AppendEntry)[-1].message
    assert [type(b) for b in entry.blocks] == [ThinkingBlock, TextBlock, ToolCallBlock]
    assert entry.text == "look"


def test_news_of_another_call_is_late() -> None:
    bench = calling()
    bench.give(ModelProduced(2, [TextDelta("x")]), ModelDone(2), ModelFailed(0, "provider_error"))
    assert bench.state is Phase.CALLING
    assert bench.types()[-1] == "message_end"


# -- too long an answer


def over(bench: Bench) -> bool:
    return bench.machine.failure is not None


@pytest.mark.parametrize(
    ("items", "size"),
    [
        ([TextDelta("x" * 100)], 100),
        ([TextDelta("\u00e9" * 50)], 100),
        ([TextDelta("\x01" * 10)], 60),  # as JSON
        ([ThinkingDelta("x" * 90, "s" * 10)], 100),
        ([tool_call("n" * 10, "x" * 88)], 100),
        ([ToolCallDelta(index=n, id=f"i{n}", name="name") for n in range(10)], 60),
        ([TextDelta("x" * 40), ThinkingDelta("y" * 40), tool_call("read", "z" * 14)], 100),
    ],
)
def test_everything_an_answer_holds_counts_towards_its_limit(items: list[ModelItem], size: int) -> None:
    assert not over(calling(size).produce(*items))
    assert over(calling(size - 1).produce(*items))


def test_an_answer_past_the_limit_stops_the_call_and_fails_the_run() -> None:
    bench = calling(100).produce(TextDelta("x" * 60))
    bench.produce(TextDelta("y" * 60), TextDelta("never seen"))
    assert bench.asked(StopModel) == [StopModel(1)]
    assert bench.types()[-5:] == ["message_update", "message_end", "error", *END]
    error = bench.payload("error")
    assert (error["code"], error["retryable"]) == ("provider_error", False)
    assert "message_too_large" in error["cause"]
    end = bench.payloads("message_end")[-1]
    assert (end["text"], end["stop_reason"]) == ("x" * 60 + "y" * 60, "error")
    assert len(bench.asked(AppendEntry)) == 1


# -- what may be left out of a trace


def test_only_plain_text_into_an_open_message_is_elided() -> None:
    bench = calling()
    text: list[ModelItem] = [TextDelta("a"), TextDelta("b")]
    assert not bench.machine.elides(text)  # it would open the message
    bench.produce(TextDelta("a"))
    assert bench.machine.elides(text)
    others: list[ModelItem] = [ThinkingDelta("x"), tool_call("read"), UsageReport(Usage()), Finish("stop")]
    assert not any(bench.machine.elides([*text, other]) for other in others)
    bench.produce(Finish("stop")).done()
    assert not bench.machine.elides(text)  # no call is open


def test_text_that_may_pass_the_limit_is_not_elided() -> None:
    bench = calling(100).produce(TextDelta("x" * 40))
    assert bench.machine.elides([TextDelta("y" * 9)])  # at six bytes a character: 94
    assert not bench.machine.elides([TextDelta("y" * 10)])
    assert not bench.machine.elides([TextDelta("y" * 5)] * 2)


def test_nothing_is_elided_outside_a_call() -> None:
    assert not Bench().machine.elides([TextDelta("a")])
    assert not calling().say().machine.elides([TextDelta("a")])


# -- what is kept


def test_the_last_text_is_that_of_the_last_message_that_was_closed() -> None:
    bench = calling().answer(TextDelta("look"), tool_call("read")).store()
    assert bench.machine.run.last_text == "look"
    bench.run_tool().produce(TextDelta("half"))
    assert bench.machine.run.last_text == "look"
    bench.abort()
    assert bench.machine.run.last_text == "half"
    assert Bench().start().machine.run.last_text == ""


def test_an_answer_of_very_many_deltas_is_joined_in_order() -> None:
    bench = calling()
    words = [f"{n} " for n in range(20_000)]
    for start in range(0, len(words), 1500):
        bench.produce(*[TextDelta(word) for word in words[start : start + 1500]])
    bench.answer(TextDelta("end")).store()
    assert bench.stored[-1].text == "".join(words) + "end" == bench.payloads("message_end")[-1]["text"]
