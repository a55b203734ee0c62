"""``nous replay`` as a shell sees it: what it prints, what it returns, what it writes."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from nous.cli.main import main
from tests.support import recordings
from tests.support.home import ROOT, SCALE
from tests.support.recordings import edited, fixture, position, write_sealed


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Make a directory with a file for every verdict."""
    directory = tmp_path / "runs"
    directory.mkdir()

    def make(name: str, lines: list[bytes]) -> None:
        write_sealed(directory / f"{name}.trace.ndjson", lines)

    lines = recordings.read_lines(fixture("two-tools"))
    make("good", lines)
    at = position(lines, "tool_execution_end")
    make("other", [*lines[:at], edited(lines[at], lambda d: d["payload"].update(result="\x1b[2Jx")), *lines[at + 1 :]])
    make("lacking", [edited(lines[0], lambda d: d["capture"].update(model="missing")), *lines[1:]])
    (directory / "torn.trace.ndjson").write_bytes(fixture("plain-text").read_bytes()[:-1])
    (directory / "none.trace.ndjson").write_bytes(b"hello\n")
    return directory


def nous(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    """Run a command line in this process; return its exit code and what it printed."""
    code = main(["replay", *map(str, arguments)])
    out, err = capfd.readouterr()
    assert err == "" or code == 6, err
    return code, out + err


def as_json(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, Any]:
    code, out = nous(capfd, *arguments, "--json")
    [line, rest] = out.split("\n")
    assert rest == ""
    return code, msgspec.json.decode(line)


# -- for people


def test_one_line_for_a_file_that_is_identical(capfd: pytest.CaptureFixture[str]) -> None:
    path = fixture("plain-text")
    code, out = nous(capfd, path)
    assert code == 0
    assert out.startswith(f"identical    {path}  completed, 11 events, ")
    assert out.count("\n") == 1


def test_a_line_for_each_the_difference_and_a_sum(capfd: pytest.CaptureFixture[str], runs: Path) -> None:
    code, out = nous(capfd, runs)
    assert code == 5
    lines = out.split("\n")
    assert [line.split("  ")[0] for line in lines if ".trace.ndjson" in line] == [
        "identical",
        "unverified",
        "not a trace",
        "diverged",
        "broken",
    ]
    assert lines[-2] == "1 identical, 1 unverified, 1 not a trace, 1 diverged, 1 broken"
    difference = [line for line in lines if line.startswith("  ")]
    assert [line.split()[0] for line in difference] == ["before"] * 5 + ["expected", "actual"]
    assert "missing: model" in out
    assert "it does not begin with a trace header" in out
    # What a recording holds does not steer the terminal.
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["good"], 0),
        (["good", "none"], 6),
        (["none", "lacking"], 2),
        (["torn", "none"], 2),
        (["torn", "lacking", "none", "other", "good"], 5),
    ],
)
def test_the_worst_verdict_gives_the_exit_code(
    capfd: pytest.CaptureFixture[str], runs: Path, names: list[str], code: int
) -> None:
    assert nous(capfd, *(runs / f"{name}.trace.ndjson" for name in names))[0] == code


@pytest.mark.parametrize("colour", [True, False])
def test_it_is_coloured_on_a_terminal_unless_no_colour_is_wanted(runs: Path, colour: bool) -> None:
    ours, theirs = pty.openpty()
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **({} if colour else {"NO_COLOR": "1"})}
    done = subprocess.run(
        [sys.executable, "-m", "nous", "replay", str(runs / "good.trace.ndjson"), str(runs / "other.trace.ndjson")],
        stdout=theirs,
        env=env,
        timeout=60 * SCALE,
        check=False,
    )
    os.close(theirs)
    out = b""
    try:
        while piece := os.read(ours, 65536):
            out += piece
    except OSError:
        pass  # the terminal is gone
    finally:
        os.close(ours)
    assert done.returncode == 5
    assert (b"\x1b[32midentical" in out) == colour
    assert (b"\x1b[31;1mdiverged" in out) == colour


# -- for machines


def test_json_of_what_is_identical(capfd: pytest.CaptureFixture[str], runs: Path) -> None:
    code, answer = as_json(capfd, runs / "good.trace.ndjson", "--correlation-id", "me")
    assert code == 0
    [report] = answer.pop("reports")
    assert answer == {"ok": True, "correlation_id": "me", "mode": "engine", "counts": {"identical": 1}}
    del report["elapsed_ms"], report["run_id"]
    assert report == {
        "path": str(runs / "good.trace.ndjson"),
        "verdict": "identical",
        "mode": "engine",
        "status": "completed",
        "events": 18,
        "reason": None,
        "divergence": None,
    }


def test_json_of_what_is_not(capfd: pytest.CaptureFixture[str], runs: Path) -> None:
    code, answer = as_json(capfd, runs)
    assert code == 5
    assert {key: answer[key] for key in ("ok", "error_code", "error_category", "retryable")} == {
        "ok": False,
        "error_code": "replay_diverged",
        "error_category": "verification_failed",
        "retryable": False,
    }
    assert "other.trace.ndjson: diverged: event " in answer["error"]
    found = {Path(report["path"]).name.partition(".")[0]: report for report in answer["reports"]}
    assert {name: report["verdict"] for name, report in found.items()} == {
        "good": "identical",
        "lacking": "unverified",
        "none": "not_a_trace",
        "other": "diverged",
        "torn": "broken",
    }
    divergence = found["other"]["divergence"]
    assert divergence["json_path"] == "$.payload.result"
    assert len(divergence["before"]) == 5
    assert divergence["what"] == "event"


@pytest.mark.parametrize(
    ("name", "code", "error_code"), [("torn", 2, "verification_failed"), ("none", 6, "invalid_usage")]
)
def test_json_of_other_verdicts(
    capfd: pytest.CaptureFixture[str], runs: Path, name: str, code: int, error_code: str
) -> None:
    found, answer = as_json(capfd, runs / f"{name}.trace.ndjson")
    assert (found, answer["ok"], answer["error_code"]) == (code, False, error_code)


def test_junit(capfd: pytest.CaptureFixture[str], runs: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    assert nous(capfd, runs, "--junit", report)[0] == 5
    suite = ElementTree.fromstring(report.read_bytes())
    assert {key: suite.attrib[key] for key in ("tests", "failures", "errors")} == {
        "tests": "5",
        "failures": "1",
        "errors": "3",
    }
    kinds = {Path(case.attrib["name"]).name.partition(".")[0]: [child.tag for child in case] for case in suite}
    assert kinds == {"good": [], "lacking": ["error"], "none": ["error"], "other": ["failure"], "torn": ["error"]}
    [failure] = suite.iter("failure")
    assert failure.text is not None
    assert "expected" in failure.text


def test_several_processes(capfd: pytest.CaptureFixture[str], runs: Path) -> None:
    _, one = as_json(capfd, runs)
    _, two = as_json(capfd, runs, "-j", "2")
    for answer in (one, two):
        for report in answer["reports"]:
            del report["elapsed_ms"]
        del answer["correlation_id"]
    assert one == two


def test_daemon_mode(capfd: pytest.CaptureFixture[str], runs: Path) -> None:
    code, answer = as_json(capfd, runs, "--mode", "daemon")
    assert code == 5
    assert [report["verdict"] for report in answer["reports"]] == [
        "identical",
        "unverified",
        "not_a_trace",
        "diverged",
        "broken",
    ]


# -- --update


def test_an_update_says_what_it_changed_and_what_it_refused(capfd: pytest.CaptureFixture[str], runs: Path) -> None:
    code, out = nous(capfd, "--update", runs)
    assert code == 2
    said = {line.partition(".trace")[0].rpartition("/")[2]: line for line in out.split("\n") if ".trace.ndjson" in line}
    assert said["good"].endswith("  unchanged")
    assert "updated: events 18, effects " in said["other"]
    assert "first at event " in said["other"]
    assert "refused: unverified: missing: model" in said["lacking"]
    assert "refused: broken: cut" in said["torn"]
    assert "refused: not_a_trace: " in said["none"]
    assert "  expected  " in out
    assert "\x1b" not in out
    assert nous(capfd, runs / "other.trace.ndjson")[0] == 0
    assert nous(capfd, "--update", runs / "good.trace.ndjson", runs / "other.trace.ndjson")[0] == 0
    assert nous(capfd, "--update", runs / "none.trace.ndjson")[0] == 6


def test_json_of_an_update(capfd: pytest.CaptureFixture[str], runs: Path) -> None:
    code, answer = as_json(capfd, "--update", runs / "other.trace.ndjson")
    assert (code, answer["ok"]) == (0, True)
    [update] = answer["updates"]
    assert update["changed"]
    assert update["before"]["divergence"]["json_path"] == "$.payload.result"
    code, answer = as_json(capfd, "--update", runs)
    assert (code, answer["ok"], answer["error_code"]) == (2, False, "verification_failed")
    assert len(answer["updates"]) == 5


# -- wrong command lines


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "the following arguments are required: PATH"),
        (("absent",), "no such file or directory"),
        (("x", "--mode", "fast"), "invalid choice: 'fast'"),
        (("x", "-j", "0"), "expected a number from 1 to 1024"),
        (("x", "--update", "--mode", "daemon"), "--update goes with neither"),
        (("x", "--update", "--junit", "y"), "--update goes with neither"),
    ],
)
def test_a_wrong_command_line(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out = nous(capfd, *arguments)
    assert code == 6
    assert reason in out


def test_a_directory_without_recordings_is_one_too(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, answer = as_json(capfd, tmp_path)
    assert (code, answer["error_code"]) == (6, "invalid_usage")
    assert "holds no *.trace.ndjson" in answer["error"]
