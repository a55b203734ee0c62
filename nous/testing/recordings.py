"""Recorded runs served as if they happened now: for front ends that are developed and tested without a model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from nous.client import Client
from nous.client.process import serve_command
from nous.replay.context import find_context, store_context
from nous.replay.judge import UnverifiedError
from nous.replay.recording import read_header
from nous.replay.serving import Speed, find_recordings
from nous.replay.stage import open_stage, scaled

READY_SECONDS: Final = 30.0


class ServedRecording(NamedTuple):
    """A daemon that serves recordings.

    ``client`` is connected to it.  ``argv`` and ``env`` start another one like it: that is what a front end under test
    is given in the place of its usual ``nous serve``.  ``session_id`` is the recorded session of a single recording,
    with the messages it had when the run began, ``""`` where these are not known.
    """

    client: Client
    argv: list[str]
    env: dict[str, str]
    session_id: str


@asynccontextmanager
async def serve_recording(path: Path | str, *, speed: Speed = "full") -> AsyncIterator[ServedRecording]:
    """Serve a recorded run, or those of a directory in turn, to whoever sends prompts.

    Every prompt, whatever its text, starts the next recorded run, whose events come as they were recorded but for its
    session and, from the second time on, its run id.  What clients sent while it was recorded comes by itself.  With
    ``speed="recorded"`` the model and the tools take the time they took.

    Raises:
        NousError: ``invalid_usage`` for what is no recording; what the client raises if the daemon does not start.
    """
    path = Path(path)
    find_recordings(path)
    with open_stage() as stage:
        argv = serve_command(stage.arguments(path, drive="recording", speed=speed))
        env = stage.environment()
        async with Client.spawn(argv, env=env, cwd=stage.workdir, ready_timeout=scaled(READY_SECONDS)) as client:
            yield ServedRecording(client, argv, env, _put_session(path, stage.state / "sessions"))


def _put_session(path: Path, sessions: Path) -> str:
    if path.is_dir():
        return ""
    header = read_header(path)
    try:
        store_context(sessions, header, find_context(path, header))
    except UnverifiedError:
        return ""
    return header.session_id
