"""What holds for every command and subcommand of ``nous``: its common flags, and reading where there is nothing yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from nous.cli.config import COMMANDS as CONFIG
from nous.cli.ext import COMMANDS as EXT
from nous.cli.main import COMMANDS
from nous.cli.session import COMMANDS as SESSION
from nous.cli.trace import COMMANDS as TRACE
from tests.support.answers import answer
from tests.support.daemon import run_nous
from tests.support.home import Home

GROUPS: Final = {"config": CONFIG, "ext": EXT, "session": SESSION, "trace": TRACE}

ALL: Final[list[tuple[str, ...]]] = [
    *((name,) for name in COMMANDS if name not in GROUPS),
    *((name, below) for name, group in GROUPS.items() for below in group),
]

READERS: Final = [
    "config show",
    "config check",
    "config schema",
    "trust --list",
    "ext list",
    "ext check",
    "session list",
    "session verify",
    "trace list",
    "models",
    "auth check",
    "doctor",
    "schema",
]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_it_takes_the_flags_that_all_take(home: Home, command: Sequence[str]) -> None:
    done = run_nous(home, *command, "--help")
    assert done.returncode == 0, done
    for flag in ("--state-dir", "--config", "--json", "--correlation-id"):
        assert flag.encode() in done.stdout, f"nous {' '.join(command)} does not take {flag}"


@pytest.mark.parametrize("command", READERS)
def test_who_only_reads_takes_an_absent_state_directory_as_an_empty_one(home: Home, command: str) -> None:
    assert run_nous(home, "init", "--state-dir", home.root / "empty").returncode == 0
    found = []
    for state in (home.root / "empty", home.state):
        done = run_nous(home, *command.split(), "--state-dir", state, "--json", "--correlation-id", "c")
        text = done.stdout.replace(str(state).encode(), b"STATE")
        assert done.returncode == 0, done
        answer(done)
        found.append(text)
    assert found[0] == found[1] or command in ("doctor", "config show")
    assert not home.state.exists()


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_an_unknown_flag_is_never_ignored(home: Home, command: Sequence[str]) -> None:
    done = run_nous(home, *command, "--nothing", "--json")
    assert done.returncode == 6
    assert answer(done)["error_code"] == "invalid_usage"


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_a_wrong_configuration_stops_every_command_that_reads_it(home: Home, command: Sequence[str]) -> None:
    """With the same words, whichever command it is: no setting is ever passed over."""
    done = run_nous(home, *command, "--json", *REQUIRED.get(" ".join(command), ()), environ={"NOUS_TYPO": "1"})
    if " ".join(command) in WITHOUT_CONFIGURATION:
        assert b"NOUS_TYPO" not in done.stdout, "it reads no configuration"
        return
    assert b"NOUS_TYPO: unknown variable" in done.stdout + done.stderr, done
    assert done.returncode == (2 if command[0] == "doctor" else 6)


WITHOUT_CONFIGURATION: Final = {"schema", "ctl", "replay", "config schema", "ext check"}

REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "prompt": ("hello",),
    "auth": ("check",),
    "trust": (".",),
    "config get": ("daemon.max_runs",),
    "ext trust": ("absent",),
    "ext run": ("absent",),
    "session show": ("ses-1",),
    "session tree": ("ses-1",),
    "session compact": ("ses-1",),
    "session export": ("ses-1",),
    "trace show": ("run-1",),
    "trace export": ("run-1",),
    "trace validate": ("run-1",),
    "trace diff": ("run-1", "run-2"),
}
