"""``nous prompt`` as a shell sees it: what goes to stdout and stderr, and the exit code."""

from __future__ import annotations

import base64
import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.support.daemon import NOUS, run_nous
from tests.support.home import SCALE, TEST_SECONDS, Home, Setup

DEADLINE_SECONDS = TEST_SECONDS * SCALE

ECHO = Setup()
HANGING = Setup(script=[[{"text": "begin\n"}, {"hang": True}]])


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def prompt(
    home: Home, setup: Setup, *more: str, text: str = "hello", stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return run_nous(home, "prompt", text, *home.arguments(setup), *more, stdin=stdin, environ=setup.environ)


@contextmanager
def prompting(home: Home, setup: Setup, *wrapper: str, stdout: int = subprocess.PIPE) -> Iterator[Prompting]:
    """Start ``nous prompt`` and leave it running."""
    process = subprocess.Popen(
        [*wrapper, *NOUS, "prompt", "hello", *home.arguments(setup)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=home.workdir,
        env=home.environ(setup),
    )
    with process:
        try:
            yield Prompting(process)
        finally:
            process.kill()


class Prompting:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        self.process = process
        self.stdout: IO[bytes] | None = process.stdout
        self.stderr: IO[bytes] = process.stderr

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        return self.process.wait(DEADLINE_SECONDS)


def notes(out: subprocess.CompletedProcess[bytes]) -> list[str]:
    return out.stderr.decode().split("\n")[:-1]


# -- what is shown


def test_the_text_goes_to_stdout_and_ends_with_a_newline(home: Home) -> None:
    out = prompt(home, ECHO)
    assert (out.returncode, out.stdout, out.stderr) == (0, b"mock response: hello\n", b"")


def test_a_newline_at_the_end_is_not_doubled(home: Home) -> None:
    out = prompt(home, Setup(script=[[{"text": ["one\n", "two\n"]}]]))
    assert out.stdout == b"one\ntwo\n"


def test_a_dash_reads_the_text_from_stdin(home: Home) -> None:
    out = prompt(home, ECHO, text="-", stdin="über\nalles".encode())
    assert out.stdout == "mock response: über\nalles\n".encode()


@pytest.mark.parametrize(("stdin", "what"), [(b"\xff\n", b"not UTF-8"), (b" \n", b"empty")])
def test_a_text_that_is_none_is_refused(home: Home, stdin: bytes, what: bytes) -> None:
    out = prompt(home, ECHO, text="-", stdin=stdin)
    assert (out.returncode, out.stdout) == (6, b"")
    assert what in out.stderr
    assert not home.state.exists()


def test_tool_calls_are_short_lines_on_stderr(home: Home) -> None:
    (home.workdir / "notes.txt").write_text("a fact\n", encoding="utf-8")
    script = [
        [{"text": "Looking."}, {"tool_call": {"name": "read", "arguments": {"path": "notes.txt", "limit": 5}}}],
        [{"tool_call": {"name": "read", "arguments": {"path": "missing.txt"}}}],
        [{"text": "Done."}],
    ]
    out = prompt(home, Setup(script=script))
    assert (out.returncode, out.stdout) == (0, b"Looking.\nDone.\n")
    lines = notes(out)
    assert lines[0] == "read path=notes.txt limit=5"
    assert lines[1].startswith("read ok ")
    assert lines[1].endswith(" ms")
    assert lines[2] == "read path=missing.txt"
    assert lines[3].startswith("read error ")
    assert "missing.txt" in lines[3]


@pytest.mark.parametrize(
    ("finish", "note"),
    [
        ("length", "length: the answer was cut by the limit of output tokens"),
        ({"other": "pause_turn"}, "other: the answer ended for the reason pause_turn"),
    ],
)
def test_an_answer_that_the_model_did_not_close_is_told_on_stderr(home: Home, finish: object, note: str) -> None:
    """Its text is an answer all the same; a call in it is not run, and the model goes on from there."""
    call = {"tool_call": {"name": "bash", "arguments": {"command": "touch ran"}}}
    out = prompt(home, Setup(script=[[{"text": "Half a"}, {"finish": finish}]]))
    assert (out.returncode, out.stdout, notes(out)) == (0, b"Half a\n", [note])
    out = prompt(home, Setup(script=[[{"text": "Now"}, call, {"finish": finish}], [{"text": "Done."}]]))
    assert (out.returncode, out.stdout) == (0, b"Now\nDone.\n")
    assert notes(out)[0] == note
    assert not (home.workdir / "ran").exists()


def test_arguments_are_cut_and_stay_on_one_line(home: Home) -> None:
    command = "printf 'x\n\x1b[31m'; : " + "y" * 500
    script = [[{"tool_call": {"name": "bash", "arguments": {"command": command}}}], [{"text": "Done."}]]
    out = prompt(home, Setup(script=script))
    lines = notes(out)
    assert len(lines) == 2
    assert len(lines[0]) < 100
    assert lines[0].startswith("bash command=printf 'x ")
    assert "\x1b" not in lines[0]
    assert lines[0].endswith("…")


def test_json_prints_the_event_lines_and_nothing_else(home: Home) -> None:
    out = prompt(home, ECHO, "--json")
    assert (out.returncode, out.stderr) == (0, b"")
    lines = out.stdout.split(b"\n")
    assert lines.pop() == b""
    events = [json.loads(line) for line in lines]
    assert (events[0]["type"], events[-1]["type"]) == ("agent_start", "agent_end")
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    (trace,) = (home.state / "traces").glob("*.ndjson")
    assert set(lines) <= set(trace.read_bytes().split(b"\n")), "the same bytes as on disk"


def test_a_terminal_is_not_steered_by_what_the_model_says(home: Home) -> None:
    ours, theirs = pty.openpty()
    setup = Setup(script=[[{"text": "\x1b[31mred\x07 \u009b2J tab\there\r\n"}]])
    with prompting(home, setup, stdout=theirs) as run:
        os.close(theirs)
        shown = b""
        while not shown.endswith(b"here\r\n"):
            shown += os.read(ours, 1000)
        assert run.wait() == 0
    os.close(ours)
    # The terminal itself makes CR LF of LF.
    assert shown.decode() == "\\x1b[31mred\\x07 \\x9b2J tab\there\r\n"


def test_a_pipe_gets_the_text_as_it_is(home: Home) -> None:
    out = prompt(home, Setup(script=[[{"text": "\x1b[31mred\r\n"}]]))
    assert out.stdout == b"\x1b[31mred\r\n"


def test_a_session_is_gone_on_with(home: Home) -> None:
    events = prompt(home, ECHO, "--json").stdout.split(b"\n")
    session = json.loads(events[0])["payload"]["session_id"]
    assert prompt(home, ECHO, "--session", session).returncode == 0
    assert len(list((home.state / "sessions").glob("*.ndjson"))) == 1


def test_daemon_flags_are_handed_on(home: Home) -> None:
    flags = ("--model", "some-model", "--tools", "read,ls", "--drain-timeout", "5s", "--correlation-id", "abc")
    events = prompt(home, ECHO, *flags, "--json").stdout.split(b"\n")
    assert json.loads(events[0])["payload"]["model"] == "some-model"


def test_logs_are_shown_to_who_asks_for_them(home: Home) -> None:
    assert prompt(home, ECHO).returncode == 0
    home.state.chmod(0o755)  # something to log
    assert prompt(home, ECHO).stderr == b""
    logs = prompt(home, ECHO, "--log-level", "warning", "--correlation-id", "abc").stderr.split(b"\n")[:-1]
    assert [(json.loads(line)["event"], json.loads(line)["correlation_id"]) for line in logs] == [
        ("state_dir_open", "abc")
    ]


# -- how it ended


def test_a_failed_run_says_why_and_exits_1(home: Home) -> None:
    out = prompt(home, Setup(script=[[{"text": "half"}, {"error": {"status": 401, "cause": "no such key"}}]]))
    assert (out.returncode, out.stdout) == (1, b"half\n")
    assert notes(out) == ["error: provider_auth: The provider refused the key. (no such key)"]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_session_that_does_not_exist_is_invalid_input(home: Home, as_json: bool) -> None:
    out = prompt(home, ECHO, "--session", "nowhere", *(["--json"] if as_json else []))
    assert out.returncode == 6
    if as_json:
        assert out.stderr == b""
        refusal = json.loads(out.stdout)
        assert (refusal["ok"], refusal["error_code"]) == (False, "session_not_found")
    else:
        assert out.stdout == b""
        assert out.stderr.startswith(b"nous: There is no such session.")


REFUSED_STARTS: Sequence[tuple[list[str], str]] = (
    (["--provider", "mock"], "state_dir_missing"),
    (["--provider", "mock", "--bootstrap", "--workdir", "missing"], "invalid_usage"),
    (["--bootstrap"], "invalid_usage"),
    (["--provider", "mock", "--bootstrap", "--config", "missing.yaml"], "invalid_config"),
)


@pytest.mark.parametrize(("flags", "code"), REFUSED_STARTS, ids=[code for _, code in REFUSED_STARTS])
def test_a_daemon_that_does_not_start_speaks_for_itself(home: Home, flags: list[str], code: str) -> None:
    """What ``nous serve`` would have said, word for word and with its exit code."""
    flags = [*flags, "--state-dir", str(home.state)]
    prompted = run_nous(home, "prompt", "hello", *flags)
    served = run_nous(home, "serve", *flags)
    assert (prompted.returncode, prompted.stdout, prompted.stderr) == (6, b"", served.stderr)
    assert served.stderr.startswith(b"nous: ")

    as_object = run_nous(home, "prompt", "hello", *flags, "--json", "--correlation-id", "abc")
    assert (as_object.returncode, as_object.stderr) == (6, b"")
    refusal = json.loads(as_object.stdout)
    assert (refusal["ok"], refusal["error_code"], refusal["correlation_id"]) == (False, code, "abc")


def test_a_daemon_that_dies_in_a_run_is_a_runtime_failure(home: Home) -> None:
    with prompting(home, HANGING) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"begin\n"
        os.kill(daemon_pid(home), signal.SIGKILL)
        assert run.wait() == 1
        assert b"killed by SIGKILL" in run.stderr.read()


def daemon_pid(home: Home) -> int:
    """Return the pid of the one daemon, by the lock it holds."""
    (lock,) = (home.state / "daemons").glob("*.lock")
    return int(json.loads(lock.read_bytes())["pid"])


# -- interrupted


def test_the_first_interrupt_aborts_the_run(home: Home) -> None:
    with prompting(home, HANGING) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"begin\n"
        run.interrupt()
        assert run.wait() == 1
        assert run.stderr.readline() == b"aborting (once more kills)\n"
    (trace,) = (home.state / "traces").glob("*.ndjson")
    assert b'"status":"aborted"' in trace.read_bytes()
    assert not list((home.state / "daemons").glob("*.lock")), "the daemon ended in order"


def test_the_second_interrupt_kills(home: Home) -> None:
    with prompting(home, HANGING) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"begin\n"
        # A daemon that does not react to anything.
        os.kill(daemon_pid(home), signal.SIGSTOP)
        run.interrupt()
        assert run.stderr.readline() == b"aborting (once more kills)\n"
        run.interrupt()
        assert run.wait() == 130
        assert run.stderr.read() == b""


def test_an_interrupt_that_the_shell_ignores_is_ignored(home: Home) -> None:
    setup = Setup(script=[[{"text": "begin\n"}, {"delay_ms": 300}, {"text": "end\n"}]])
    with prompting(home, setup, "sh", "-c", 'trap "" INT; exec "$@"', "sh") as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"begin\n"
        run.interrupt()
        assert run.stdout.read() == b"end\n"
        assert run.wait() == 0


def test_a_reader_that_goes_away_ends_it_without_a_word(home: Home) -> None:
    setup = Setup(script=[[{"text_repeat": {"text": "line\n", "count": 2_000_000}}]])
    with prompting(home, setup) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"line\n"
        run.stdout.close()
        assert run.wait() == 141
        assert run.stderr.read() == b""
    assert not list((home.state / "daemons").glob("*.lock"))


# -- a structured output, images, thinking

PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def write(home: Home, name: str, content: object) -> str:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (home.workdir / name).write_bytes(data)
    return name


def test_with_a_schema_only_the_value_is_printed(home: Home) -> None:
    schema = write(home, "person.json", PERSON)
    value = '{"name": "Ada",\n "born": 1.0}'
    setup = Setup(script=[[{"thinking": "Who?"}, {"text": ["\n", value[:9], value[9:], " \n"]}]])
    out = prompt(home, setup, "--schema", schema)
    assert (out.returncode, out.stdout, out.stderr) == (0, value.encode() + b"\n", b""), "as the model wrote it"


def test_a_value_longer_than_an_event_is_printed_whole(home: Home) -> None:
    value = json.dumps("x" * 2_000_000)
    setup = Setup(script=[[{"text": value}]])
    out = prompt(home, setup, "--schema", write(home, "any.json", {}))
    assert (out.returncode, out.stdout) == (0, value.encode() + b"\n")


def test_an_answer_that_does_not_fit_the_schema_is_exit_2_and_prints_no_value(home: Home) -> None:
    schema = write(home, "person.json", PERSON)
    out = prompt(home, Setup(script=[[{"text": '{"name":7}'}]]), "--schema", schema)
    assert (out.returncode, out.stdout) == (2, b"")
    (line,) = notes(out)
    assert line.startswith("error: output_invalid: The model's output does not fit the schema. ($.name")


def test_images_are_sent_with_the_type_their_content_has(home: Home) -> None:
    first, second = write(home, "first.txt", PNG), write(home, "second.jpg", PNG)
    assert prompt(home, ECHO, "--image", first, "--image", second).returncode == 0
    (line,) = [line for line in home.session_lines() if b'"role":"user"' in line]
    assert line.count(b'"image/png"') == 2
    assert line.count(base64.b64encode(PNG)) == 2


def test_a_level_of_thinking_reaches_the_run(home: Home) -> None:
    out = prompt(home, ECHO, "--thinking", "high", "--json")
    assert out.returncode == 0
    (trace,) = (home.state / "traces").glob("*.ndjson")
    assert b'"thinking":"high"' in trace.read_bytes().split(b"\n")[0]


REFUSED_FILES: Sequence[tuple[list[str], bytes, bytes]] = (
    (["--schema", "absent.json"], b"", b"--schema: absent.json: No such file"),
    (["--schema", "."], b"", b"--schema: .: a directory"),
    (["--schema", "pipe"], b"", b"--schema: pipe: not a regular file"),
    (["--schema", "file"], b"[1]", b"--schema: file: a JSON Schema is an object"),
    (["--schema", "file"], b"{", b"--schema: file: not JSON"),
    (["--schema", "file"], b"[" * 100_000, b"--schema: file: a JSON Schema is an object"),
    (["--schema", "file"], b'{"a":' * 100_000, b"--schema: file: not JSON"),
    (["--schema", "file"], b'{"type":"\xff"}', b"--schema: file: not JSON"),
    (["--schema", "file"], b'{"type":"nothing"}', b"output_schema: "),
    (["--image", "absent.png"], b"", b"--image: absent.png: No such file"),
    (["--image", "pipe"], b"", b"--image: pipe: not a regular file"),
    (["--image", "/dev/zero"], b"", b"--image: /dev/zero: not a regular file"),
    (["--image", "file"], b"<svg/>", b"--image: file: not an image"),
    (["--image", "file"], b"BM" + bytes(12) + b"\x28" + bytes(40), b"mime_type: only image/gif"),
    (["--image", "file"], PNG[:40], b"images[0]: data: it is damaged"),
    (["--image", "file"], PNG + bytes(5 * 1024 * 1024), b"--image: file: longer than 5242880 bytes"),
    (["--thinking", "hard"], b"", b"--thinking: invalid choice: 'hard'"),
)


@pytest.mark.parametrize(("flags", "content", "said"), REFUSED_FILES, ids=[str(n) for n in range(len(REFUSED_FILES))])
def test_what_cannot_be_sent_is_refused_and_named(home: Home, flags: list[str], content: bytes, said: bytes) -> None:
    os.mkfifo(home.workdir / "pipe")
    write(home, "file", content)
    out = prompt(home, ECHO, *flags)
    assert (out.returncode, out.stdout) == (6, b""), out
    assert said in out.stderr
    assert b"wire" not in out.stderr
    assert b"Traceback" not in out.stderr
    assert not home.session_lines()
