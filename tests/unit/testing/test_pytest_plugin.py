"""Recordings as pytest items, as somebody else's project has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import recordings
from tests.support.home import ROOT, SCALE
from tests.support.recordings import edited, fixture, position, write_sealed


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with one good and one diverged recording."""
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "good.trace.ndjson").write_bytes(fixture("plain-text").read_bytes())
    lines = recordings.read_lines(fixture("two-tools"))
    at = position(lines, "tool_execution_end")
    lines[at] = edited(lines[at], lambda data: data["payload"].update(result="other"))
    write_sealed(runs / "other.trace.ndjson", lines)
    (runs / "sample.trace.ndjson.broken").write_bytes(b"x")
    (tmp_path / "test_more.py").write_text("def test_more(): pass\n", encoding="utf-8")
    return tmp_path


def run_pytest(project: Path, *arguments: str, ini: str = "") -> subprocess.CompletedProcess[str]:
    (project / "pytest.ini").write_text(f"[pytest]\n{ini}\n", encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "nous.testing.pytest_plugin", "-p", "no:cacheprovider", *arguments],
        cwd=project,
        capture_output=True,
        encoding="utf-8",
        env={
            "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
        },
        timeout=120 * SCALE,
        check=False,
    )


def test_each_recording_is_one_item(project: Path) -> None:
    done = run_pytest(project, "--collect-only", "-q")
    assert done.stdout.split("\n")[:3] == [
        "runs/good.trace.ndjson::engine",
        "runs/other.trace.ndjson::engine",
        "test_more.py::test_more",
    ]


def test_a_divergence_is_the_failure(project: Path) -> None:
    done = run_pytest(project)
    assert done.returncode == 1
    assert "1 failed, 2 passed" in done.stdout
    assert "diverged (engine mode): event " in done.stdout
    assert "$.payload.result" in done.stdout
    assert "  expected  " in done.stdout
    assert "  actual    " in done.stdout
    assert "nous replay --update" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "ini"), [(("--nous-replay-mode", "daemon"), ""), ((), "nous_replay_mode = daemon")]
)
def test_the_mode_is_chosen_by_option_or_ini(project: Path, arguments: tuple[str, ...], ini: str) -> None:
    done = run_pytest(project, "-v", "runs", *arguments, ini=ini)
    assert "runs/good.trace.ndjson::daemon PASSED" in done.stdout
    assert "diverged (daemon mode): event " in done.stdout


def test_the_option_counts_more_than_the_ini(project: Path) -> None:
    done = run_pytest(
        project, "runs/good.trace.ndjson", "-v", "--nous-replay-mode=engine", ini="nous_replay_mode = daemon"
    )
    assert "good.trace.ndjson::engine PASSED" in done.stdout


def test_a_mode_that_there_is_not_is_a_usage_error(project: Path) -> None:
    done = run_pytest(project, "runs", ini="nous_replay_mode = fast")
    assert done.returncode != 0
    assert "nous_replay_mode: expected one of engine, daemon, not 'fast'" in done.stdout + done.stderr


def test_what_is_broken_fails_with_its_reason(project: Path) -> None:
    path = project / "runs" / "good.trace.ndjson"
    path.write_bytes(path.read_bytes()[:-1])
    done = run_pytest(project, str(path))
    assert done.returncode == 1
    assert "broken (engine mode): cut: bytes without a line end stand at its end" in done.stdout
