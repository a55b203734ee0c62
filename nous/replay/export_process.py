"""Exports a run in a process of its own, so that a long export holds up no daemon: neither its loop nor its end.

The process ends when its standard input does: with the daemon, however that ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from nous.errors import CODES, NousError, as_nous_error
from nous.replay.export import Format, export_trace, find_trace
from nous.system.prctl import set_non_dumpable
from nous.system.python import own_program
from nous.system.state_dir import state_paths

SMALL_TRACE_BYTES: Final = 1024 * 1024
"""A trace of at most this size is exported in the calling thread: that takes less time than the start of a process."""


class _Request(Struct):
    state_root: str
    run_id: str
    format: Format
    held_secrets: tuple[str, ...]


class _Reply(Struct):
    path: str = ""
    code: str = ""
    cause: str | None = None
    hint: str | None = None


def export_apart(state_root: Path, run_id: str, form: Format, held_secrets: tuple[str, ...]) -> Path:
    """Export a run, redacted, below ``exports/`` and return the file.  Blocks; the work on a long trace is done apart.

    Raises:
        NousError: as :func:`nous.replay.export.export`; ``internal_error`` if the process died.
    """
    if find_trace(state_paths(state_root), run_id).stat().st_size <= SMALL_TRACE_BYTES:
        return export_trace(state_root, run_id, form, held_secrets=held_secrets)
    request = msgspec.json.encode(_Request(str(state_root), run_id, form, held_secrets))
    with subprocess.Popen(
        own_program(__name__), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # Its stdin stays open until it has answered: the end of it is its sign to stop.
        process.stdin.write(request + b"\n")
        process.stdin.flush()
        answer = process.stdout.read()
    try:
        reply = msgspec.json.decode(answer, type=_Reply)
    except msgspec.DecodeError:
        raise NousError("internal_error", f"the export ended with code {process.returncode}") from None
    if reply.code:
        raise NousError(reply.code if reply.code in CODES else "internal_error", reply.cause, hint=reply.hint)
    return Path(reply.path)


def main() -> None:
    """Answer the one request on stdin."""
    set_non_dumpable()
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Request)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        path = export_trace(Path(request.state_root), request.run_id, request.format, held_secrets=request.held_secrets)
        reply = _Reply(path=str(path))
    except Exception as error:
        failure = as_nous_error(error)
        reply = _Reply(code=failure.code, cause=failure.cause, hint=failure.hint)
    os.write(1, msgspec.json.encode(reply))


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)
