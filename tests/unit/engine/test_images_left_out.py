"""A provider refuses an image: the call is made again at once without it, and the answer says what was left out."""

from __future__ import annotations

from nous.engine.effects import AppendEntry, CallModel, StartTimer
from nous.engine.run_state import MAX_LISTED_IDS
from nous.ports.model import TextDelta
from nous.protocol.messages import Message
from tests.support.engine import Bench, make_spec, replay, tool_call


def stored_answers(bench: Bench) -> list[Message]:
    return [e.message for e in bench.asked(AppendEntry) if e.message.role == "assistant"]


def started() -> Bench:
    return Bench(make_spec(answer_form=2, runs_cut_calls=False)).start()


def test_the_call_is_made_again_at_once_and_the_client_is_told() -> None:
    bench = started().refuse_images("m7")
    first, again = bench.asked(CallModel)
    assert (first.images_left_out, again.images_left_out) == ((), ("m7",))
    assert first.digest != again.digest
    assert bench.asked(StartTimer) == []
    assert bench.payload("warning") == {
        "code": "images_left_out",
        "message": "The provider refused an image; the images of these messages are left out from now on.",
        "run_id": "run-1",
        "turn_id": "1",
        "cause": "provider_error: HTTP 400: bad image",
        "message_ids": ["m7"],
    }
    bench.say("without")
    [answer] = stored_answers(bench)
    assert answer.images_left_out == ("m7",)
    assert bench.payload("agent_end")["status"] == "completed"


def test_a_second_refusal_leaves_out_more_and_the_same_one_fails_the_run() -> None:
    bench = started().refuse_images("m7").refuse_images("m1", "m7")
    assert bench.asked(CallModel)[-1].images_left_out == ("m7", "m1")
    bench.refuse_images("m1")
    assert bench.payload("error")["code"] == "provider_error"
    assert len(bench.asked(CallModel)) == 3
    assert stored_answers(bench) == []


def test_what_was_left_out_is_said_by_the_answer_and_no_longer_by_the_next_calls() -> None:
    bench = started().refuse_images("m7").call_tools(tool_call("read")).run_tool().say()
    assert [call.images_left_out for call in bench.asked(CallModel)] == [(), ("m7",), ()]
    assert [answer.images_left_out for answer in stored_answers(bench)] == [("m7",), ()]


def test_it_stays_left_out_over_a_steer_and_a_compaction() -> None:
    bench = started().steer("and now?")
    bench.refuse_images("m7").store()
    assert bench.asked(CallModel)[-1].images_left_out == ("m7",)
    bench.fail_model("context_overflow").plan()
    assert bench.asked(CallModel)[-1].purpose == "compaction"
    assert bench.asked(CallModel)[-1].images_left_out == ("m7",)
    bench.say().run_to_end()
    assert bench.asked(CallModel)[-1].images_left_out == ("m7",)
    assert stored_answers(bench)[-1].images_left_out == ("m7",)


def test_never_after_something_was_shown_nor_where_one_call_is_all() -> None:
    shown = started().produce(TextDelta("Half an")).refuse_images("m7")
    only = Bench(make_spec(output_schema={"type": "object"})).start().refuse_images("m7")
    for bench in (shown, only):
        assert bench.payload("error")["code"] == "provider_error"
        assert len(bench.asked(CallModel)) == 1


def test_a_warning_names_a_bounded_number_of_messages() -> None:
    ids = tuple(f"m{number}" for number in range(MAX_LISTED_IDS + 1))
    warning = started().refuse_images(*ids).payload("warning")
    assert (len(warning["message_ids"]), warning["truncated_fields"]) == (MAX_LISTED_IDS, ["message_ids"])


def test_it_replays() -> None:
    bench = started().refuse_images("m7").call_tools(tool_call("read")).run_tool().say()
    again = replay(bench.machine.spec, bench.inputs)
    assert (again.lines(), again.effects) == (bench.lines(), bench.effects)
