"""Every code that a daemon can answer with, raised by its real cause, and looked at in all the places it shows.

On the wire (code, category, retryable, hint, correlation id), as the exit code of ``nous ctl``, and in the log.  What
only a command line reports is in tests/process/test_cli_golden.py; the table is pinned in tests/unit/test_errors.py.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio.to_thread
import msgspec
import pytest

from nous.errors import CATEGORIES, CLI_CODES, CODES, RETRYABLE, WIRE_CODES, NousError
from nous.store.session_format import EntryLink, encode_line
from nous.store.sessions import SessionStore
from tests.process.test_cli_golden import COMMAND_LINES, GOLDEN
from tests.support.answers import Done
from tests.support.daemon import run_nous
from tests.support.gates import chat_setup
from tests.support.harness import Peer, connect, serve_socket
from tests.support.home import Home, Setup, Spawned
from tests.support.sse_server import Reply, answers, serve
from tests.unit.store.helpers import NOW, append_row

pytestmark = pytest.mark.anyio

HANGS: Final = [{"text": "Hello"}, {"hang": True}]
ENVIRON: Final = {"NOUS_CORRELATION_ID": "table"}

RESERVED: Final = {
    "approval_required": "no policy asks a person yet",
    "policy_blocked": "a policy's refusal is a tool's result, which the model reads",
    "dependency_missing": "every dependency is installed with nous",
}
"""Codes that nothing raises today: their row in the table is all there is to pin."""

ELSEWHERE: Final = {
    "internal_error": "tests/unit/runtime/test_connection.py::test_a_command_that_crashes_is_answered",
}
"""Codes whose cause is a defect, which no real daemon can be brought to."""


class Room(NamedTuple):
    """A daemon behind a socket, a connection to it, and the shell beside it."""

    home: Home
    peer: Peer
    daemon: Spawned
    socket: Path

    async def ctl(self, kind: str, payload: dict[str, object] | None = None) -> Done:
        """Send one command as a shell does."""
        arguments = ("ctl", kind, json.dumps(payload or {}), "--socket", str(self.socket), "--json")
        return await anyio.to_thread.run_sync(partial(run_nous, self.home, *arguments))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@asynccontextmanager
async def opened(home: Home, setup: Setup) -> AsyncIterator[Room]:
    flags = (*setup.flags, "--log-level", "debug")
    setup = Setup(setup.script, setup.config, flags, {**setup.environ, **ENVIRON}, setup.provider)
    async with serve_socket(home, setup) as (path, daemon), connect(path) as peer:
        await peer.ok("hello", {"features": ["events"]})
        yield Room(home, peer, daemon, path)
        daemon.process.terminate()
        await peer.rest()
        await daemon.wait()


# -- causes: each brings one about and returns what a shell was answered


async def unknown_command(room: Room) -> Done:
    return await room.ctl("nothing")


async def wrong_payload(room: Room) -> Done:
    return await room.ctl("prompt", {"text": 7})


async def nothing_to_abort(room: Room) -> Done:
    await room.peer.run("hello")
    return await room.ctl("abort")


async def unknown_session(room: Room) -> Done:
    return await room.ctl("switch_session", {"session_id": "no"})


async def unknown_run(room: Room) -> Done:
    return await room.ctl("abort", {"run_id": "no"})


class Hologram(msgspec.Struct, tag="hologram", frozen=True):
    """An entry that only a later version of nous knows."""

    id: str


async def session_of_a_newer_version(room: Room) -> Done:
    path = await written_session(room)
    last = json.loads(path.read_bytes()[:-1].split(b"\n")[-1])
    line, _ = encode_line(Hologram("h"), EntryLink(last["n"], last["digest"].encode()))  # type: ignore[arg-type]
    with path.open("ab") as file:
        file.write(line)
    return await room.ctl("get_messages", {"session_id": path.stem})


async def damaged_session(room: Room) -> Done:
    """Damage one that the daemon has not read yet."""
    append_row(SessionStore(room.home.state / "sessions").create("ses-1", NOW), ["m1", "m2"])
    path = room.home.state / "sessions" / "ses-1.ndjson"
    path.write_bytes(path.read_bytes().replace(b"m1", b"m9", 1))
    return await room.ctl("get_messages", {"session_id": "ses-1"})


async def written_session(room: Room) -> Path:
    session_id = (await room.peer.ok("prompt", {"text": "hello"}))["session_id"]
    return room.home.state / "sessions" / f"{session_id}.ndjson"


async def any_prompt(room: Room) -> Done:
    return await room.ctl("prompt", {"text": "hello", "wait": True})


async def held_lock(room: Room) -> Done:
    path = await written_session(room)
    with path.with_suffix(".lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return await any_prompt(room)


async def no_place_for_traces(room: Room) -> Done:
    await room.peer.run("hello")
    shutil.move(room.home.state / "traces", room.home.state / "elsewhere")
    try:
        return await any_prompt(room)
    finally:
        shutil.move(room.home.state / "elsewhere", room.home.state / "traces")


async def thinking_of_a_model_that_has_none(room: Room) -> Done:
    wanted = {"provider": "openai", "model": "gpt-4o", "thinking": "high"}
    return await room.ctl("prompt", {"text": "hello", **wanted})


async def text_where_a_number_was_asked_for(room: Room) -> Done:
    return await room.ctl("prompt", {"text": "hello", "wait": True, "output_schema": {"type": "number"}})


async def one_run_too_many(room: Room) -> Done:
    await room.peer.start("hello")
    await room.peer.ok("new_session")
    return await any_prompt(room)


async def shutting_down(room: Room) -> Done:
    await room.peer.start("hello")
    await room.peer.events_until("message_update")
    await room.peer.ok("shutdown")
    answer = await room.peer.command("prompt", {"text": "late"})
    return as_ctl(answer.raw)


async def same_id_for_another_command(room: Room) -> Done:
    await room.peer.command("new_session", {}, "the-same")
    answer = await room.peer.command("prompt", {"text": "hello"}, "the-same")
    return as_ctl(answer.raw)


async def too_long_a_line(room: Room) -> Done:
    return await room.ctl("prompt", {"text": "x" * 2000})


def as_ctl(line: bytes) -> Done:
    """Return what ``nous ctl`` would do with an answer that only one and the same connection can get."""
    code = NousError(json.loads(line)["error"]["code"]).exit_code
    return Done([], code, line + b"\n", b"")


Cause = Callable[[Room], Awaitable[Done]]


def refusal(status: int, code: str = "", **headers: str) -> Reply:
    return answers(status, json.dumps({"error": {"message": "no", "code": code}}).encode(), headers=headers)


CAUSES: Final[dict[str, tuple[Cause, Setup]]] = {
    "invalid_command": (unknown_command, Setup()),
    "invalid_payload": (wrong_payload, Setup()),
    "line_too_long": (too_long_a_line, Setup(flags=("--max-line-bytes", "1000"))),
    "command_rejected": (nothing_to_abort, Setup()),
    "session_not_found": (unknown_session, Setup()),
    "run_not_found": (unknown_run, Setup()),
    "session_error": (session_of_a_newer_version, Setup()),
    "session_corrupt": (damaged_session, Setup()),
    "output_invalid": (text_where_a_number_was_asked_for, Setup()),
    "timeout": (any_prompt, Setup(script=[HANGS], flags=("--command-timeout", "50ms"))),
    "id_conflict": (same_id_for_another_command, Setup()),
    "state_contention": (held_lock, Setup(environ={"NOUS_SESSION_LOCK_TIMEOUT_MS": "40"})),
    "io_failure": (no_place_for_traces, Setup()),
    "capability_unavailable": (thinking_of_a_model_that_has_none, Setup(environ={"OPENAI_API_KEY": "k"})),
    "overloaded": (one_run_too_many, Setup(script=[HANGS], config={"daemon": {"max_runs": 1}})),
    "shutting_down": (shutting_down, Setup(script=[HANGS], flags=("--drain-timeout", "5s"))),
}

REFUSALS: Final[dict[str, Reply]] = {
    "provider_unavailable": refusal(503),
    "provider_error": refusal(400),
    "provider_auth": refusal(401, "invalid_api_key"),
    "context_overflow": refusal(400, "context_length_exceeded"),
    "content_refused": refusal(400, "content_filter"),
}
"""What a provider answers, time and again."""


def test_every_code_has_its_cause() -> None:
    assert {*CAUSES, *REFUSALS, *ELSEWHERE, *RESERVED} - {"dependency_missing"} == set(WIRE_CODES)
    pinned = json.loads(GOLDEN.read_bytes())
    reported = {found["error_code"] for found in pinned.values() if not found["ok"]}
    assert reported | set(RESERVED) >= set(CLI_CODES), "each has a command line that is answered with it"
    assert len(pinned) == len(COMMAND_LINES)


def test_every_category_has_a_cause_but_the_reserved_ones() -> None:
    raised = {CODES[code].category for code in {*CODES} - {*RESERVED}}
    assert set(CATEGORIES) - raised == {"approval_required"}


@pytest.mark.parametrize("code", CAUSES)
async def test_a_code_and_its_cause(home: Home, code: str) -> None:
    cause, setup = CAUSES[code]
    async with opened(home, setup) as room:
        done = await cause(room)
    check(code, done, room.daemon)


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_provider_that_refuses(home: Home, code: str) -> None:
    async with serve(*[REFUSALS[code]] * 8) as server, opened(home, chat_setup(server.url)) as room:
        done = await any_prompt(room)
    check(code, done, room.daemon)
    failed = [record for record in room.daemon.log() if record["event"] == "run_failed"]
    assert [(record["code"], record["level"]) for record in failed] == [(code, "warning")]


def check(code: str, done: Done, daemon: Spawned) -> None:
    expected = NousError(code)
    line: dict[str, Any] = json.loads(done.stdout)
    error = line["error"]
    assert (line["ok"], error["code"], error["category"]) == (False, code, expected.category)
    assert error["retryable"] == expected.retryable == (expected.category in RETRYABLE)
    cause = f" ({error['cause']})" if "cause" in error else ""
    assert error["message"] == expected.message + cause
    assert expected.hint is None or error["hint"], "a hint of its own, or that of the code"
    assert error["correlation_id"] == "table"
    assert done.returncode == expected.exit_code
    assert done.stderr == b""
    refused = [record for record in daemon.log() if record["event"] == "command_refused" and record["code"] == code]
    assert refused, "the log says so"
    assert {record["category"] for record in refused} == {expected.category}
    assert {record["correlation_id"] for record in refused} == {"table"}
    assert {record["level"] for record in refused} == {"debug" if expected.category == "invalid_input" else "info"}


def test_a_place_that_is_no_directory_is_an_io_failure_of_the_command_line_too(home: Home) -> None:
    assert run_nous(home, "init", "--state-dir", home.state).returncode == 0
    done = run_nous(home, "init", "--state-dir", "/dev/full/state", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["error_code"], found["retryable"]) == (1, "io_failure", False)


def test_a_category_is_never_told_from_an_exit_code() -> None:
    """Exit codes are fewer than categories: nobody could."""
    codes = {NousError(code).exit_code for code in CODES}
    assert len(codes) < len(CATEGORIES)
    assert os.EX_OK not in codes
