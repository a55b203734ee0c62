"""The operational log: who asks for it gets it, as its schema says, and nobody is hurt by it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.daemon import run_nous
from tests.support.home import ROOT, Home

SCHEMA = json.loads((ROOT / "protocol" / "v1" / "operations.schema.json").read_bytes())
SECRET = "sk-very-secret-0123456789"
CONTENT = "what-a-person-said"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    assert run_nous(home, "init", "--state-dir", home.state).returncode == 0
    (home.root / "on.yaml").write_text("operations: {log: true}\n", encoding="utf-8")
    return home


def log_of(home: Home) -> Path:
    return home.state / "operations.ndjson"


def lines(home: Home) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in log_of(home).read_bytes().split(b"\n")[:-1]]
    for line in found:
        jsonschema.Draft202012Validator(SCHEMA).validate(line)
    return found


def nous(home: Home, *arguments: str, environ: dict[str, str] | None = None) -> tuple[int, bytes]:
    done = run_nous(
        home,
        *arguments,
        "--state-dir",
        home.state,
        "--config",
        home.root / "on.yaml",
        "--correlation-id",
        "op.1",
        environ=environ,
    )
    return done.returncode, done.stderr


def test_it_is_off_unless_asked_for(home: Home) -> None:
    assert run_nous(home, "session", "list", "--state-dir", home.state).returncode == 0
    assert not log_of(home).exists()


def test_a_start_and_an_end_per_command(home: Home) -> None:
    assert nous(home, "session", "list") == (0, b"")
    assert nous(home, "session", "show", "nobody")[0] == 6
    started, ended, _, failed = lines(home)
    assert (started["event"], started["command"], started["correlation_id"]) == ("command_started", "session", "op.1")
    assert (ended["event"], ended["exit_code"], ended["error_category"]) == ("command_ended", 0, None)
    assert (ended["pid"], ended["correlation_id"]) == (started["pid"], "op.1")
    assert (failed["exit_code"], failed["error_code"]) == (6, "session_not_found")
    assert failed["error_category"] == "invalid_input"
    assert stat.S_IMODE(log_of(home).stat().st_mode) == 0o600


def test_a_run_stands_in_it_without_content_and_keys(home: Home) -> None:
    code, _ = nous(home, "prompt", CONTENT, "--provider", "mock", environ={"OPENAI_API_KEY": SECRET})
    assert code == 0
    assert {line["command"] for line in lines(home)} >= {"prompt", "serve"}
    written = log_of(home).read_text(encoding="utf-8")
    assert CONTENT not in written
    assert SECRET not in written


@pytest.mark.parametrize("obstacle", ["directory", "fifo", "link"])
def test_its_failure_changes_no_outcome(home: Home, obstacle: str) -> None:
    elsewhere = home.root / "elsewhere"
    if obstacle == "directory":
        log_of(home).mkdir()
    elif obstacle == "fifo":
        os.mkfifo(log_of(home))
    else:
        log_of(home).symlink_to(elsewhere)
    code, stderr = nous(home, "session", "list", "--json")
    assert code == 0
    assert [json.loads(line)["event"] for line in stderr.split(b"\n")[:-1]] == ["operations_log_failed"]
    assert nous(home, "session", "show", "nobody")[0] == 6
    assert not elsewhere.exists()


def test_a_directory_that_is_no_state_directory_yet_stays_empty(home: Home) -> None:
    home.state = home.root / "new"
    home.state.mkdir()
    assert nous(home, "session", "list")[0] == 0
    assert list(home.state.iterdir()) == []
    assert nous(home, "init")[0] == 0
