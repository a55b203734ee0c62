"""The queues by themselves; what a run makes of them is in test_machine_queues.py."""

from __future__ import annotations

from nous.engine.queues import InputQueues, Queued
from nous.protocol.events import Discarded


def test_empty_queues_give_nothing() -> None:
    queues = InputQueues("all", "one-at-a-time")
    assert (queues.take(), queues.steered, queues.discard(100)) == (None, False, ())


def test_taking_one_leaves_the_rest() -> None:
    queues = InputQueues("one-at-a-time", "one-at-a-time")
    queues.add("steer", "s1", "a")
    queues.add("steer", "s2", "b")
    assert queues.take() == ("steer", [Queued("s1", "a")])
    assert (queues.count("steer"), queues.steered) == (1, True)


def test_taking_all_leaves_the_other_kind() -> None:
    queues = InputQueues("all", "all")
    queues.add("follow_up", "f1", "c")
    queues.add("steer", "s1", "a")
    queues.add("steer", "s2", "b")
    assert queues.take() == ("steer", [Queued("s1", "a"), Queued("s2", "b")])
    assert (queues.count("steer"), queues.count("follow_up"), queues.steered) == (0, 1, False)


def test_discarding_empties_both() -> None:
    queues = InputQueues("all", "all")
    queues.add("follow_up", "f1", "c")
    queues.add("steer", "s1", "a")
    assert queues.discard(100) == (
        Discarded(command_id="s1", kind="steer", text="a"),
        Discarded(command_id="f1", kind="follow_up", text="c"),
    )
    assert (queues.count("steer"), queues.count("follow_up")) == (0, 0)


def test_texts_are_measured_as_json() -> None:
    for text, size in (("x" * 8, 10), ("\x01", 8), ('"' * 4, 10), ("\u00e9" * 4, 10)):
        for budget, shown in ((size, text), (size - 1, "")):
            queues = InputQueues("all", "all")
            queues.add("steer", "s1", text)
            assert queues.discard(budget)[0].text == shown
