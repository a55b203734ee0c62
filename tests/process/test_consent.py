"""Nobody makes a state directory who was not told to from outside: no command, no daemon, no line of the code."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from nous.cli.main import COMMANDS
from nous.system.state_dir import read_bootstrap_record
from tests.support.answers import answer
from tests.support.daemon import run_nous, spawned
from tests.support.home import ROOT, Home, Setup

pytestmark = pytest.mark.anyio

SERVE: Final = ("serve", "--provider", "mock")
ASK: Final = ("prompt", "hello", "--provider", "mock")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# Every command as somebody would type it on a machine that has no state directory, without a permission.
WITHOUT_CONSENT: Final[list[Sequence[str]]] = [
    SERVE,
    ASK,
    ("ctl", "ping", "--socket", "absent.sock"),
    ("trace", "list"),
    ("trace", "show", "run-1"),
    ("trace", "export", "run-1"),
    ("session", "list"),
    ("session", "show", "ses-1"),
    ("session", "export", "ses-1"),
    ("session", "compact", "ses-1"),
    ("session", "verify"),
    ("models",),
    ("auth", "check"),
    ("config", "show"),
    ("config", "check"),
    ("trust", "--list"),
    ("trust", "."),
    ("trust", ".", "--forget"),
    ("replay", "absent.trace.ndjson"),
    ("doctor",),
    ("gc",),
    ("ext", "list"),
    ("ext", "check"),
    ("ext", "trust", "."),
    ("ext", "run", "."),
    ("doctor", "--repair", "--production-readiness"),
    ("schema",),
]


def test_every_command_is_tried() -> None:
    assert {arguments[0] for arguments in WITHOUT_CONSENT} >= set(COMMANDS) - {"init"}


@pytest.mark.parametrize("arguments", WITHOUT_CONSENT, ids=" ".join)
def test_no_command_makes_a_state_directory_by_itself(home: Home, arguments: Sequence[str]) -> None:
    (home.workdir / ".nous").mkdir()
    (home.workdir / ".nous" / "config.yaml").write_text("{}", encoding="utf-8")
    where = () if arguments[0] == "schema" else ("--state-dir", str(home.state))
    done = run_nous(home, *arguments, *where)
    assert not home.state.exists(), done
    assert not (home.root / ".local").exists(), done


@pytest.mark.parametrize("arguments", [SERVE, ASK, ("trust", ".")], ids=" ".join)
def test_who_needs_one_says_how_to_make_it(home: Home, arguments: Sequence[str]) -> None:
    (home.workdir / ".nous").mkdir()
    (home.workdir / ".nous" / "config.yaml").write_text("{}", encoding="utf-8")
    done = run_nous(home, *arguments, "--state-dir", home.state, "--json")
    found = answer(done)
    assert (done.returncode, found["error_code"]) == (6, "state_dir_missing")
    assert "nous init" in found["hint"]


@pytest.mark.parametrize(
    ("arguments", "environ", "actor"),
    [
        (("init",), {}, "nous init"),
        ((*ASK, "--bootstrap"), {}, "--bootstrap"),
        (ASK, {"NOUS_ALLOW_BOOTSTRAP": "1"}, "NOUS_ALLOW_BOOTSTRAP"),
        ((*SERVE, "--bootstrap"), {"NOUS_ALLOW_BOOTSTRAP": "0"}, "--bootstrap"),
        (SERVE, {"NOUS_ALLOW_BOOTSTRAP": "1"}, "NOUS_ALLOW_BOOTSTRAP"),
    ],
)
def test_who_permitted_it_is_recorded(
    home: Home, arguments: Sequence[str], environ: dict[str, str], actor: str
) -> None:
    assert run_nous(home, *arguments, "--state-dir", home.state, environ=environ).returncode == 0
    record = read_bootstrap_record(home.state)
    assert record is not None
    assert record.actor == actor


@pytest.mark.parametrize("text", ["", "true", "yes", "01", " 1"])
def test_a_permission_is_never_guessed(home: Home, text: str) -> None:
    done = run_nous(home, *SERVE, "--state-dir", home.state, "--json", environ={"NOUS_ALLOW_BOOTSTRAP": text})
    assert (done.returncode, answer(done)["error_code"]) == (6, "invalid_config")
    assert not home.state.exists()


async def test_the_permission_is_not_handed_on_to_what_a_model_starts(home: Home) -> None:
    command = "echo permission=${NOUS_ALLOW_BOOTSTRAP-none}"
    call = [{"tool_call": {"name": "bash", "arguments": {"command": command}}}]
    setup = Setup(script=[call, [{"text": "done"}]], environ={"NOUS_ALLOW_BOOTSTRAP": "1"})
    async with spawned(home, setup) as client:
        await client.call("prompt", text="go", wait=True)
    assert any(b'"permission=none' in line for line in home.session_lines())


# -- the code


def sources() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted((ROOT / "nous").rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_bytes())


def test_the_permission_stands_nowhere_but_where_it_is_read() -> None:
    named: dict[str, set[str]] = {"--bootstrap": set(), "NOUS_ALLOW_BOOTSTRAP": set()}
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node.value in named:
                named[str(node.value)].add(path)
    assert named == {
        "--bootstrap": {"nous/cli/options.py", "nous/cli/serve.py", "nous/system/state_dir.py"},
        "NOUS_ALLOW_BOOTSTRAP": {
            "nous/cli/doctor/production.py",
            "nous/cli/serve.py",
            "nous/config/layers.py",
            "nous/system/state_dir.py",
            "nous/tools/environment.py",
        },
    }


def test_only_those_that_may_make_a_state_directory_do() -> None:
    makers = {
        path
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "init_state_dir"
    }
    assert makers == {"nous/cli/init.py", "nous/replay/stage.py", "nous/system/state_dir.py"}


def test_no_call_gives_a_permission_of_its_own() -> None:
    """``open_state_dir`` is called without a permission, or with the one that came from outside."""
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "open_state_dir":
                given = [ast.unparse(argument) for argument in (*node.args[1:], *(k.value for k in node.keywords))]
                assert given in ([], ["permission(options, settings)"]), path


def test_a_replay_works_in_a_directory_of_its_own(home: Home) -> None:
    recording = next((ROOT / "fixtures" / "runs").glob("*.trace.ndjson"))
    done = run_nous(home, "replay", recording, "--mode", "daemon", "--json")
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["ok"]
    assert not (home.root / ".local").exists()
