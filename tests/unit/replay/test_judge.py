"""From a file to a verdict, whatever the replay comes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from nous.errors import NousError
from nous.replay.judge import Replay, UnverifiedError, judge
from nous.replay.report import Divergence, find_difference
from nous.store.trace_lines import BrokenTraceError
from tests.support import recordings
from tests.support.recordings import fixture, position, write_sealed

DIFFERENCE = find_difference(b'{"a":1}', b'{"a":2}', "event")


def raising(error: Exception) -> Replay:
    def replay(*given: object) -> Divergence | None:
        raise error

    return replay


def test_a_replay_without_a_difference_is_identical() -> None:
    report = judge(fixture("plain-text"), "daemon", lambda header, end: None)
    assert (report.verdict, report.mode, report.status, report.events) == ("identical", "daemon", "completed", 11)
    assert report.elapsed_ms >= 0


def test_a_difference_is_reported() -> None:
    report = judge(fixture("plain-text"), "engine", lambda header, end: DIFFERENCE)
    assert (report.verdict, report.divergence, report.reason) == ("diverged", DIFFERENCE, None)


def test_a_difference_from_what_no_engine_wrote_says_nothing(tmp_path: Path) -> None:
    lines = recordings.read_lines(fixture("plain-text"))
    at = position(lines, "turn_end")
    path = write_sealed(tmp_path / "x", [*lines[:at], lines[at], lines[at], *lines[at + 1 :]])
    report = judge(path, "engine", lambda header, end: DIFFERENCE)
    assert (report.verdict, report.divergence) == ("broken", None)
    assert report.reason is not None
    assert report.reason.startswith("grammar: event line ")


@pytest.mark.parametrize(
    ("error", "verdict", "reason"),
    [
        (BrokenTraceError("x", 7, "torn"), "broken", "torn"),
        (UnverifiedError("missing: context"), "unverified", "missing: context"),
    ],
)
def test_a_replay_may_find_more_wrong_with_the_file(error: Exception, verdict: str, reason: str) -> None:
    report = judge(fixture("plain-text"), "daemon", raising(error))
    assert (report.verdict, report.reason) == (verdict, reason)


def test_a_replay_that_could_not_be_carried_out_is_no_verdict() -> None:
    with pytest.raises(NousError, match="Reading or writing failed"):
        judge(fixture("plain-text"), "daemon", raising(NousError("io_failure", "no daemon")))


def test_the_file_is_judged_before_it_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(fixture("plain-text").read_bytes()[:-1])
    assert judge(path, "daemon", raising(AssertionError("not to be replayed"))).verdict == "broken"
