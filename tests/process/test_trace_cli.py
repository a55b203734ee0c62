"""``nous trace`` as a shell sees it: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.daemon import NOUS, run_nous
from tests.support.home import SCALE, TEST_SECONDS, Home, Setup

SECRET: Final = "sk-abcdefghijklmnop"
RICH: Final = Setup(
    script=[
        [
            {"thinking": "hm"},
            {"text": ["Let me ", f"see {SECRET[:6]}", SECRET[6:]]},
            {"tool_call": {"name": "bash", "arguments": {"command": "cat notes.txt; exit 3"}}},
            {"usage": {"input_tokens": 11, "output_tokens": 22}},
        ],
        [{"text": "Red: \x1b[31m."}],
    ]
)
FAILURE_FIELDS: Final = {"ok", "error", "cause", "error_code", "error_category", "retryable", "hint", "correlation_id"}
Done = subprocess.CompletedProcess[bytes]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    (home.workdir / "notes.txt").write_text(f"Bearer abc.def.ghi\ntoken {SECRET}\n", encoding="utf-8")
    return home


def record(home: Home, text: str, setup: Setup | None = None) -> str:
    """Run a prompt in a daemon of its own; return the run's id."""
    setup = setup or Setup()
    command = json.dumps({"id": "c1", "type": "prompt", "payload": {"text": text, "wait": False}}).encode()
    done = run_nous(home, "serve", *home.arguments(setup), stdin=command + b"\n")
    assert done.returncode == 0, done.stderr
    [accepted] = [a for line in done.stdout.split(b"\n") if line and (a := json.loads(line))["type"] == "accepted"]
    run_id: str = accepted["payload"]["run_id"]
    return run_id


def trace(home: Home, *arguments: str | Path, **environ: str) -> Done:
    return run_nous(home, "trace", *arguments, "--state-dir", home.state, environ=environ)


def answer(done: Done) -> dict[str, Any]:
    """Return the one object that was printed."""
    assert done.stdout.count(b"\n") == 1
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["correlation_id"]
    assert found["ok"] == (done.returncode == 0)
    if not found["ok"]:
        assert set(found) >= FAILURE_FIELDS
    return found


def trace_of(home: Home, run_id: str) -> Path:
    return home.state / "traces" / f"{run_id}.ndjson"


# -- list


def test_an_absent_state_directory_is_an_empty_one(home: Home) -> None:
    assert answer(trace(home, "list", "--json"))["runs"] == []
    assert b"no runs" in trace(home, "list").stdout
    for command in (["show", "run-1"], ["export", "run-1"], ["diff", "run-1", "run-2"]):
        done = trace(home, *command, "--json")
        assert (done.returncode, answer(done)["error_code"]) == (6, "run_not_found")
    assert trace(home, "validate", "run-1").returncode == 6
    assert not home.state.exists()


def test_runs_are_listed_the_newest_first(home: Home) -> None:
    first, second = record(home, "say\n\x1b[1mone"), record(home, "two")
    found = answer(trace(home, "list", "--json"))["runs"]
    assert [run["run_id"] for run in found] == [second, first]
    assert set(found[0]) == {"run_id", "session_id", "status", "started_at", "ended_at", "events"}
    assert (found[0]["status"], found[0]["events"]) == ("completed", 11)
    one = answer(trace(home, "list", "--session", found[1]["session_id"], "--json"))["runs"]
    assert [run["run_id"] for run in one] == [first]
    assert len(answer(trace(home, "list", "--limit", "1", "--json"))["runs"]) == 1
    lines = trace(home, "list").stdout.decode().split("\n")
    assert lines[0].split() == ["RUN", "STATUS", "STARTED", "TOOK", "EVENTS", "PROMPT"]
    assert lines[1].startswith(f"{second}  completed ")
    assert lines[2].endswith("say \\x1b[1mone")
    assert trace(home, "list", "--limit", "0").returncode == 6


def test_files_that_are_no_traces_are_named(home: Home) -> None:
    run_id = record(home, "one")
    (home.state / "traces" / "other.ndjson").write_bytes(b"hello\n")
    done = trace(home, "list")
    assert (done.returncode, done.stderr) == (0, b"nous: not a trace: other.ndjson\n")
    found = answer(trace(home, "list", "--json"))
    assert ([run["run_id"] for run in found["runs"]], found["unreadable"]) == ([run_id], ["other.ndjson"])


# -- show


def test_a_timeline_can_be_read(home: Home) -> None:
    run_id = record(home, "look\ninto it", RICH)
    done = trace(home, "show", run_id)
    lines = [line.split() for line in done.stdout.decode().split("\n")[:-1]]
    assert b"\x1b" not in done.stdout
    assert lines[0] == [run_id, "mock", "mock"]
    shown = [" ".join(words[1:]) for words in lines[2:]]
    assert shown[:3] == ["turn 1 prompt", "user look into it", "thinking hm"]
    assert shown[3].startswith(f"assistant Let me see {SECRET} 11 in, 22 out, 3 deltas, ")
    assert shown[3].endswith("tool_use")
    assert shown[4].startswith("bash command=cat notes.txt; exit 3 error, ")
    assert shown[5].startswith("abc.def.ghi token sk-")
    assert shown[6] == "warning tool_execution_error: The tool failed."
    assert "Red: \\x1b[31m." in shown[7]
    assert shown[8].startswith("completed ")
    assert shown[8].endswith("11 in, 22 out")


def test_a_timeline_as_json(home: Home) -> None:
    run_id = record(home, "look", RICH)
    run = answer(trace(home, "show", run_id, "--json"))["run"]
    assert (run["run_id"], run["status"], run["usage"]["output_tokens"]) == (run_id, "completed", 22)
    [turn] = run["parts"]
    assert [part["type"] for part in turn["parts"]] == ["message", "message", "tool", "warning", "message"]
    message, tool = turn["parts"][1:3]
    assert (message["role"], message["thinking"], message["text"]) == ("assistant", "hm", f"Let me see {SECRET}")
    assert (tool["name"], tool["is_error"], tool["arguments"]) == ("bash", True, {"command": "cat notes.txt; exit 3"})
    assert tool["duration_ms"] >= 0


def on_terminal(home: Home, *arguments: str, **environ: str) -> bytes:
    """Run ``nous trace`` with a terminal as its output; return what it wrote there."""
    ours, theirs = pty.openpty()
    command = [*NOUS, "trace", *arguments, "--state-dir", str(home.state)]
    env = {**home.environ(), "TERM": "xterm", **environ}
    with subprocess.Popen(command, stdout=theirs, cwd=home.workdir, env=env) as process:
        os.close(theirs)
        out = b""
        try:
            while chunk := os.read(ours, 65536):
                out += chunk
        except OSError:
            pass  # how Linux says that the other end is closed
        finally:
            os.close(ours)
        assert process.wait(TEST_SECONDS * SCALE) == 0
    return out


def test_colours_only_on_a_terminal_that_wants_them(home: Home) -> None:
    run_id = record(home, "look", RICH)
    coloured = on_terminal(home, "show", run_id)
    assert b"\x1b[32mcompleted\x1b[0m" in coloured
    assert b"\x1b[31m." not in coloured
    for environ in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert b"\x1b" not in on_terminal(home, "show", run_id, **environ)
    assert b"\x1b[32m" in on_terminal(home, "show", run_id, NO_COLOR="")


# -- export


def test_an_export_goes_where_it_is_asked_to_and_replays(home: Home) -> None:
    run_id = record(home, f"my key is {SECRET}", RICH)
    done = trace(home, "export", run_id, "--save")
    path = home.state / "exports" / f"{run_id}.trace.ndjson"
    assert (done.returncode, done.stdout) == (0, f"{path}\n".encode())
    assert done.stderr.endswith(b" events, 6 places redacted\n")
    data = path.read_bytes()
    assert SECRET.encode() not in data
    assert b"abc.def.ghi" not in data
    assert run_nous(home, "replay", path).returncode == 0
    named = trace(home, "export", run_id, "-o", "bug.trace.ndjson", "--json")
    assert (home.workdir / "bug.trace.ndjson").read_bytes() == data
    found = answer(named)
    assert found["path"] == str(home.workdir / "bug.trace.ndjson")
    assert (found["run_id"], found["format"], found["status"]) == (run_id, "fixture", "completed")
    assert (found["secrets"], found["context"], found["events"]) == (6, "recorded", data.count(b'"seq":'))
    for flags in ((), ("-o", "-")):
        streamed = trace(home, "export", run_id, *flags)
        assert (streamed.returncode, streamed.stdout, streamed.stderr) == (0, data, b"")
    both = trace(home, "export", run_id, "--save", "-o", "x")
    assert (both.returncode, both.stdout) == (6, b"")


def test_events_alone(home: Home) -> None:
    run_id = record(home, "hello")
    done = trace(home, "export", run_id, "--format", "events", "-o", "-")
    written = trace_of(home, run_id).read_bytes().split(b"\n")
    assert done.stdout.split(b"\n")[:-1] == [line for line in written if line.startswith(b'{"v"')]


def test_readers_with_bounded_texts_get_bounded_texts(home: Home) -> None:
    run_id = record(home, "hello", Setup(script=[[{"text": ["x" * 50_000, "y" * 50_000]}]]))
    whole = trace(home, "export", run_id, "--format", "events").stdout.splitlines()
    bounded = trace(home, "export", run_id, "--format", "events", "--max-text-bytes", "65536").stdout.splitlines()
    assert len(bounded) == len(whole)
    (changed,) = [json.loads(after) for before, after in zip(whole, bounded, strict=True) if before != after]
    assert changed["type"] == "message_end"
    assert "text" not in changed["payload"]
    assert (changed["payload"]["text_bytes"], changed["payload"]["text_omitted"]) == (100_000, True)
    assert max(map(len, bounded)) < 65536
    (home.workdir / "bounded.ndjson").write_bytes(b"\n".join(bounded) + b"\n")
    assert trace(home, "validate", "bounded.ndjson").returncode == 0
    for flags in (("--max-text-bytes", "9"), ("--format", "events", "--max-text-bytes", "0")):
        assert trace(home, "export", run_id, *flags).returncode == 6


def test_what_the_environment_holds_is_redacted(home: Home) -> None:
    run_id = record(home, "the password is correct-horse and the key plain-words-key and the header x-value-1")
    (home.root / "nous.yaml").write_text(
        "provider: {api_key_env: MY_VARIABLE, headers: {X-Test: x-value-1}}", encoding="utf-8"
    )
    environ = {"DB_PASSWORD": "correct-horse", "MY_VARIABLE": "plain-words-key", "SSH_KEY_PATH": "/the/and"}
    flags = ("-o", "-", "--config", home.root / "nous.yaml")
    out = trace(home, "export", run_id, *flags, **environ).stdout
    assert b"the password is [REDACTED***] and the key [REDACTED*****] and the header *********" in out
    out = trace(home, "export", run_id, *flags, "--redact", "none", **environ).stdout
    assert b"the password is correct-horse and the key plain-words-key" in out


def test_a_run_that_was_killed_is_shown_and_exported_as_far_as_it_went(home: Home) -> None:
    setup = Setup(script=[[{"text": ["one ", "two"]}, {"hang": True}]])
    command = [*NOUS, "serve", *home.arguments(setup)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=home.workdir, env=home.environ(setup)
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"id":"c1","type":"prompt","payload":{"text":"go","wait":false}}\n')
        process.stdin.flush()
        while b'"delta":"two"' not in process.stdout.readline():
            pass
        [run] = answer(trace(home, "list", "--json"))["runs"]
        refused = trace(home, "export", run["run_id"], "--json")
        process.kill()
    assert (run["status"], run["ended_at"]) == ("running", None)
    assert (refused.returncode, answer(refused)["error_code"]) == (6, "command_rejected")
    assert answer(trace(home, "show", run["run_id"], "--json"))["run"]["status"] == "interrupted"
    cut = answer(trace(home, "validate", run["run_id"], "--json"))
    assert (cut["error_code"], cut["files"][0]["verdict"]) == ("verification_failed", "cut")
    exported = answer(trace(home, "export", run["run_id"], "--json"))
    assert exported["status"] == "interrupted"
    assert trace(home, "validate", exported["path"]).returncode == 0
    assert run_nous(home, "replay", exported["path"]).returncode == 0


# -- validate


def test_each_file_gets_its_verdict_and_the_worst_is_the_exit_code(home: Home) -> None:
    good = trace_of(home, record(home, "one"))
    lines = good.read_bytes().split(b"\n")
    (home.workdir / "bad").write_bytes(b"\n".join([*lines[:8], lines[9], lines[8], *lines[10:]]))
    (home.workdir / "events").write_bytes(b"\n".join(line for line in lines if line.startswith(b'{"v"')))
    (home.workdir / "other").write_bytes(b"hello\n")
    assert trace(home, "validate", good, "events").returncode == 0
    assert trace(home, "validate", good, "other").returncode == 6
    done = trace(home, "validate", good, "bad", "other", "none", "events")
    shown = [line.split()[0] for line in done.stdout.decode().split("\n")[:-1] if not line.startswith(" ")]
    assert (done.returncode, shown) == (2, ["valid", "broken", "not_a_trace", "not_a_trace", "valid"])
    assert f"    line {len(lines) - 1}: trace.seal: the file was changed\n".encode() in done.stdout
    assert b"not_a_trace  none  there is no such file\n" in done.stdout
    found = answer(trace(home, "validate", good.stem, "bad", "other", "--json"))
    assert [each["verdict"] for each in found["files"]] == ["valid", "broken", "not_a_trace"]
    seal = {"line": len(lines) - 1, "rule": "trace.seal", "detail": "the file was changed"}
    assert found["files"][1]["findings"][-1] == seal
    assert answer(trace(home, "validate", good, "--json"))["files"][0]["events"] == 11


# -- diff


def test_the_same_and_different_runs(home: Home) -> None:
    one, same, other = record(home, "one"), record(home, "one"), record(home, "two")
    done = trace(home, "diff", one, same)
    assert (done.returncode, done.stdout[:9]) == (0, b"the same:")
    assert answer(trace(home, "diff", one, same, "--json"))["same"] is True
    done = trace(home, "diff", one, trace_of(home, other))
    assert (done.returncode, done.stderr) == (5, b"")
    lines = done.stdout.decode().split("\n")
    assert lines[:4] == [
        "different: 2 changed, 0 added, 0 removed",
        "changed  turn 1, message 1 (user), text, from character 0",
        "    - one",
        "    + two",
    ]
    found = trace(home, "diff", one, other, "--json")
    assert (found.returncode, answer(found)["error_code"], answer(found)["same"]) == (5, "replay_diverged", False)
    assert answer(found)["changes"][0] == {
        "kind": "changed",
        "where": "turn 1, message 1 (user)",
        "field": "text",
        "left": "one",
        "right": "two",
        "at": 0,
    }


# -- the command line


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["none"],
        ["show"],
        ["show", "a", "b"],
        ["show", "no/such/file"],
        ["export", "run-1", "--format", "xml"],
        ["export", "run-1", "--redact", "some"],
        ["list", "--limit", "many"],
        ["diff", "one"],
        ["validate"],
    ],
)
def test_a_wrong_command_line_is_an_answer_too(home: Home, arguments: list[str]) -> None:
    done = run_nous(home, "trace", *arguments, "--json")
    assert done.returncode == 6
    assert answer(done)["error_code"] in ("invalid_usage", "run_not_found")
    plain = run_nous(home, "trace", *arguments)
    assert (plain.returncode, plain.stdout) == (6, b"")
    assert plain.stderr.startswith(b"nous: ")


@pytest.mark.parametrize("command", ["", "list", "show", "export", "validate", "diff"])
def test_every_command_has_help(home: Home, command: str) -> None:
    done = run_nous(home, "trace", *([command] if command else []), "--help")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(f"usage: nous trace {command}".rstrip().encode())
