"""Files and directories, one process or several: the same verdicts in the same order."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nous.errors import NousError
from nous.replay.report import Report
from nous.replay.run_many import SUFFIX, find_files, replay_many, replay_one
from nous.testing import pytest_plugin
from tests.support.recordings import FIXTURES, RUNS, fixture


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("b.trace.ndjson", "a/z.trace.ndjson", "a/y.trace.ndjson.broken", "c.ndjson"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(fixture("plain-text").read_bytes())
    (tmp_path / "d.trace.ndjson").mkdir()
    return tmp_path


def test_a_directory_means_its_recordings_and_a_file_itself(directory: Path) -> None:
    found = [directory / "a" / "z.trace.ndjson", directory / "b.trace.ndjson"]
    assert find_files([directory]) == found
    assert find_files([directory / "c.ndjson", directory]) == [directory / "c.ndjson", *found]
    assert find_files([directory / "b.trace.ndjson", directory]) == [found[1], found[0]]


def test_what_is_not_there_is_a_wrong_command_line(directory: Path) -> None:
    for path, reason in (
        (directory / "absent", "no such file or directory"),
        (directory / "d.trace.ndjson", "holds no"),
        (Path("/dev/null"), "is neither a file nor a directory"),
    ):
        with pytest.raises(NousError, match=reason) as caught:
            find_files([directory, path])
        assert caught.value.code == "invalid_usage"


def test_the_plugin_collects_the_same_files() -> None:
    assert pytest_plugin.SUFFIX == SUFFIX


def without_time(reports: list[Report]) -> list[Report]:
    return [msgspec.structs.replace(report, elapsed_ms=0) for report in reports]


def test_several_processes_come_to_the_same_in_the_same_order(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"x")
    paths = [*FIXTURES, broken]
    assert paths[:-1] == find_files([RUNS])
    one = list(replay_many(paths, "engine"))
    assert without_time(list(replay_many(paths, "engine", 2))) == without_time(one)
    assert [report.verdict for report in one] == ["identical"] * len(FIXTURES) + ["not_a_trace"]


def test_both_modes() -> None:
    for mode in ("engine", "daemon"):
        report = replay_one(fixture("plain-text"), mode)
        assert (report.verdict, report.mode) == ("identical", mode)
