"""The breaker, on its own clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nous.extensions.breaker import FAILURE_LIMIT, Breaker

MS = 1_000_000


def opened() -> Breaker:
    breaker = Breaker(cooldown_ms=10)
    assert [breaker.fail(0) for _ in range(FAILURE_LIMIT)] == [False, False, True]
    return breaker


def test_three_failures_in_a_row_open_it() -> None:
    breaker = opened()
    assert (breaker.state, breaker.failures) == ("open", 3)
    assert not breaker.admits(10 * MS - 1)


def test_a_success_between_starts_the_count_anew() -> None:
    breaker = Breaker(cooldown_ms=10)
    assert not any([breaker.fail(0), breaker.fail(0), breaker.succeed(), breaker.fail(0), breaker.fail(0)])
    assert breaker.fail(0)


def test_after_the_cool_down_one_call_tries() -> None:
    breaker = opened()
    assert breaker.admits(10 * MS)
    assert breaker.state == "half_open"
    assert not breaker.admits(10 * MS)
    assert breaker.succeed()
    assert (breaker.state, breaker.failures) == ("closed", 0)


def test_a_failed_trial_costs_another_cool_down() -> None:
    breaker = opened()
    assert breaker.admits(10 * MS)
    assert breaker.fail(11 * MS)
    assert not breaker.admits(20 * MS)
    assert breaker.admits(21 * MS)


def test_an_aborted_trial_lets_the_next_call_try() -> None:
    breaker = opened()
    assert breaker.admits(10 * MS)
    breaker.forgo(10 * MS)
    assert breaker.admits(10 * MS)


def test_calls_that_end_after_it_opened_change_nothing() -> None:
    breaker = opened()
    assert not breaker.succeed()
    assert not breaker.fail(5 * MS)
    assert breaker.state == "open"
    assert breaker.admits(10 * MS)


@given(st.lists(st.tuples(st.sampled_from(["admits", "succeed", "fail", "forgo"]), st.integers(0, 20 * MS))))
def test_it_never_admits_two_calls_while_half_open(steps: list[tuple[str, int]]) -> None:
    breaker = Breaker(cooldown_ms=10)
    now = trials = 0
    for step, passed in steps:
        now += passed
        before = breaker.state
        if step == "admits":
            admitted = breaker.admits(now)
            trials = trials + 1 if admitted and before != "closed" else trials
        elif step == "succeed":
            breaker.succeed()
        else:
            getattr(breaker, step)(now)
        if breaker.state != "half_open":
            trials = 0
        assert trials <= 1
