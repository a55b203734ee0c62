"""Retries of a model call: when, after which pause, and when no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.engine.effects import CallModel, StartTimer, StopModel
from nous.engine.inputs import ModelDone, TimerFired
from nous.engine.retry import backoff_ms, is_transient
from nous.engine.spec import EngineLimits
from nous.engine.transitions import Phase
from nous.errors import WIRE_CODES
from nous.ports.model import TextDelta
from tests.support.engine import Bench, make_spec, replay

LIMITS = EngineLimits(max_retries=3, retry_seed=7)

all_limits = st.builds(
    EngineLimits,
    max_retries=st.integers(0, 6),
    retry_first_delay_ms=st.integers(1, 5_000),
    retry_max_delay_ms=st.integers(1, 20_000),
    retry_total_ms=st.integers(1, 40_000),
    retry_seed=st.integers(0, 1 << 32),
)


def started(limits: EngineLimits = LIMITS) -> Bench:
    return Bench(make_spec(limits=limits)).start()


def warned(bench: Bench) -> list[tuple[str, int]]:
    return [(w["code"], w["attempt"]) for w in bench.payloads("warning")]


def test_a_call_that_failed_in_passing_is_made_again() -> None:
    bench = started().fail_model("provider_unavailable", "HTTP 503")
    [first] = bench.asked(CallModel)
    [timer] = bench.asked(StartTimer)
    assert (bench.state, timer) == (Phase.AWAITING_RETRY, StartTimer("provider_retry", backoff_ms(LIMITS, 1, 1)))
    assert bench.payload("warning") == {
        "code": "provider_retry",
        "message": "The model call failed; it is made again.",
        "run_id": "run-1",
        "turn_id": "1",
        "cause": "provider_unavailable: HTTP 503",
        "limit": 3,
        "attempt": 1,
        "delay_ms": timer.after_ms,
        "waited_ms": 0,
    }
    bench.retry()
    again = bench.asked(CallModel)[1]
    assert (again.call, again.digest, again.leaf_id) == (first.call + 1, first.digest, first.leaf_id)
    bench.say("here I am")
    assert bench.payload("agent_end")["status"] == "completed"


def test_after_the_last_retry_the_run_fails_and_says_how_often_it_tried() -> None:
    bench = started()
    for _ in range(3):
        bench.fail_model("provider_unavailable", "HTTP 429").retry()
    bench.fail_model("provider_unavailable", "HTTP 429")
    assert warned(bench) == [("provider_retry", n) for n in (1, 2, 3)] + [("provider_retry_exhausted", 3)]
    waited_ms = sum(t.after_ms for t in bench.asked(StartTimer))
    assert bench.payloads("warning")[-1]["waited_ms"] == waited_ms
    assert bench.payload("error")["code"] == "provider_unavailable"
    assert bench.payload("agent_end")["status"] == "failed"
    assert len(bench.asked(CallModel)) == 4


def test_a_stream_that_ends_with_nothing_is_asked_for_again() -> None:
    assert started().done().retry().say().payload("agent_end")["status"] == "completed"


def test_never_after_something_was_shown() -> None:
    for bench in (started().produce(TextDelta("Half an")), started().produce(TextDelta(""))):
        bench.fail_model("provider_unavailable")
        assert (bench.payload("agent_end")["status"], bench.asked(StartTimer)) == ("failed", [])
    assert started().produce(TextDelta("Half an")).done().payload("agent_end")["status"] == "failed"


@pytest.mark.parametrize("code", sorted(WIRE_CODES))
def test_only_what_passes_by_itself_is_retried(code: str) -> None:
    bench = started().fail_model(code)
    assert is_transient(code) == (code == "provider_unavailable")
    assert (bench.state is Phase.AWAITING_RETRY) == is_transient(code)


def test_a_run_of_an_old_recording_retries_nothing_and_says_nothing() -> None:
    bench = Bench(make_spec()).start().fail_model("provider_unavailable")
    assert (bench.payload("agent_end")["status"], bench.payloads("warning")) == ("failed", [])


def test_what_the_provider_asks_for_is_waited_for_in_full() -> None:
    bench = started().fail_model("provider_unavailable", retry_after_ms=4_000)
    assert [t.after_ms for t in bench.asked(StartTimer)] == [4_000]
    assert bench.payload("warning")["retry_after_ms"] == 4_000


def test_a_provider_that_asks_for_more_than_is_left_is_not_asked_again() -> None:
    bench = started().fail_model("provider_unavailable", retry_after_ms=10_000).retry()
    bench.fail_model("provider_unavailable", retry_after_ms=6_000)
    assert warned(bench) == [("provider_retry", 1), ("provider_retry_exhausted", 1)]
    assert bench.payload("agent_end")["status"] == "failed"


def test_what_comes_after_an_answer_began_is_another_failure() -> None:
    bench = started(EngineLimits(max_retries=1)).fail_model("provider_unavailable").retry()
    bench.follow_up("and then").say("one")
    bench.store().fail_model("provider_unavailable").retry().say("two")
    assert warned(bench) == [("provider_retry", 1), ("provider_retry", 1)]
    assert bench.payload("agent_end")["status"] == "completed"


def test_a_retry_counts_once_for_the_turn() -> None:
    bench = started(EngineLimits(max_retries=1, max_model_calls=1)).fail_model("provider_unavailable").retry().say()
    assert bench.payload("agent_end")["status"] == "completed"


def test_an_abort_ends_the_pause_at_once() -> None:
    bench = started().fail_model("provider_unavailable").abort()
    assert (bench.payload("agent_end")["status"], bench.asked(StopModel)) == ("aborted", [])
    assert bench.give(TimerFired("provider_retry")) == []


def test_a_steer_that_came_meanwhile_goes_first() -> None:
    bench = started().fail_model("provider_unavailable").steer("something else").retry()
    assert [t["turn_kind"] for t in bench.payloads("turn_start")] == ["prompt", "steer"]
    assert bench.run_to_end().payload("agent_end")["status"] == "completed"


def test_timers_and_news_of_others_are_late() -> None:
    bench = started().fail_model("provider_unavailable")
    assert bench.give(TimerFired("abort_grace"), ModelDone(1)) == []
    assert bench.state is Phase.AWAITING_RETRY
    storing = bench.retry().answer(TextDelta("x"))
    assert storing.abort().give(TimerFired("provider_retry")) == []
    assert storing.fire().payload("agent_end")["status"] == "aborted"


@given(all_limits, st.integers(1, 12), st.integers(1, 9))
def test_pauses_double_up_to_their_bound_and_lose_at_most_half(limits: EngineLimits, attempt: int, call: int) -> None:
    whole_ms = min(limits.retry_first_delay_ms * 2 ** (attempt - 1), limits.retry_max_delay_ms)
    assert whole_ms / 2 <= backoff_ms(limits, attempt, call) <= whole_ms


def test_runs_that_failed_together_do_not_come_back_together() -> None:
    delays = {
        backoff_ms(EngineLimits(max_retries=3, retry_first_delay_ms=10_000, retry_seed=n), 1, 1) for n in range(100)
    }
    assert len(delays) > 90


@given(all_limits, st.lists(st.none() | st.integers(0, 20_000), min_size=8, max_size=8))
def test_retries_are_bounded_in_number_and_time_and_repeat_themselves(
    limits: EngineLimits, asked: list[int | None]
) -> None:
    bench = started(limits)
    for retry_after_ms in asked:
        if bench.machine.ended:
            break
        bench.fail_model("provider_unavailable", retry_after_ms=retry_after_ms)
        if not bench.machine.ended:
            bench.retry()
    assert bench.machine.ended
    delays = [t.after_ms for t in bench.asked(StartTimer)]
    assert len(delays) <= limits.max_retries
    assert sum(delays) <= limits.retry_total_ms
    assert replay(bench.machine.spec, bench.inputs).lines() == bench.lines()
