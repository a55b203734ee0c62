"""``nous ctl`` as a shell sees it: one command in, the answer out, the exit code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from nous.client import Client
from tests.support.daemon import run_nous, serving_socket
from tests.support.home import Home, Setup

pytestmark = pytest.mark.anyio

ECHO = Setup()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


async def ctl(home: Home, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run ``nous ctl`` against the home's socket, beside whatever the test does."""
    command = partial(run_nous, home, "ctl", "--socket", str(home.root / "nous.sock"), *arguments, stdin=stdin)
    return await anyio.to_thread.run_sync(command)


def lines(out: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    found = out.stdout.split(b"\n")
    assert found.pop() == b""
    return [json.loads(line) for line in found]


async def test_the_answer_is_one_line(home: Home) -> None:
    async with serving_socket(home):
        out = await ctl(home, "ping")
    assert (out.returncode, out.stderr) == (0, b"")
    assert lines(out) == [{"v": "1", "id": "c1", "type": "pong", "payload": {"message": "pong"}, "ok": True}]


@pytest.mark.parametrize("given", ["argument", "stdin"])
async def test_the_payload_comes_as_an_argument_or_from_stdin(home: Home, given: str) -> None:
    payload = '{"mode":"all"}'
    async with serving_socket(home):
        out = await ctl(home, "set_steering_mode", "-" if given == "stdin" else payload, stdin=payload.encode())
    assert lines(out)[0]["payload"] == {"command": "set_steering_mode", "mode": "all"}


async def test_a_prompt_waits_for_its_result(home: Home) -> None:
    async with serving_socket(home):
        out = await ctl(home, "prompt", '{"text":"hello"}')
    assert (out.returncode, lines(out)[0]["payload"]["output"]) == (0, "mock response: hello")


@pytest.mark.parametrize(
    ("command", "payload", "code"),
    [
        ("abort", "{}", "command_rejected"),
        ("fly", "{}", "invalid_command"),
        ("prompt", "{}", "invalid_payload"),
        ("get_messages", '{"session_id":"nowhere"}', "session_not_found"),
    ],
)
async def test_a_refusal_is_the_answer_and_the_exit_code_its_category(
    home: Home, command: str, payload: str, code: str
) -> None:
    async with serving_socket(home):
        out = await ctl(home, command, payload)
    assert (out.returncode, out.stderr) == (6, b"")
    assert lines(out)[0]["error"]["code"] == code


async def test_a_run_that_failed_is_a_runtime_failure(home: Home) -> None:
    setup = Setup(script=[[{"error": {"status": 400}}], [{"error": {"status": 400}}]])
    async with serving_socket(home, setup):
        waited = await ctl(home, "prompt", '{"text":"hello"}')
        followed = await ctl(home, "--follow", "prompt", '{"text":"hello"}')
    assert (waited.returncode, followed.returncode) == (1, 1)
    assert lines(followed)[-1]["payload"]["status"] == "failed"


async def test_following_prints_the_answer_and_then_the_run(home: Home) -> None:
    async with serving_socket(home):
        out = await ctl(home, "prompt", '{"text":"hello"}', "--follow")
    assert (out.returncode, out.stderr) == (0, b"")
    answer, *events = lines(out)
    assert answer["type"] == "accepted"
    run_id = answer["payload"]["run_id"]
    assert [event["id"] for event in events] == [f"{run_id}.{seq}" for seq in range(1, len(events) + 1)]
    assert events[-1]["type"] == "agent_end"


async def test_following_shows_one_run_of_several(home: Home) -> None:
    hanging = {"match": {"text": "other"}, "steps": [{"text_repeat": {"text": "x", "count": 500}}, {"hang": True}]}
    setup = Setup(script=[hanging])
    async with serving_socket(home, setup) as path, Client.connect(path, keep_events=False) as client:
        other = await client.call("prompt", text="other", wait=False)
        session = (await client.call("new_session"))["session_id"]
        payload = json.dumps({"text": "hello", "session_id": session})
        answer, *events = lines(await ctl(home, "--follow", "prompt", payload))
    assert {event["payload"]["run_id"] for event in events} == {answer["payload"]["run_id"]} != {other["run_id"]}


async def test_a_run_under_way_is_followed_through_a_command_to_it(home: Home) -> None:
    gate = Setup(script=[[{"text": "begin"}, {"hang": True}]])
    async with serving_socket(home, gate) as path, Client.connect(path, events=True) as client:
        await client.call("prompt", text="hello", wait=False)
        async for event in client.events():
            if event.type == "message_update":
                break
        out = await ctl(home, "--follow", "abort")
    assert out.returncode == 1
    assert lines(out)[0]["payload"]["command"] == "abort"
    assert lines(out)[-1]["payload"]["status"] == "aborted"


async def test_following_what_is_no_run_is_refused(home: Home) -> None:
    async with serving_socket(home):
        out = await ctl(home, "--follow", "ping")
    assert out.returncode == 6
    assert b"names no run" in out.stderr


# -- without a daemon


@contextmanager
def refused(home: Home, *arguments: str, exit_code: int, code: str, stdin: bytes = b"") -> Iterator[str]:
    """Check the exit code and the object, and yield the sentence on stderr."""
    out = run_nous(home, "ctl", *arguments, stdin=stdin)
    assert (out.returncode, out.stdout) == (exit_code, b"")
    as_object = run_nous(home, "ctl", *arguments, "--json", stdin=stdin, environ={"NOUS_CORRELATION_ID": "abc"})
    assert (as_object.returncode, as_object.stderr) == (exit_code, b"")
    answer = json.loads(as_object.stdout)
    assert (answer["ok"], answer["error_code"], answer["correlation_id"]) == (False, code, "abc")
    yield out.stderr.decode()


@pytest.mark.parametrize("payload", ["{", "[1]", "7", '{"a":1} x', "-"])
def test_a_payload_that_is_no_object_is_invalid_usage(home: Home, payload: str) -> None:
    arguments = ("--socket", "nous.sock", "ping", payload)
    with refused(home, *arguments, exit_code=6, code="invalid_usage", stdin=b"\xff") as said:
        assert "JSON" in said


def test_no_socket_and_nobody_there_are_told_apart(home: Home) -> None:
    with refused(home, "--socket", "nous.sock", "ping", exit_code=1, code="io_failure") as said:
        assert "there is no socket at nous.sock" in said
        assert "nous serve --socket nous.sock" in said
    (home.workdir / "file").write_bytes(b"")
    with refused(home, "--socket", "file", "ping", exit_code=6, code="invalid_usage") as said:
        assert "file is not a socket" in said


@pytest.mark.parametrize(
    "arguments", [["ping"], ["--socket", "s"], ["--socket", "s", "ping", "{}", "more"], ["--socket", "s", "-x", "ping"]]
)
def test_a_wrong_command_line_is_invalid_usage(home: Home, arguments: list[str]) -> None:
    with refused(home, *arguments, exit_code=6, code="invalid_usage") as said:
        assert "nous ctl --help" in said


def test_waiting_and_following_at_once_is_refused(home: Home) -> None:
    arguments = ("--socket", "s", "--follow", "prompt", '{"text":"x","wait":true}')
    with refused(home, *arguments, exit_code=6, code="invalid_usage") as said:
        assert "--follow" in said
