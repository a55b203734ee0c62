"""Replays a trace through a real daemon, which is driven over stdio as any client would: the end-to-end test.

What the daemon says is compared line by line as it comes, up to the first difference; then the trace it wrote itself,
whose inputs and effects no client sees.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import anyio

from nous.client import Client, DaemonGoneError, Event, Pending
from nous.client.lines import encode_command
from nous.config.settings import MAX_SIZE_BYTES
from nous.engine.inputs import (
    AbortRequested,
    CompactionStarted,
    FollowedUp,
    FollowUpModeSet,
    Input,
    RunStarted,
    Steered,
    SteeringModeSet,
    ToolsSet,
)
from nous.protocol.codec import DEFAULT_MAX_LINE_BYTES
from nous.protocol.messages import Message
from nous.replay.context import find_context, store_context
from nous.replay.engine_mode import EVENTS_SHOWN_BEFORE
from nous.replay.judge import judge
from nous.replay.recording import Header, Recorded, Said, read_lines
from nous.replay.replayed_run import client_commands
from nous.replay.report import Divergence, Place, Report, find_difference
from nous.replay.sequencer import BEGINNINGS, is_command
from nous.replay.stage import Stage, open_stage, scaled
from nous.runtime.seams import Admitted
from nous.store.trace_lines import BrokenTraceError, TraceEnd, kind_of
from nous.store.trace_reader import iter_line_batches

IDLE_SECONDS: Final = 10.0
"""How long the daemon may say nothing while the recording still expects something: no step of a replay waits."""

READY_SECONDS: Final = 30.0
FEATURES: Final = ("thinking", "tool_arguments")

T = TypeVar("T")


def replay_in_daemon(path: Path) -> Report:
    """Return the verdict on one file.

    Raises:
        NousError: the replay could not be carried out: the daemon did not start.
    """
    return judge(path, "daemon", partial(_replay, path))


class SentCommand(NamedTuple):
    """A command as it was sent."""

    id: str
    kind: str
    payload: dict[str, Any]


class Recording(NamedTuple):
    """What a replay through a daemon needs: ``context`` are the messages the run began with, ``commands`` what its
    client sent, first what the run began with."""

    path: Path
    header: Header
    end: TraceEnd
    context: tuple[Message, ...]
    commands: list[SentCommand]


def prepare(path: Path, header: Header, end: TraceEnd) -> Recording:
    """Gather what a replay needs.

    Raises :class:`nous.replay.judge.UnverifiedError` if the context is nowhere to be found,
    :class:`BrokenTraceError`.
    """
    return Recording(path, header, end, find_context(path, header), recorded_commands(path, header))


def _replay(path: Path, header: Header, end: TraceEnd) -> Divergence | None:
    recording = prepare(path, header, end)
    with open_stage() as stage:
        found = anyio.run(_play, recording, stage)
        return found or compare_traces(recording, stage.state / "traces")


async def _play(recording: Recording, stage: Stage) -> Divergence | None:
    arguments = stage.arguments(recording.path, drive="client", speed="full")
    async with Client.spawn(
        arguments=[*arguments, "--max-line-bytes", str(longest_line(recording.commands))],
        cwd=stage.workdir,
        env=stage.environment(),
        ready_timeout=scaled(READY_SECONDS),
    ) as client:
        return await play(client, recording, stage.state / "sessions")


# -- what the client sent


def opening_commands(header: Header) -> list[SentCommand]:
    """Return what is sent before all that, so that every event comes, and the modes are what they were."""
    given: list[tuple[str, dict[str, Any]]] = [
        ("hello", {"features": list(FEATURES), "prompt_wait": False}),
        ("set_steering_mode", {"mode": header.spec.steering_mode}),
        ("set_follow_up_mode", {"mode": header.spec.follow_up_mode}),
    ]
    return [SentCommand(own_id(header.run_id, f"before {n}"), *command) for n, command in enumerate(given)]


def recorded_commands(path: Path, header: Header) -> list[SentCommand]:
    """Return the client's commands in order, first what the run began with."""
    inputs = [
        Admitted(line.stamp, line.item)
        for line in read_lines(path)
        if isinstance(line, Recorded) and (isinstance(line.item, BEGINNINGS) or is_command(line.item))
    ]
    if not inputs or not isinstance(inputs[0].item, BEGINNINGS):
        raise BrokenTraceError(path.name, 0, "there is nothing that the run begins with")
    first = inputs[0].item
    out = [SentCommand(first.command_id, *as_command(first, header))]
    for number, admitted in enumerate(client_commands(inputs)):
        name = getattr(admitted.item, "command_id", own_id(header.run_id, f"behind {number}"))
        out.append(SentCommand(name, *as_command(admitted.item, header)))
    return out


def own_id(run_id: str, place: str) -> str:
    """Return the id of a command whose id the trace does not know: one that no recorded command has."""
    return f"replay of {run_id}: {place}"


def as_command(item: Input, header: Header) -> tuple[str, dict[str, Any]]:
    """Return type and payload of the command that makes this input."""
    run_id, session_id = header.run_id, header.session_id
    match item:
        case RunStarted(text=text):
            return "prompt", {"text": text, "session_id": session_id, "wait": False}
        case CompactionStarted(instruction=instruction):
            return "compact_session", {"session_id": session_id, "instruction": instruction}
        case Steered(text=text):
            return "steer", {"text": text, "run_id": run_id}
        case FollowedUp(text=text):
            return "follow_up", {"text": text, "run_id": run_id}
        case AbortRequested():
            return "abort", {"run_id": run_id}
        case SteeringModeSet(mode):
            return "set_steering_mode", {"mode": mode}
        case FollowUpModeSet(mode):
            return "set_follow_up_mode", {"mode": mode}
        case ToolsSet(tools):
            return "set_active_tools", {"tools": list(tools)}
    raise AssertionError(item)


def longest_line(commands: Sequence[SentCommand]) -> int:
    """Return a line length that every command fits in."""
    lengths = (len(encode_command(command.id, command.kind, command.payload)) for command in commands)
    return min(max(DEFAULT_MAX_LINE_BYTES, *lengths), MAX_SIZE_BYTES)


# -- driving and comparing


async def play(
    client: Client, recording: Recording, sessions: Path, *, idle_seconds: float = IDLE_SECONDS
) -> Divergence | None:
    """Send what was sent when the run was recorded; return the first difference in what comes back.

    ``sessions`` is the directory of the daemon's sessions, where the run's context is put first.  Of a daemon that is
    silent for ``idle_seconds`` nothing more is expected.  An interrupted run is followed up to where it was cut.
    """
    store_context(sessions, recording.header, recording.context)
    for name, kind, payload in opening_commands(recording.header):
        answer = await client.start(kind, payload, command_id=name).answer()
        if answer.error is not None:
            raise answer.error
    sent = [client.start(kind, payload, command_id=name) for name, kind, payload in recording.commands]
    return await _Comparison(client, recording, sent, scaled(idle_seconds)).run()


class _Comparison:
    """Holds the events of a daemon against the recorded ones."""

    def __init__(self, client: Client, recording: Recording, sent: list[Pending], idle_seconds: float) -> None:
        self._recording = recording
        self._sent = sent
        self._stream = client.events(recording.header.run_id)
        self._idle_seconds = idle_seconds
        self._before: deque[bytes] = deque(maxlen=EVENTS_SHOWN_BEFORE)
        self._note: str | None = None

    async def run(self) -> Divergence | None:
        is_accepted = await self._is_accepted()
        for line in read_lines(self._recording.path):
            if not isinstance(line, Said) or line.kind != "event":
                continue
            event = await self._next() if is_accepted else None
            if event is None or event.line != line.line:
                return self._difference(line.line, event)
            self._before.append(line.line)
        if self._recording.end.is_cut:
            return None
        event = await self._next()
        return None if event is None else self._difference(None, event)

    async def _is_accepted(self) -> bool:
        """Wait for the prompt's answer: of a refused one no event would ever come."""
        if self._recording.commands[0].kind != "prompt":
            return True
        answer = await self._wait(self._sent[0].answer())
        if answer is None or answer.error is None:
            return True
        self._note = f"the prompt was refused: {answer.error}"
        return False

    async def _next(self) -> Event | None:
        """Return the next event; None if there is none, and then note why."""
        event = self._stream.take_nowait()
        if event is None:
            event = await self._wait(anext(self._stream, None))
        return event

    async def _wait(self, coming: Awaitable[T]) -> T | None:
        try:
            with anyio.move_on_after(self._idle_seconds) as scope:
                return await coming
        except DaemonGoneError as gone:
            self._note = str(gone)
        if scope.cancelled_caught:
            self._note = f"nothing came for {self._idle_seconds:g} s"
        return None

    def _difference(self, expected: bytes | None, event: Event | None) -> Divergence:
        actual = None if event is None else event.line
        return find_difference(expected, actual, "event", before=tuple(self._before), note=self._note)


# -- the trace that the daemon wrote

_PLACES: Final[dict[str, Place]] = {"event": "event", "input": "input", "effect": "effect"}


def compare_traces(recording: Recording, traces: Path) -> Divergence | None:
    """Return the first difference between a recording and the trace that the replaying daemon wrote of it."""
    before: deque[bytes] = deque(maxlen=EVENTS_SHOWN_BEFORE)
    written = traces / f"{recording.header.run_id}.ndjson"
    is_cut = recording.end.is_cut
    for expected, actual in zip_longest(_steps(recording.path), _steps(written)):
        if expected is None and is_cut:
            return None
        if expected != actual:
            place = _PLACES.get(kind_of(expected or actual), "end")
            return find_difference(expected, actual, place, before=tuple(before))
        if kind_of(expected) == "event":
            before.append(expected)
    return None


def _steps(path: Path) -> Iterator[bytes]:
    """Yield the lines of a trace between its two ends; no input behind the run's end, where it changes nothing."""
    ended = False
    for batch in iter_line_batches(path):
        for line in batch:
            kind = kind_of(line)
            if kind == "effect" or kind == "event" or (kind == "input" and not ended):
                yield line
            ended = ended or (kind == "event" and b'"type":"agent_end"' in line[:160])
