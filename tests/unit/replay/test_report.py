"""What a replay came to: exit codes, the place of a difference, the words for it."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.replay.describe import count_verdicts, excerpts, explain, failure_text, headline
from nous.replay.report import (
    EXIT_BY_VERDICT,
    Report,
    Verdict,
    find_difference,
    find_json_path,
    worst_exit_code,
)

EVENT = b'{"v":"1","id":"r1.%d","type":"message_update","seq":%d,"payload":{"delta":"%b"}}'


def report(verdict: Verdict, **fields: Any) -> Report:
    return Report(path="x.trace.ndjson", verdict=verdict, mode="engine", **fields)


def test_every_verdict_has_its_exit_code() -> None:
    assert EXIT_BY_VERDICT == {"identical": 0, "diverged": 5, "broken": 2, "unverified": 2, "not_a_trace": 6}


def test_the_worst_of_several_files_gives_the_exit_code() -> None:
    assert worst_exit_code([]) == 0
    worst_first: list[Verdict] = ["diverged", "broken", "unverified", "not_a_trace", "identical"]
    for index, worst in enumerate(worst_first):
        for order in permutations(worst_first[index:]):
            assert worst_exit_code(map(report, order)) == EXIT_BY_VERDICT[worst]


# -- where two lines differ

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("expected", "actual", "path"),
    [
        (b'{"a":{"b":[1,2]}}', b'{"a":{"b":[1,3]}}', "$.a.b[1]"),
        (b'{"a":{"b":[1,2]}}', b'{"a":{"b":[1]}}', "$.a.b[1]"),
        (b'{"a":{"b":[1]}}', b'{"a":{"b":{}}}', "$.a.b"),
        (b'{"a":1}', b'{"a":1,"b":2}', "$.b"),
        (b'{"a":1,"b":2}', b'{"a":1}', "$.b"),
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}', "$"),
        (b'{"a":1}', b"{", "$"),
        (b'"\xff"', b'"x"', "$"),
        (b"[" * 100_000, b"[" * 100_000, "$"),
    ],
)
def test_the_path_of_the_first_difference(expected: bytes, actual: bytes, path: str) -> None:
    assert find_json_path(expected, actual) == path


@given(JSON, JSON)
def test_the_path_leads_to_what_differs(left: object, right: object) -> None:
    path = find_json_path(json.dumps(left).encode(), json.dumps(right).encode())
    if left == right:
        assert path == "$"
        return
    steps = path.replace("[", ".[").split(".")[1:]
    for step in steps[:-1] if steps else []:
        left, right = follow(left, step), follow(right, step)
    if steps:
        assert follow(left, steps[-1]) != follow(right, steps[-1])


MISSING = object()


def follow(value: Any, step: str) -> Any:
    try:
        return value[int(step[1:-1])] if step.startswith("[") else value[step]
    except (KeyError, IndexError):
        return MISSING


# -- describing it


def test_a_difference_knows_its_place() -> None:
    one, other, earlier = EVENT % (7, 7, b"a"), EVENT % (7, 7, b"b"), EVENT % (6, 6, b"")
    found = find_difference(one, other, "event", before=(earlier,))
    assert (found.seq, found.json_path, found.before) == (7, "$.payload.delta", (earlier.decode(),))
    assert find_difference(None, other, "end").seq == 7
    assert find_difference(b'{"type":"trace.effect"}', None, "effect", before=(earlier,)).seq == 6
    assert find_difference(None, None, "end").seq == 0


def test_what_is_shown_is_bounded() -> None:
    long = EVENT % (1, 1, b"\xc3\xa9" * 1_000_000)
    found = find_difference(long, long[:-1] + b" }", "event", before=(long,) * 5)
    assert found.expected is not None
    assert len(found.expected.encode()) <= 4096
    assert all(len(line.encode()) <= 256 for line in found.before)


def test_a_divergence_in_words() -> None:
    one, other = EVENT % (7, 7, b"x" * 1000 + b"a" + b"y" * 1000), EVENT % (7, 7, b"x" * 1000 + b"b" + b"y" * 1000)
    found = find_difference(one, other, "event", before=(EVENT % (6, 6, b"z"),), note="it is late")
    diverged = report("diverged", divergence=found, reason="another engine")
    assert headline(diverged) == "event 7, $.payload.delta"
    before, expected, actual, *notes = explain(diverged)
    assert before == f"  before    {found.before[0]}"
    assert (expected[:12], actual[:12]) == ("  expected  ", "  actual    ")
    assert expected[12:].replace("a", "b") == actual[12:]
    assert expected.endswith("y…")
    assert notes == ["  note      it is late", "  note      another engine"]
    assert failure_text(diverged).endswith("nous replay --update x.trace.ndjson")


def test_other_verdicts_in_words() -> None:
    assert headline(report("identical", status="completed", events=3, elapsed_ms=1)) == "completed, 3 events, 1 ms"
    assert failure_text(report("broken", reason="cut")) == "broken (engine mode): cut"
    assert failure_text(report("not_a_trace", reason="it is empty")) == "not a trace (engine mode): it is empty"
    effect = report("diverged", divergence=find_difference(b'{"a":1}', None, "effect"))
    assert headline(effect) == "an effect behind event 0, $"
    assert explain(effect)[-2:] == ['  expected  {"a":1}', "  actual    (nothing)"]


@given(st.text(max_size=600), st.text(max_size=600))
def test_an_excerpt_shows_the_first_difference(left: str, right: str) -> None:
    shown = excerpts(left, right)
    assert all(len(text) <= 242 for text in shown)
    if left != right:
        assert shown[0] != shown[1]


def test_verdicts_are_counted_the_most_frequent_first() -> None:
    words: list[Verdict] = ["broken", "identical", "identical"]
    assert list(count_verdicts([report(word) for word in words]).items()) == [("identical", 2), ("broken", 1)]
