"""``nous config`` and ``nous trust`` as a shell sees them, over all six layers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from nous.config.keys import KEYS
from tests.support.answers import Done, answer
from tests.support.daemon import run_nous, spawned
from tests.support.home import Home, Setup, spawn

pytestmark = pytest.mark.anyio


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def state(home: Home) -> Home:
    assert run_nous(home, "init", "--state-dir", home.state).returncode == 0
    return home


def write_project(home: Home, text: str) -> Path:
    path = home.workdir / ".nous" / "config.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def config(home: Home, *arguments: str | Path, **environ: str) -> Done:
    return run_nous(home, "config", *arguments, "--state-dir", home.state, environ=environ)


def trust(home: Home, *arguments: str | Path) -> Done:
    return run_nous(home, "trust", *arguments, "--state-dir", home.state)


def shown(home: Home, path: str, *arguments: str | Path, **environ: str) -> tuple[Any, str]:
    """Return a setting's value and source."""
    row = answer(config(home, "show", "--json", *arguments, **environ))["settings"][path]
    return row["value"], row["source"]


# -- show


def test_show_names_every_setting_its_value_and_its_source(state: Home) -> None:
    found = answer(config(state, "show", "--json"))
    assert set(found["settings"]) >= {key.path for key in KEYS.values() if not key.is_open}
    assert found["settings"]["daemon.max_runs"] == {"value": 64, "source": "default"}
    assert found["settings"]["state_dir"] == {"value": str(state.state), "source": "--state-dir"}
    assert found["project"] is None


def test_each_layer_wins_over_those_below_it(state: Home) -> None:
    path = "daemon.log_level"
    assert shown(state, path) == ("info", "default")
    user = state.root / ".config" / "nous" / "config.yaml"
    user.parent.mkdir(parents=True)
    user.write_text("# mine\ndaemon:\n  log_level: error\n", encoding="utf-8")
    assert shown(state, path) == ("error", f"{user}:3")
    project = write_project(state, "daemon: {log_level: warning}\n")
    assert shown(state, path) == ("error", f"{user}:3"), "not trusted"
    assert trust(state, state.workdir).returncode == 0
    assert shown(state, path) == ("warning", f"{project}:1")
    given = state.root / "given.yaml"
    given.write_text("daemon: {log_level: info}\n", encoding="utf-8")
    assert shown(state, path, "--config", given) == ("info", f"{given}:1")
    assert shown(state, path, "--config", given, NOUS_LOG_LEVEL="debug") == ("debug", "NOUS_LOG_LEVEL")
    flag = ("--log-level", "error")
    assert shown(state, path, "--config", given, *flag, NOUS_LOG_LEVEL="debug") == ("error", "--log-level")


def test_show_for_people_says_the_same(state: Home) -> None:
    done = config(state, "show", NOUS_MODEL="m-1")
    assert done.returncode == 0
    rows = [line for line in done.stdout.decode().split("\n") if line.startswith("provider.model ")]
    assert [row.split(None, 1)[1].strip() for row in rows] == ['"m-1"  # NOUS_MODEL']


def test_what_a_header_holds_is_never_shown(state: Home) -> None:
    given = state.root / "given.yaml"
    given.write_text("provider: {headers: {x-team: tiger-47}}\n", encoding="utf-8")
    for arguments in (("show",), ("show", "--json"), ("get", "provider"), ("get", "provider.headers.x-team", "--json")):
        done = config(state, *arguments, "--config", given)
        assert done.returncode == 0
        assert b"<hidden>" in done.stdout
        assert b"tiger-47" not in done.stdout + done.stderr


def test_the_state_directory_is_the_one_that_was_configured(home: Home) -> None:
    elsewhere = home.root / "elsewhere"
    assert run_nous(home, "init", environ={"NOUS_STATE_DIR": str(elsewhere)}).returncode == 0
    assert (elsewhere / "bootstrap.json").exists()
    assert not home.state.exists()
    found = answer(run_nous(home, "config", "show", "--json", environ={"NOUS_STATE_DIR": str(elsewhere)}))
    assert found["state_dir"] == str(elsewhere)
    other = home.root / "other"
    assert run_nous(home, "init", "--state-dir", other, environ={"NOUS_STATE_DIR": str(elsewhere)}).returncode == 0
    assert (other / "bootstrap.json").exists(), "a flag wins over a variable"


def test_a_relative_state_directory_starts_here(home: Home) -> None:
    assert run_nous(home, "init", "--state-dir", "inside").returncode == 0
    assert (home.workdir / "inside" / "bootstrap.json").exists()


# -- get


@pytest.mark.parametrize(
    ("path", "printed"),
    [
        ("daemon.max_runs", "64"),
        ("daemon.on_eof", "finish"),
        ("provider.name", "null"),
        ("prompt.agents_md", "true"),
        ("provider.headers", "{}"),
        ("prompt", '{"system":null,"system_file":null,"agents_md":true}'),
    ],
)
def test_get(home: Home, path: str, printed: str) -> None:
    done = config(home, "get", path)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{printed}\n", b"")


@pytest.mark.parametrize(
    "path", ["daemon.max_run", "daemon.max_runs.x", "x", "", ".", "tools.policy.bash", "provider."]
)
def test_get_of_what_there_is_not(home: Home, path: str) -> None:
    done = config(home, "get", path, "--json")
    found = answer(done)
    assert (done.returncode, found["error_code"]) == (6, "invalid_usage")
    assert repr(path) in found["error"]


# -- check


def test_check_names_the_files_that_set_something(state: Home) -> None:
    given = state.root / "given.yaml"
    given.write_text("daemon: {max_runs: 3}\n", encoding="utf-8")
    assert answer(config(state, "check", "--json", "--config", given))["files"] == [str(given)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: 1\n", "1: a: unknown key"),
        ("\nprovider:\n  name: openai\n  name: mock\n", "4: provider.name: duplicate key"),
        ("provider.name: mock\n", "1: provider.name: a key with a dot"),
        ("- provider\n", "1: expected a mapping"),
        ("daemon: {max_runs: many}\n", "1: daemon.max_runs: expected an integer"),
        ("provider: {headers: {authorization: x}}\n", "1: provider.headers.authorization: secrets never stand"),
        ("daemon:\n  max_rums: 1\n", "2: daemon.max_rums: unknown key; did you mean daemon.max_runs?"),
    ],
)
def test_check_names_file_line_and_key(home: Home, text: str, what: str) -> None:
    given = home.root / "given.yaml"
    given.write_text(text, encoding="utf-8")
    for arguments in (("--config", given), (given,)):
        done = config(home, "check", "--json", *arguments)
        found = answer(done)
        assert (done.returncode, found["error_code"]) == (6, "invalid_config")
        assert f"{given}:{what}" in found["error"]


@pytest.mark.parametrize("environ", [{}, {"MY_KEY": ""}])
def test_check_names_the_variable_that_holds_nothing(home: Home, environ: dict[str, str]) -> None:
    given = home.root / "given.yaml"
    given.write_text("provider: {api_key_env: MY_KEY}\n", encoding="utf-8")
    done = config(home, "check", "--json", "--config", given, **environ)
    assert done.returncode == 6
    assert "MY_KEY" in answer(done)["error"]
    assert config(home, "check", "--config", given, MY_KEY="sk-1234567").returncode == 0


def test_an_unknown_variable_is_refused_by_every_command(home: Home) -> None:
    done = run_nous(home, "session", "list", "--json", environ={"NOUS_MAX_RUNS": "3"})
    assert done.returncode == 6
    assert "NOUS_MAX_RUNS" in answer(done)["error"]


def test_schema_is_a_schema(home: Home) -> None:
    assert json.loads(config(home, "schema").stdout)["title"] == "nous configuration"


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["show", "--nothing"], ["get"]])
def test_wrong_command_lines(home: Home, arguments: Sequence[str]) -> None:
    done = run_nous(home, "config", *arguments, "--json")
    assert (done.returncode, answer(done)["error_code"]) == (6, "invalid_usage")


# -- trust


def test_a_projects_file_counts_while_it_is_what_was_trusted(state: Home) -> None:
    path = write_project(state, "daemon: {max_runs: 3}\n")
    assert shown(state, "daemon.max_runs")[0] == 64
    found = answer(trust(state, state.workdir, "--json"))
    assert found["path"] == str(path)
    assert shown(state, "daemon.max_runs")[0] == 3
    write_project(state, "daemon: {max_runs: 4}\n")
    # What it restricted stays so, what it says now does not count.
    assert shown(state, "daemon.max_runs")[0] == 3
    assert answer(config(state, "show", "--json"))["project"] == {"file": str(path), "trust": "changed"}
    assert trust(state, state.workdir).returncode == 0
    assert shown(state, "daemon.max_runs")[0] == 4
    assert trust(state, state.workdir, "--forget").returncode == 0
    assert shown(state, "daemon.max_runs")[0] == 64
    assert answer(config(state, "show", "--json"))["project"] == {"file": str(path), "trust": "unknown"}


def test_the_project_is_that_of_the_workdir(state: Home) -> None:
    write_project(state, "daemon: {max_runs: 3}\n")
    trust(state, state.workdir)
    other = state.root / "other"
    other.mkdir()
    assert shown(state, "daemon.max_runs", "--workdir", other)[0] == 64


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("provider: {api_base: 'http://evil.example'}", "provider.api_base"),
        ("provider: {api_key_env: HOME}", "provider.api_key_env"),
        ("provider: {headers: {x: y}}", "provider.headers.x"),
        ("provider: {allow_insecure: true}", "provider.allow_insecure"),
        ("state_dir: /elsewhere", "state_dir"),
        ("tools: {allow_outside_workdir: true}", "tools.allow_outside_workdir"),
        ("daemon: {profile: standard}", "daemon.profile"),
    ],
)
def test_what_a_project_may_not_set_cannot_be_trusted(state: Home, text: str, key: str) -> None:
    path = write_project(state, text)
    done = trust(state, state.workdir, "--json")
    assert done.returncode == 6
    assert f"{path}:1: {key}: a project's file may not set this" in answer(done)["error"]
    assert answer(trust(state, "--list", "--json"))["trusted"] == []


def test_there_must_be_something_to_trust_and_somewhere_to_record_it(home: Home) -> None:
    done = trust(home, home.workdir, "--json")
    assert (done.returncode, answer(done)["error_code"]) == (6, "invalid_usage")
    write_project(home, "{}")
    done = trust(home, home.workdir, "--json")
    assert (done.returncode, answer(done)["error_code"]) == (6, "state_dir_missing")
    assert not home.state.exists(), "trust makes no state directory"
    assert answer(trust(home, "--list", "--json"))["trusted"] == []


async def test_a_daemon_takes_a_trusted_file_and_says_when_it_does_not(state: Home) -> None:
    write_project(state, "daemon: {max_runs: 3}\n")
    async with spawn(state, Setup()) as daemon:
        await daemon.process.stdin.aclose()  # type: ignore[union-attr]
        assert await daemon.wait() == 0
    (record,) = [record for record in daemon.log() if record["event"] == "project_config_ignored"]
    assert record["trust"] == "unknown"
    trust(state, state.workdir)
    async with spawn(state, Setup()) as daemon:
        await daemon.process.stdin.aclose()  # type: ignore[union-attr]
        assert await daemon.wait() == 0
    assert not [record for record in daemon.log() if record["event"] == "project_config_ignored"]


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "not a regular file"),
        (Path.mkdir, "a directory"),
        (make_loop, "Too many levels of symbolic links"),
        (make_huge, "longer than"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    ],
    ids=["fifo", "directory", "link loop", "huge", "device"],
)
async def test_no_file_of_a_project_prevents_a_start(state: Home, make: Callable[[Path], object], reason: str) -> None:
    path = state.workdir / ".nous" / "config.yaml"
    path.parent.mkdir()
    make(path)
    async with spawn(state, Setup()) as daemon:
        await daemon.process.stdin.aclose()  # type: ignore[union-attr]
        assert await daemon.wait() == 0
    (record,) = [record for record in daemon.log() if record["event"] == "project_config_ignored"]
    assert record["file"] == str(path)
    assert reason in record["reason"]
    done = trust(state, state.workdir, "--json")
    assert done.returncode != 0
    assert reason in answer(done)["error"]
    assert answer(trust(state, "--list", "--json"))["trusted"] == []


@pytest.mark.parametrize("flag", ["--script", "--replay-from", "--faults", "--config", "system_file"])
@pytest.mark.parametrize("kind", ["fifo", "/dev/zero"])
def test_what_is_no_regular_file_is_refused_by_name(state: Home, flag: str, kind: str) -> None:
    path = state.root / "input"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(kind)
    arguments: list[str | Path] = ["serve", "--state-dir", state.state, "--provider", "mock"]
    if flag == "system_file":
        config = state.root / "c.yaml"
        config.write_text(f"prompt: {{system_file: {path}}}\n")
        arguments += ["--config", config]
    elif flag == "--replay-from":
        arguments = ["serve", "--state-dir", state.state, "--provider", "replay", flag, path]
    else:
        arguments += [flag, path]
    done = run_nous(state, *arguments)
    assert done.returncode not in (0, None)
    assert b"regular file" in done.stderr + done.stdout, (done.stdout, done.stderr)
    assert path.name.encode() in done.stderr + done.stdout


def test_nous_prompt_says_so_too_and_nothing_else(state: Home) -> None:
    path = write_project(state, "daemon: {max_runs: 3}\n")
    arguments = ("prompt", "hello", "--provider", "mock", "--state-dir", state.state)
    done = run_nous(state, *arguments)
    assert (done.returncode, done.stderr.decode()) == (
        0,
        f"nous: {path} does not count: not trusted (nous trust DIR)\n",
    )
    trust(state, state.workdir)
    assert run_nous(state, *arguments).stderr == b""


async def test_what_a_trusted_project_sets_a_daemon_does(state: Home) -> None:
    write_project(state, "tools: {active: [read]}\n")
    trust(state, state.workdir)
    async with spawned(state) as client:
        assert (await client.call("get_state"))["active_tools"] == ["read"]


# -- the profile production


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("--provider", "mock"), "invalid_config", "provider.name: not under the profile production"),
        (("--provider", "ollama", "--model", "m", "--bootstrap"), "unsafe_operation", "--bootstrap"),
    ],
)
def test_production_refuses_what_is_not_meant_for_it(
    home: Home, arguments: Sequence[str], code: str, what: str
) -> None:
    given = home.root / "given.yaml"
    given.write_text("daemon: {profile: production}\n", encoding="utf-8")
    done = run_nous(home, "serve", *arguments, "--state-dir", home.state, "--config", given, "--json")
    found = answer(done)
    assert found["error_code"] == code
    assert what in found["error"]
    assert not home.state.exists()


CALL_BASH: list[list[object]] = [
    [{"tool_call": {"name": "bash", "arguments": {"command": "touch made"}, "id": "c1"}}],
    [{"text": "Done."}],
]


def change(path: Path) -> None:
    path.write_text("tools: {policy: {bash: allow}}", encoding="utf-8")


def cut(path: Path) -> None:
    path.write_text("tools: {", encoding="utf-8")


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def remove(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()


@pytest.mark.parametrize("text", ["tools: {policy: {bash: deny, read: allow}}", "tools: {active: [read, ls]}"])
@pytest.mark.parametrize("change_it", [change, cut, replace_by_fifo, remove])
async def test_what_a_trusted_file_forbade_stays_forbidden_once_it_has_changed(
    state: Home, text: str, change_it: Callable[[Path], None]
) -> None:
    path = write_project(state, text)
    assert trust(state, state.workdir).returncode == 0
    change_it(path)
    async with spawned(state, Setup(script=CALL_BASH)) as client:
        [warning] = client.ready.warnings
        assert warning.code == "project_config_ignored"
        assert warning.message.endswith("What it forbade when it was trusted stays forbidden.")
        assert warning.hint == f"Read it, then type: nous trust {state.workdir}"
        await client.call("prompt", text="go", wait=True)
    assert not (state.workdir / "made").exists()
    assert trust(state, state.workdir, "--forget").returncode == 0
    async with spawned(state, Setup(script=CALL_BASH)) as client:
        await client.call("prompt", text="go", wait=True)
    assert (state.workdir / "made").exists()


def test_a_changed_file_whose_restrictions_were_not_recorded_refuses_the_start(state: Home) -> None:
    path = write_project(state, "tools: {policy: {bash: deny}}")
    assert trust(state, state.workdir).returncode == 0
    [record] = (state.state / "trust").glob("*.json")
    kept = json.loads(record.read_bytes())
    del kept["content"]
    record.write_text(json.dumps(kept), encoding="utf-8")
    change(path)
    serve = ("serve", "--provider", "mock", "--state-dir", state.state, "--json")
    done = run_nous(state, *serve)
    assert answer(done)["error_code"] == "unsafe_operation"
    assert answer(done)["hint"].startswith("Read it, then type: nous trust ")
    assert trust(state, state.workdir).returncode == 0
    assert run_nous(state, *serve).returncode == 0
