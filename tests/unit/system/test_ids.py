"""Ids: safe as file names, in order, and never the same twice, also across processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.system.ids import RandomIds, is_safe_id, new_epoch

PROCESSES = 6
IDS_PER_PROCESS = 3000

MAKE_IDS = f"""
import sys
from nous.system.ids import RandomIds
sys.stdin.read()
ids = RandomIds()
print("\\n".join(ids.run_id() for _ in range({IDS_PER_PROCESS})))
"""


@pytest.mark.parametrize("make", [RandomIds().run_id, RandomIds().session_id, new_epoch])
def test_ids_are_safe_and_distinct(make: Callable[[], str]) -> None:
    made = [make() for _ in range(5000)]
    assert all(is_safe_id(text) for text in made)
    assert len(set(made)) == len(made)
    assert len({len(text) for text in made}) == 1


def test_ids_of_processes_released_at_once_are_distinct() -> None:
    """All processes wait on one pipe: its end lets them go in the same millisecond."""
    children = [
        subprocess.Popen([sys.executable, "-c", MAKE_IDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(PROCESSES)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
        child.stdin = None
    made = [text for child in children for text in child.communicate(timeout=60)[0].decode("ascii").split()]
    assert len(set(made)) == len(made) == PROCESSES * IDS_PER_PROCESS


@given(st.lists(st.integers(min_value=-3, max_value=3), max_size=50), st.integers(min_value=0, max_value=2**47))
def test_ids_ascend_whatever_the_clock_does(steps_ms: list[int], start_ms: int) -> None:
    ids = RandomIds()
    now_ms = start_ms
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: max(now_ms, 0) * 1_000_000)
        for step_ms in [0, *steps_ms]:
            now_ms += step_ms
            made.append(ids.run_id())
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_ascend_past_the_counter_of_one_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_795_255_200_000_000_000)
    ids = RandomIds()
    stamps = [ids.session_id().rsplit("-", 1)[0] for _ in range(3000)]
    assert stamps == sorted(set(stamps))


def test_a_copy_made_by_fork_makes_other_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random part is fresh for every id: equal time and equal counter still differ."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_795_255_200_000_000_000)
    first, second = RandomIds().run_id(), RandomIds().run_id()
    assert first.rsplit("-", 1)[0] == second.rsplit("-", 1)[0]
    assert first != second


@pytest.mark.parametrize("text", ["a", "-", "_", "A9-_z", "0" * 128, "run-01m7xwn30000-b15hrmh7ftfg8v"])
def test_safe(text: str) -> None:
    assert is_safe_id(text)


@pytest.mark.parametrize(
    "text", ["", "0" * 129, ".", "..", "a/b", "a\n", "\na", "a b", "a\x00", "é", "٣", "a.b", "~", "a\\b"]
)
def test_not_safe(text: str) -> None:
    assert not is_safe_id(text)


@given(st.text(max_size=140))
def test_safe_is_exactly_the_published_pattern(text: str) -> None:
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
    assert is_safe_id(text) == (1 <= len(text) <= 128 and set(text) <= allowed)
