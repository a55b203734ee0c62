"""Extensions under a real daemon, as they should be: found, trusted, asked in order, their tools like built-in ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import run_nous
from tests.support.extension_programs import ANSWERING, FIXTURES, write_extension
from tests.support.harness import Peer, check_replays, open_peer, open_process
from tests.support.home import END_SECONDS, Home, Setup
from tests.support.lines import Line, of_type
from tests.support.raw import until
from tests.unit.system.processes import is_running

pytestmark = pytest.mark.anyio

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def users(home: Home) -> Path:
    """Return the user's own place, where nothing needs trust."""
    return home.root / ".config" / "nous" / "extensions"


def projects(home: Home) -> Path:
    return home.workdir / ".nous" / "extensions"


def copy_example(name: str, place: Path) -> Path:
    shutil.copytree(FIXTURES / name, place / name)
    return place / name


def trust(home: Home, directory: Path) -> None:
    run_nous(home, "init", "--state-dir", home.state).check_returncode()
    run_nous(home, "ext", "trust", directory, "--state-dir", home.state).check_returncode()


def calling(name: str, **arguments: object) -> list[object]:
    return [{"tool_call": {"name": name, "arguments": arguments, "id": "c1"}}]


DONE: list[object] = [{"text": "Done."}]


def results(run: list[Line]) -> list[str]:
    return [line.payload["result"] for line in of_type(run, "tool_execution_end")]


async def infos(peer: Peer) -> dict[str, dict[str, Any]]:
    """Return what the daemon says of each extension, once all are up or have failed."""
    assert (await peer.refused("extension_command", {"name": "nobody-has-it"})).startswith("command_rejected")
    return {info["name"]: info for info in (await peer.ok("get_state")).get("extensions", [])}


async def test_an_unknown_command_is_refused_with_those_there_are(home: Home) -> None:
    write_extension(users(home), "silent", hooks=["turn_end"])
    for has_commands in (False, True):
        if has_commands:
            copy_example("words", users(home))
        async with open_peer("stdio", home) as peer:
            unknown = await peer.command("extension_command", {"name": "nobody-has-it"})
            assert (unknown.code, unknown.cause) == (
                "command_rejected",
                "no extension has the command 'nobody-has-it'",
            )
            none = "get_state lists the extensions; none that runs has a command."
            assert unknown.data["error"]["hint"] == ("There are: most_common." if has_commands else none)


# -- the examples


@needs_node
async def test_the_examples_in_one_run(home: Home) -> None:
    for name in ("words", "shout", "no-deletes"):
        trust(home, copy_example(name, projects(home)))
    script = [
        calling("count_words", text="one two"),
        calling("shout", text="hey"),
        calling("bash", command="rm -rf ."),
        calling("count_words", text=1),
        calling("count_words", text="one", least=5),
        DONE,
    ]
    async with open_peer("stdio", home, Setup(script=script)) as peer:
        found = await infos(peer)
        assert {name: (info["state"], info["version"]) for name, info in found.items()} == dict.fromkeys(
            ("no-deletes", "shout", "words"), ("up", "1.0")
        )
        run = await peer.run("hello")
        assert of_type(run, "message_end")[0].payload["text"] == "hello!"
        assert results(run) == [
            "2 words (counted by an extension)",
            "HEY!",
            "Blocked: nothing is deleted recursively here",
            "Invalid arguments: text: 1 is not of type 'string'. (counted by an extension)",
            "only 1 words (counted by an extension)",
        ]
        streamed = [line.payload["delta"] for line in of_type(run, "tool_execution_update")]
        assert "".join(streamed) == "1: one\n2: two\n" + "".join(results(run)[1:4]) + "1: one\n"
        common = await peer.ok("extension_command", {"name": "most_common", "payload": {"limit": 1}})
        assert common["result"] == {"words": [["one", 2]]}
        assert await peer.ok("extension_command", {"name": "volume"}) == {"level": 11, "result": {"level": 11}}
        tools = {tool["name"]: tool for tool in (await peer.ok("list_tools"))["tools"]}
        assert tools["count_words"]["source"] == "extension:words"
        assert tools["count_words"]["active"] is True
        assert tools["count_words"]["schema"]["required"] == ["text"]
    shutil.rmtree(projects(home))
    [trace] = (home.state / "traces").glob("*.ndjson")
    elsewhere = home.root / "run.trace.ndjson"
    shutil.copy(trace, elsewhere)
    for mode in ("engine", "daemon"):
        done = run_nous(home, "replay", elsewhere, "--mode", mode)
        assert done.returncode == 0, done.stdout + done.stderr


async def test_a_tool_that_is_not_active_is_not_run(home: Home) -> None:
    copy_example("words", users(home))
    async with open_peer("stdio", home, Setup(script=[calling("count_words", text="a"), DONE])) as peer:
        await infos(peer)
        await peer.ok("set_active_tools", {"tools": ["read"]})
        [result] = results(await peer.run("go"))
        assert "not active" in result


async def test_a_tool_may_be_named_on_the_command_line(home: Home) -> None:
    copy_example("words", users(home))
    script = [calling("count_words", text="a"), DONE]
    async with open_peer("stdio", home, Setup(script=script, flags=("--tools", "read,count_words"))) as peer:
        assert results(await peer.run("go")) == ["1 words (counted by an extension)"]
        tools = {tool["name"]: tool["active"] for tool in (await peer.ok("list_tools"))["tools"]}
        assert {name for name, active in tools.items() if active} == {"read", "count_words"}


async def test_a_name_that_is_taken_stays_with_who_has_it(home: Home) -> None:
    body = "for call in calls(): result(call, text='mine')"
    write_extension(users(home), "thief", body, tools=["bash", "shared"])
    write_extension(users(home), "late", body.replace("mine", "late"), tools=["shared"], priority=200)
    async with open_peer("stdio", home, Setup(script=[calling("bash", command="echo real"), DONE])) as peer:
        found = await infos(peer)
        assert "real" in results(await peer.run("go"))[0]
        states = {name: info["state"] for name, info in found.items()}
        assert sorted(states.values()) == ["down", "up"]
        [failed] = [info for info in found.values() if info["state"] == "down"]
        assert "has a tool shared already" in failed["last_error"]


async def test_they_are_asked_by_priority_and_then_by_name(home: Home) -> None:
    for name, priority in (("b", 5), ("c", 5), ("a", 9), ("z", -1)):
        body = f"for call in calls(): result(call, text=call['input']['text'] + '{name}')"
        write_extension(users(home), name, body, hooks=["input"], priority=priority)
    async with open_peer("stdio", home, Setup(config={"extensions": {"priority": {"c": 4}}})) as peer:
        run = await peer.run(">")
        assert of_type(run, "message_end")[0].payload["text"] == ">zcba"


async def test_the_first_that_refuses_is_the_last_that_is_asked(home: Home) -> None:
    asked = home.root / "asked"
    write_extension(users(home), "a", "for call in calls(): result(call, block='enough')", hooks=["tool_call"])
    body = f"for call in calls(): open({str(asked)!r}, 'w'); result(call)"
    write_extension(users(home), "b", body, hooks=["tool_call"])
    async with open_peer("stdio", home, Setup(script=[calling("bash", command="echo x"), DONE])) as peer:
        assert results(await peer.run("go")) == ["Blocked: enough"]
    assert not asked.exists()


async def test_a_session_that_may_not_be_left(home: Home) -> None:
    body = "for call in calls(): result(call, cancel='stay')"
    write_extension(users(home), "stay", body, hooks=["session_before_switch", "session_before_fork"])
    async with open_peer("stdio", home) as peer:
        # Asked at once: a hook that guards is waited for.
        assert await peer.refused("new_session") == "policy_blocked: stay"
        await peer.run("hello")
        session = (await peer.ok("get_state"))["session_id"]
        assert await peer.refused("branch_session", {"session_id": session}) == "policy_blocked: stay"


# -- trust


def marked(home: Home, place: Path) -> tuple[Path, Path]:
    """Write an extension that leaves a mark when it runs; return its directory and the mark."""
    mark = home.root / "it-ran"
    return write_extension(place, "one", f"open({str(mark)!r}, 'w')\n{ANSWERING}", hooks=["tool_call"]), mark


async def test_nothing_of_a_project_runs_before_it_was_trusted(home: Home) -> None:
    directory, mark = marked(home, projects(home))
    async with open_peer("stdio", home) as peer:
        one = (await infos(peer))["one"]
        assert one["state"] == "down"
        assert "is not trusted" in one["last_error"]
        await peer.run("hello")
    assert not mark.exists()
    for arguments in (["check"], ["list"], ["run", directory]):
        run_nous(home, "ext", *arguments, "--state-dir", home.state)
        assert not mark.exists(), arguments
    trust(home, directory)
    async with open_peer("stdio", home) as peer:
        assert (await infos(peer))["one"]["state"] == "up"
    assert mark.exists()


@pytest.mark.parametrize("name", ["extension.yaml", "main.py", "new.py", "sub/deep"])
async def test_what_has_changed_must_be_trusted_again(home: Home, name: str) -> None:
    directory, mark = marked(home, projects(home))
    trust(home, directory)
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("\n# changed\n")
    async with open_peer("stdio", home) as peer:
        assert "has changed since it was trusted" in (await infos(peer))["one"]["last_error"]
    assert not mark.exists()


async def test_what_changes_meanwhile_is_not_started_again(home: Home) -> None:
    directory = write_extension(projects(home), "one", "for call in calls(): os._exit(1)", hooks=["tool_call"])
    trust(home, directory)
    script = [calling("bash", command="touch ran"), DONE] * 2
    async with open_peer("stdio", home, Setup(script=script)) as peer:
        await peer.run("dies")
        (directory / "main.py").write_text("raise SystemExit", encoding="utf-8")
        [warning] = of_type(await peer.run("changed"), "warning")[:1]
        assert warning.payload["reason"] == f"it may not run: {directory} has changed since it was trusted"
        assert (await infos(peer))["one"]["restarts"] == 0
    assert not (home.workdir / "ran").exists()


async def test_a_trusted_extension_does_not_change_itself(home: Home) -> None:
    directory = copy_example("words", projects(home))
    (directory / "helper.py").write_text("ANSWER = 42\n", encoding="utf-8")
    main = directory / "words.py"
    main.write_text(f"import helper\n{main.read_text(encoding='utf-8')}", encoding="utf-8")
    trust(home, directory)
    for _ in range(2):
        async with open_peer("stdio", home) as peer:
            assert (await infos(peer))["words"]["state"] == "up"


async def test_a_manifest_that_is_wrong_costs_nothing_but_the_extension(home: Home) -> None:
    write_extension(users(home), "wrong", hooks=["tool_call"], nonsense=1)
    copy_example("words", users(home))
    async with open_peer("stdio", home) as peer:
        found = await infos(peer)
        assert found["words"]["state"] == "up"
        assert "extension.yaml:1: nonsense: unknown key" in found["wrong"]["last_error"]
    checked = run_nous(home, "ext", "check", users(home) / "wrong")
    assert checked.returncode == 6
    assert b"nonsense: unknown key" in checked.stderr


# -- configuration, environment


async def test_the_configuration_decides(home: Home) -> None:
    write_extension(users(home), "slow", "for call in calls(): time.sleep(1000)", hooks=["tool_call"])
    write_extension(users(home), "out", ANSWERING, hooks=["tool_call"])
    config = {
        "extensions": {"skip": ["out"], "hook_timeout_ms": {"slow": 200}, "on_failure": {"slow": "warn"}},
    }
    script = [calling("bash", command="echo passed"), DONE]
    async with open_peer("stdio", home, Setup(script=script, config=config)) as peer:
        assert set(await infos(peer)) == {"slow"}
        run = await peer.run("go")
        assert "passed" in results(run)[0]
        [warning] = of_type(run, "warning")
        assert (warning.payload["code"], warning.payload["timeout_ms"]) == ("extension_timeout", 200)


async def test_all_can_be_left_out(home: Home) -> None:
    copy_example("words", users(home))
    async with open_peer("stdio", home, Setup(config={"extensions": {"enabled": False}})) as peer:
        assert await infos(peer) == {}


async def test_it_gets_an_allowlist_of_the_environment(home: Home) -> None:
    body = "for call in calls(): result(call, text=json.dumps(dict(os.environ)))"
    write_extension(users(home), "env", body, tools=["show_env"], env=["WANTED", "MY_API_KEY"])
    environ = {"WANTED": "w", "OTHER": "o", "MY_API_KEY": "k-123456", "LC_TIME": "C"}
    setup = Setup(
        script=[calling("show_env"), DONE], environ=environ, config={"provider": {"api_key_env": "MY_API_KEY"}}
    )
    async with open_peer("stdio", home, setup) as peer:
        found = json.loads(results(await peer.run("go"))[0])
    assert found.pop("NOUS_WORKDIR") == str(home.workdir)
    assert "MY_API_KEY" not in found
    assert set(found) - {"_NOUS_TREE", "LC_CTYPE"} == {
        "PATH", "HOME", "LANG", "LC_TIME", "WANTED", "PYTHONDONTWRITEBYTECODE", "NOUS_CORRELATION_ID",
    }  # fmt: skip


async def test_stderr_and_log_go_to_the_daemon_s_log(home: Home) -> None:
    body = "print('a word', file=sys.stderr, flush=True)\nsend(type='log', level='warning', message='another')\n"
    write_extension(users(home), "talks", body + ANSWERING)
    async with open_process(home) as (peer, spawned):
        await infos(peer)
        await until(lambda: spawned.stderr().count(b"extension_log") + spawned.stderr().count(b"extension_stderr") == 2)
        await peer.end()
        await peer.rest()
        await spawned.wait()
        log = {record["event"]: record for record in spawned.log()}
    assert (log["extension_stderr"]["line"], log["extension_stderr"]["extension"]) == ("a word", "talks")
    assert (log["extension_log"]["message"], log["extension_log"]["level"]) == ("another", "warning")


# -- tools that fail, and the end


async def test_a_tool_that_hangs_is_told_and_said(home: Home) -> None:
    body = """
for raw in iter(sys.stdin.buffer.readline, b""):
    line = json.loads(raw)
    if line["type"] == "cancel": result(line, text="late")
"""
    write_extension(users(home), "slow", body, tools=["hang"], tool_timeout_ms=200)
    async with open_peer("stdio", home, Setup(script=[calling("hang"), DONE])) as peer:
        run = await peer.run("go")
        assert results(run) == ["The tool failed: no answer within 200 ms."]
        assert run[-1].payload["status"] == "completed"
        [*_, warning] = await peer.events_until("warning", code="extension_timeout")
        said = warning.payload
        assert (said["extension"], said["tool"], said["operation_id"], said["timeout_ms"]) == (
            "slow",
            "hang",
            "c1",
            200,
        )
        await until_late(peer)


async def until_late(peer: Peer) -> None:
    while (await infos(peer))["slow"]["late_answers"] < 1:
        pass


async def test_an_aborted_tool_is_cancelled(home: Home) -> None:
    noted = home.root / "noted"
    body = f"""
for raw in iter(sys.stdin.buffer.readline, b""):
    line = json.loads(raw)
    if line["type"] == "call": send(type="progress", id=line["id"], text="begun")
    else: open({str(noted)!r}, "w").write(line["reason"]); result(line, text="")
"""
    write_extension(users(home), "slow", body, tools=["hang"])
    async with open_peer("stdio", home, Setup(script=[calling("hang")])) as peer:
        run_id = await peer.start("go")
        await peer.events_until("tool_execution_update")
        await peer.ok("abort")
        assert (await peer.run_events(run_id))[-1].payload["status"] == "aborted"
        await until(lambda: noted.exists() and noted.read_text(encoding="utf-8") == "aborted")


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_daemon_that_dies_takes_its_extensions_along(home: Home, number: signal.Signals) -> None:
    pid_file = home.root / "pid"
    body = f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen({str(pid_file)!r}, 'w').write(str(os.getpid()))\n"
    write_extension(users(home), "deaf", f"{body}while True: time.sleep(1000)", hooks=["tool_call"])
    async with open_process(home) as (peer, spawned):
        assert (await infos(peer))["deaf"]["state"] == "up"
        await until(lambda: pid_file.exists() and bool(pid_file.read_text(encoding="utf-8")))
        pid = int(pid_file.read_text(encoding="utf-8"))
        assert is_running(pid)
        spawned.signal(number)
        await spawned.wait(END_SECONDS)
        await until(lambda: not is_running(pid))


def test_without_extensions_nothing_of_them_is_imported(home: Home) -> None:
    program = (
        "import sys; from nous.cli.main import main; code = main(sys.argv[1:]);"
        "names = {'nous.extension', 'nous.extensions', 'jsonschema', 'yaml'};"
        "print(sorted(m for m in sys.modules if m in names or m.startswith('nous.extensions.')), file=sys.stderr);"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", *home.arguments(Setup())],
        input=b'{"id":"1","type":"prompt","payload":{"text":"x"}}\n',
        capture_output=True,
        cwd=home.workdir,
        env=home.environ(),
        timeout=60,
        check=True,
    )
    assert b'"agent_end"' in done.stdout
    assert done.stderr.decode().strip().split(os.linesep)[-1] == "['nous.extensions', 'nous.extensions.places']"
    check_replays(home)
