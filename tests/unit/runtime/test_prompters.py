"""Which process is shown a run that has ended (docs/compatibility.md, row 2)."""

from __future__ import annotations

import pytest

from nous.runtime.prompters import RECENT_RUN_SECONDS, Prompters


class Watch:
    def __init__(self) -> None:
        self.ns = 0

    def now(self) -> str:
        return "2026-01-02T03:04:05Z"

    def mono_ns(self) -> int:
        return self.ns


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def prompters(watch: Watch) -> Prompters:
    return Prompters(watch)


@pytest.mark.behaviour("P7.10")
def test_an_ended_run_is_shown_for_five_seconds_to_who_asked(prompters: Prompters, watch: Watch) -> None:
    prompters.note_prompt(7, "run")
    assert prompters.unseen(7) is None
    prompters.note_end("run", {8})
    for seconds, shown in ((0.0, "run"), (RECENT_RUN_SECONDS, "run"), (RECENT_RUN_SECONDS + 0.001, None)):
        watch.ns = int(seconds * 1e9)
        assert prompters.unseen(7) == shown
        assert prompters.unseen(8) is prompters.unseen(None) is None
    assert RECENT_RUN_SECONDS == 5.0


def test_who_was_told_is_not_told_again(prompters: Prompters) -> None:
    for pid in (7, 8):
        prompters.note_prompt(pid, f"run-{pid}")
    prompters.note_end("run-7", {7, 8})
    prompters.note_end("run-8", {7})
    assert (prompters.unseen(7), prompters.unseen(8)) == (None, "run-8")
    prompters.note_seen(8, "run-8")
    assert prompters.unseen(8) is None


def test_only_the_last_run_of_a_process_counts(prompters: Prompters) -> None:
    prompters.note_prompt(7, "older")
    prompters.note_prompt(7, "newer")
    prompters.note_end("older", ())
    prompters.note_seen(7, "older")
    assert prompters.unseen(7) is None
    prompters.note_end("newer", ())
    assert prompters.unseen(7) == "newer"


def test_what_is_over_is_forgotten(prompters: Prompters, watch: Watch) -> None:
    for pid in range(1, 1000):
        prompters.note_prompt(pid, f"run-{pid}")
        prompters.note_end(f"run-{pid}", ())
        watch.ns += int(1e9)
    assert len(prompters._asked) < 10
