"""Daemon mode without its process: what is sent, and what is made of what comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec
import pytest

from nous.client import Client, DaemonGoneError
from nous.errors import NousError
from nous.replay.daemon_mode import (
    SentCommand,
    longest_line,
    opening_commands,
    play,
    prepare,
    recorded_commands,
    replay_in_daemon,
)
from nous.replay.judge import UnverifiedError, examine
from nous.replay.recording import context_digest, read_header
from nous.replay.report import Divergence
from nous.store.trace_lines import BrokenTraceError
from tests.support import recordings
from tests.support.daemon import python
from tests.support.recordings import FIXTURES, Json, cut, edited, fixture, position, write_sealed
from tests.support.scenarios import replay_in_memory


@pytest.fixture
def state(tmp_path: Path) -> Path:
    for name in ("sessions", "traces", "outputs"):
        (tmp_path / "state" / name).mkdir(parents=True)
    return tmp_path / "state"


IDLE_SECONDS = 0.1
"""How long these tests wait for what does not come."""

Edit = Callable[[list[bytes]], list[bytes]]


def change(kind: str, edit: Callable[[Json], object], nth: int = 0) -> Edit:
    def change_line(lines: list[bytes]) -> list[bytes]:
        at = position(lines, kind, nth)
        return [*lines[:at], edited(lines[at], edit), *lines[at + 1 :]]

    return change_line


def replayed(tmp_path: Path, state: Path, name: str, edit: Edit) -> Divergence:
    path = write_sealed(tmp_path / "x.trace.ndjson", edit(recordings.read_lines(fixture(name))))
    found = replay_in_memory(path, state, IDLE_SECONDS)
    assert found is not None
    return found


# -- what a client sends


def test_the_commands_are_those_that_were_sent_with_their_ids() -> None:
    path = fixture("changed-modes")
    header = read_header(path)
    commands = recorded_commands(path, header)
    assert [command.kind for command in commands] == [
        "prompt",
        "set_active_tools",
        "set_steering_mode",
        "set_follow_up_mode",
        "steer",
        "steer",
        "follow_up",
    ]
    inputs = [msgspec.json.decode(line) for line in recordings.read_lines(path) if b"trace.input" in line]
    ids = [data["data"]["command_id"] for data in inputs if "command_id" in data["data"]]
    assert [command.id for command in commands if not command.id.startswith("replay of ")] == ids
    assert len({command.id for command in [*commands, *opening_commands(header)]}) == len(commands) + 3
    assert commands[0].payload["session_id"] == header.session_id
    assert {command.payload["run_id"] for command in commands if command.kind in ("steer", "follow_up")} == {
        header.run_id
    }


def test_what_the_daemon_did_by_itself_no_client_sends() -> None:
    path = fixture("abort-at-eof")
    assert [command.kind for command in recorded_commands(path, read_header(path))] == ["prompt"]


def test_a_line_may_be_as_long_as_the_longest_command() -> None:
    assert longest_line([SentCommand("c1", "prompt", {"text": "hello"})]) == 8 << 20
    assert longest_line([SentCommand("c1", "prompt", {"text": "\x01" * (2 << 20)})]) > 12 << 20


def test_a_run_that_nothing_begins_is_broken(tmp_path: Path) -> None:
    lines = recordings.read_lines(fixture("plain-text"))
    path = write_sealed(tmp_path / "x", cut(lines[:1]))
    with pytest.raises(BrokenTraceError, match="nothing that the run begins with"):
        prepare(path, *examine(path))


def test_a_local_trace_without_its_session_is_unverified(tmp_path: Path) -> None:
    def refer(header: Json) -> None:
        del header["context"]["messages"]
        header["capture"]["context"] = "referenced"

    lines = change("trace.header", refer)(recordings.read_lines(fixture("earlier-context")))
    path = write_sealed(tmp_path / "x", lines)
    with pytest.raises(UnverifiedError, match="missing: context"):
        prepare(path, *examine(path))


# -- what comes back


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_a_recorded_run_is_identical(path: Path, state: Path) -> None:
    assert replay_in_memory(path, state) is None


@pytest.mark.parametrize("name", ["two-tools", "abort-in-tool", "changed-modes", "earlier-context", "error-in-stream"])
def test_a_run_cut_behind_any_input_is_identical_up_to_there(tmp_path: Path, state: Path, name: str) -> None:
    *lines, _ = recordings.read_lines(fixture(name))
    for length in range(2, len(lines) + 1):
        (state / "sessions").joinpath(f"{read_header(fixture(name)).session_id}.ndjson").unlink(missing_ok=True)
        for trace in (state / "traces").iterdir():
            trace.unlink()
        path = write_sealed(tmp_path / "x", cut(lines[:length]))
        assert replay_in_memory(path, state) is None, length


def test_the_first_event_that_differs_ends_it(tmp_path: Path, state: Path) -> None:
    edit = change("tool_execution_end", lambda d: d["payload"].update(result="other"))
    found = replayed(tmp_path, state, "two-tools", edit)
    assert (found.what, found.json_path) == ("event", "$.payload.result")
    assert found.actual is not None
    assert len(found.before) == 5


@pytest.mark.parametrize("kind", ["call_model", "append_entry", "ask_policy", "run_tool"])
def test_what_the_daemon_asks_for_is_compared_though_no_client_sees_it(tmp_path: Path, state: Path, kind: str) -> None:
    found = replayed(tmp_path, state, "two-tools", change(kind, lambda d: d.update(digest="0" * 64)))
    assert (found.what, found.json_path) == ("effect", "$.digest")
    assert found.expected is not None
    assert f'"kind":"{kind}"' in found.expected


def test_another_context_is_found_in_the_requests(tmp_path: Path, state: Path) -> None:
    """The daemon makes its own digest of the messages that it has; here the recorded request was another."""
    found = replayed(tmp_path, state, "earlier-context", change("call_model", lambda d: d.update(digest="0" * 64)))
    assert (found.what, found.json_path) == ("effect", "$.digest")


def test_another_end_is_found(tmp_path: Path, state: Path) -> None:
    def drop_last_effect(lines: list[bytes]) -> list[bytes]:
        at = position(lines, "stop_model")
        return lines[:at] + lines[at + 1 :]

    found = replayed(tmp_path, state, "abort-in-model", drop_last_effect)
    assert found.actual is not None
    assert '"kind":"stop_model"' in found.actual


def test_an_event_that_does_not_come_is_named_with_what_was_waited_for(tmp_path: Path, state: Path) -> None:
    """Without the tool's answer the recorded run cannot go on."""

    def forget(lines: list[bytes]) -> list[bytes]:
        at = position(lines, "tool_done")
        rest = (edited(line, _count_down) if b"trace.input" in line else line for line in lines[at + 1 :])
        return [*lines[:at], *rest]

    found = replayed(tmp_path, state, "two-tools", forget)
    assert (found.what, found.actual, found.note) == ("event", None, "nothing came for 0.1 s")
    assert found.expected is not None
    assert '"tool_execution_end"' in found.expected


def _count_down(data: Json) -> None:
    data["n"] -= 1


def test_an_event_too_many_is_shown(tmp_path: Path, state: Path) -> None:
    lines = recordings.read_lines(fixture("plain-text"))
    at = position(lines, "agent_end")
    path = write_sealed(tmp_path / "x", lines[:at] + lines[at + 1 :])
    found = replay_in_memory(path, state)
    assert found is not None
    assert found.expected is None
    assert found.actual is not None
    assert '"agent_end"' in found.actual


def test_messages_that_are_no_conversation_are_broken(tmp_path: Path, state: Path) -> None:
    lines = recordings.read_lines(fixture("earlier-context"))
    header = read_header(fixture("earlier-context"))
    assert isinstance(header.context.messages, tuple)

    def misplace(data: Json) -> None:
        first, *others = header.context.messages or ()
        misplaced = (msgspec.structs.replace(first, parent_id="elsewhere"), *others)
        data["context"]["messages"] = msgspec.to_builtins(misplaced)
        data["context"]["digest"] = data["spec"]["context_digest"] = context_digest(misplaced)

    lines = change("trace.header", misplace)(lines)
    with pytest.raises(BrokenTraceError, match="the context is no conversation"):
        replay_in_memory(write_sealed(tmp_path / "x", lines), state)


# -- daemons that are none

READY = '{"v":"1","id":"evt-1","type":"status","payload":{"message":"ready"}}'
ANSWER = """
import json, sys
print('%s', flush=True)
for line in sys.stdin:
    command = json.loads(line)
    refused = command["type"] == "prompt" and "%s" == "refuse"
    answer = {"v": "1", "id": command["id"], "type": "accepted", "payload": {}, "ok": not refused}
    if refused:
        answer["error"] = {"code": "overloaded", "message": "Too many runs at once."}
    print(json.dumps(answer), flush=True)
    if command["type"] == "prompt" and "%s" == "die":
        sys.exit(3)
"""


async def played(behaviour: str, sessions: Path) -> Divergence | None:
    path = fixture("plain-text")
    recording = prepare(path, *examine(path))
    program = ANSWER % (READY, behaviour, behaviour)
    async with Client.spawn(python(program)) as client:
        return await play(client, recording, sessions, idle_seconds=IDLE_SECONDS)


@pytest.mark.parametrize(
    ("behaviour", "note"),
    [
        ("refuse", "the prompt was refused: Too much is under way at once."),
        ("die", "Reading or writing failed. (the daemon ended with exit code 3"),
        ("be silent", "nothing came for 0.1 s"),
    ],
)
def test_what_became_of_the_daemon_is_said(state: Path, behaviour: str, note: str) -> None:
    found = anyio.run(played, behaviour, state / "sessions")
    assert found is not None
    assert (found.seq, found.actual) == (1, None)
    assert found.note is not None
    assert found.note.startswith(note)


def test_a_daemon_that_does_not_start_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nous.replay.stage.Stage.arguments", lambda *args, **kwargs: ["--no-such-flag"])
    with pytest.raises(DaemonGoneError) as caught:
        replay_in_daemon(fixture("plain-text"))
    assert caught.value.returncode == 6
    assert isinstance(caught.value, NousError)
