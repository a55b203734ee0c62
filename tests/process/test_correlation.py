"""One id per call: what was given, or a new one, and the same in logs, traces, wire errors, answers and children."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from nous.cli.main import COMMANDS
from nous.extensions.places import user_directory
from tests.support.answers import answer
from tests.support.daemon import run_nous
from tests.support.extension_programs import ANSWERING, write_extension
from tests.support.home import Home, Setup

WRONG: Final = b'{"id":"c1","type":"nothing"}\n'
TELL: Final = {"name": "bash", "arguments": {"command": "echo id=$NOUS_CORRELATION_ID"}}
PROMPT: Final = b'{"id":"c2","type":"prompt","payload":{"text":"go","wait":true}}\n'
NEW: Final = re.compile(r"[0-9a-f]{16}")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def serve(home: Home, *flags: str, environ: dict[str, str] | None = None) -> list[str]:
    """Run a daemon that refuses a command and runs a tool; return the ids found in all that it left behind."""
    setup = Setup(script=[[{"tool_call": TELL}], [{"text": "done"}]], flags=("--log-level", "debug", *flags))
    done = run_nous(home, "serve", *home.arguments(setup), stdin=WRONG + PROMPT, environ=environ)
    assert done.returncode == 0, done
    lines = [json.loads(line) for line in done.stdout.split(b"\n")[:-1]]
    errors = [line["error"]["correlation_id"] for line in lines if line.get("ok") is False]
    logged = [json.loads(line).get("correlation_id") for line in done.stderr.split(b"\n")[:-1]]
    (trace,) = (home.state / "traces").glob("*.ndjson")
    header: dict[str, Any] = json.loads(trace.read_bytes().partition(b"\n")[0])
    told = re.findall(r'"id=([^\\"]*)\\n"', " ".join(line.decode() for line in home.session_lines()))
    assert all((errors, logged, told))
    return [*errors, *logged, *told, header["correlation_id"]]


def test_the_one_of_the_flag_is_found_everywhere(home: Home) -> None:
    assert set(serve(home, "--correlation-id", "ticket-47", environ={"NOUS_CORRELATION_ID": "other"})) == {"ticket-47"}


def test_the_one_of_the_variable_is_found_everywhere(home: Home) -> None:
    assert set(serve(home, environ={"NOUS_CORRELATION_ID": "ci.run:12"})) == {"ci.run:12"}


def test_without_one_there_is_a_new_one_the_same_everywhere(home: Home) -> None:
    (found,) = set(serve(home))
    assert NEW.fullmatch(found)


def test_nous_prompt_hands_its_own_on_to_the_daemon(home: Home) -> None:
    arguments = ("prompt", "go", "--provider", "mock", "--bootstrap", "--state-dir", home.state)
    done = run_nous(home, *arguments, "--correlation-id", "from-the-shell")
    assert done.returncode == 0, done
    (trace,) = (home.state / "traces").glob("*.ndjson")
    assert json.loads(trace.read_bytes().partition(b"\n")[0])["correlation_id"] == "from-the-shell"


def test_an_extension_has_it(home: Home) -> None:
    seen = home.root / "seen"
    body = f"open({str(seen)!r}, 'w').write(os.environ.get('NOUS_CORRELATION_ID', ''))\n{ANSWERING}"
    directory = write_extension(user_directory(home.environ()), "mine", body)
    done = run_nous(home, "ext", "run", directory, "--correlation-id", "ticket-47", "--json")
    assert answer(done)["correlation_id"] == "ticket-47"
    assert seen.read_text(encoding="utf-8") == "ticket-47"


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("schema", "prompt")])
def test_every_command_answers_with_it(home: Home, command: str) -> None:
    for flag in (["--correlation-id", "mine"], ["--correlation-id=mine"]):
        assert answer(run_nous(home, command, "--nothing", "--json", *flag))["correlation_id"] == "mine"
    from_variable = run_nous(home, command, "--nothing", "--json", environ={"NOUS_CORRELATION_ID": "theirs"})
    assert answer(from_variable)["correlation_id"] == "theirs"
    assert NEW.fullmatch(answer(run_nous(home, command, "--nothing", "--json"))["correlation_id"])


@pytest.mark.parametrize("wrong", ["", "two words", "x" * 129, "line\nend", "é"])
@pytest.mark.parametrize("given", ["flag", "variable"])
def test_one_that_cannot_stand_everywhere_is_refused(home: Home, given: str, wrong: str) -> None:
    flags: Sequence[str] = ("--correlation-id", wrong) if given == "flag" else ()
    environ = {"NOUS_CORRELATION_ID": wrong} if given == "variable" else {}
    done = run_nous(home, "session", "list", "--json", "--state-dir", home.state, *flags, environ=environ)
    found = answer(done)
    assert (done.returncode, found["error_code"]) == (6, "invalid_usage")
    assert ("--correlation-id" if given == "flag" else "NOUS_CORRELATION_ID") in found["error"]
    assert NEW.fullmatch(found["correlation_id"])
