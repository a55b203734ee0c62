"""Exports a run: one file that says all of it, for a bug report or a test, without what it should not say.

An export is made by performing the recording again (:mod:`nous.replay.rewrite`), sealed, replayed, and only then given
its name.  Source: docs/runtime-trace.md, "Export".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET

from nous.engine.inputs import Input
from nous.errors import NousError
from nous.protocol.events import EVENTS
from nous.protocol.messages import Message
from nous.replay.engine_mode import replay_in_engine
from nous.replay.recording import Header, Recorded, check_seal, context_digest, read_header, read_lines
from nous.replay.redact import Redactor
from nous.replay.redact_struct import StructRedactor
from nous.replay.rewrite import InputRedactor, Retelling, with_context
from nous.store.disk import Disk, io_failure
from nous.store.sessions import SessionStore
from nous.store.trace_file import TraceWriter
from nous.store.trace_lines import TraceEnd, kind_of
from nous.store.trace_reader import iter_line_batches, scan
from nous.system.atomic import TEMP_PREFIX, TEMP_SUFFIX
from nous.system.ids import is_safe_id
from nous.system.state_dir import StateDir, is_dead, state_paths

Format = Literal["fixture", "events"]
SUFFIXES: Final[dict[Format, str]] = {"fixture": ".trace.ndjson", "events": ".events.ndjson"}

_BATCH_BYTES: Final = 256 * 1024
_GONE: Final = frozenset({"session_not_found", "session_corrupt", "session_error", "invalid_payload"})
"""Why a session cannot give a run's context any more."""


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """What was exported: ``secrets`` counts the places that were redacted."""

    path: Path
    run_id: str
    format: Format
    status: str
    events: int
    secrets: int
    context: str


def export_trace(
    state_root: Path,
    run_id: str,
    format: Format = "fixture",  # noqa: A002 - its name on the wire
    *,
    redact: bool = True,
    held_secrets: Sequence[str] = (),
    out: Path | None = None,
) -> Path:
    """Export a run's trace and return the file; see :func:`export`."""
    return export(state_root, run_id, format, redact=redact, held_secrets=held_secrets, out=out).path


def export(
    state_root: Path,
    run_id: str,
    format: Format = "fixture",  # noqa: A002 - its name on the wire
    *,
    redact: bool = True,
    held_secrets: Sequence[str] = (),
    out: Path | None = None,
    max_text_bytes: int | None = None,
) -> Export:
    """Export a run's trace to ``out``, or to a file of its own under ``<state>/exports``.  Blocks.

    The file (0600) appears whole or not at all; an older one of the same name is replaced.  A run that was cut off is
    exported as far as it was recorded.  Of ``events``, texts, results and arguments of more than ``max_text_bytes``
    bytes are left out and only measured, as the protocol does with those that do not fit a line.

    Raises:
        NousError: ``run_not_found``; ``command_rejected`` while the run is active; ``verification_failed`` if the
            trace is damaged or its run does not replay; ``unsafe_operation`` if ``out`` is no regular file;
            ``io_failure``.
    """
    state = state_paths(state_root)
    source = find_trace(state, run_id)
    header = read_header(source)
    end = _find_end(state, source)
    redactor = Redactor(held_secrets) if redact else None
    told = _exported_header(state, header, redactor)
    target = out or _default_target(state, run_id, format)
    _check_target(target)
    with _temporary(target) as fixture:
        written = _write_fixture(fixture, source, (header, told), end, redactor)
        _verify(fixture)
        if format == "fixture":
            _rename(fixture, target)
        else:
            with _temporary(target) as events:
                _write_events(events, fixture, max_text_bytes)
                _rename(events, target)
    return Export(
        path=target,
        run_id=run_id,
        format=format,
        status=written.status,
        events=written.counts.events,
        secrets=0 if redactor is None else redactor.count,
        context=told.capture["context"],
    )


def find_trace(state: StateDir, run_id: str) -> Path:
    """Return the trace of a run.  Raises ``run_not_found``."""
    path = state.traces / f"{run_id}.ndjson"
    if not is_safe_id(run_id) or not path.is_file():
        raise NousError("run_not_found", run_id, hint="nous trace list names the runs.")
    return path


def _find_end(state: StateDir, source: Path) -> TraceEnd | None:
    """Return a trace's last line, or None if the run was cut off."""
    found = scan(source, partial(is_dead, state.daemons))
    if found.status == "running":
        raise NousError("command_rejected", "run_in_progress", hint="Wait for the run's end, or abort it.")
    return None if found.ended_at is None else check_seal(source)


def _find_context(state: StateDir, header: Header) -> tuple[Message, ...] | None:
    """Return the messages the run began with, or None if the session does not hold them as they were."""
    context = header.context
    if not context.entries:
        return ()
    try:
        path = SessionStore(state.sessions).get(header.session_id).path(header.leaf_id, context.compaction_id)
    except NousError as error:
        if error.code in _GONE:
            return None
        raise
    messages = tuple(known.message for known in path)
    return messages if context_digest(messages) == context.digest else None


def _exported_header(state: StateDir, header: Header, redactor: Redactor | None) -> Header:
    messages = _find_context(state, header)
    if redactor is None:
        return with_context(header, messages, redaction="none")
    structs = StructRedactor(redactor, header.run_id)
    told = structs.struct(header)
    if (told.run_id, told.session_id) != (header.run_id, header.session_id):
        raise NousError("verification_failed", "a secret is part of the id of the run or of its session")
    if messages is not None:
        messages = tuple(structs.struct(message) for message in messages)
    return with_context(told, messages, redaction="default")


# -- writing


def _write_fixture(
    path: Path, source: Path, headers: tuple[Header, Header], end: TraceEnd | None, redactor: Redactor | None
) -> TraceEnd:
    """Write the run with its second header in place of the first; return the last line."""
    recorded, told = headers

    def read_inputs() -> Iterable[Input]:
        return (line.item for line in read_lines(source) if isinstance(line, Recorded))

    inputs = read_inputs() if redactor is None else InputRedactor(redactor, recorded.spec).redact(read_inputs)
    retelling = Retelling(recorded.spec, told.spec)
    is_cut = end is None or end.is_cut
    with _writing(path) as sink:
        sink.append(msgspec.json.encode(told) + b"\n")
        _append_all(sink, retelling.tell(read_lines(source), iter(inputs), is_cut=is_cut))
        written = TraceEnd(
            status="interrupted" if end is None else end.status,
            ended_at=(retelling.last_ts or recorded.created_at) if end is None else end.ended_at,
            counts=retelling.counts,
            untraced_end=UNSET if end is None else end.untraced_end,
        )
        sink.write_end(written)
    return written


def _write_events(path: Path, fixture: Path, max_text_bytes: int | None) -> None:
    lines = (line + b"\n" for batch in iter_line_batches(fixture) for line in batch if kind_of(line) == "event")
    with _writing(path) as sink:
        _append_all(sink, lines if max_text_bytes is None else (bound_texts(line, max_text_bytes) for line in lines))


def bound_texts(line: bytes, max_bytes: int) -> bytes:
    """Return an event's line without those texts in its payload that have more than ``max_bytes`` bytes.

    In the place of ``text`` stand ``text_bytes`` and ``text_omitted``; a required one (``result``) becomes empty.
    Deltas stay: their sizes are bounded, and the whole text stands nowhere else.
    """
    if len(line) <= max_bytes:
        return line
    event: dict[str, Any] = msgspec.json.decode(line)
    payload: dict[str, Any] = event["payload"]
    struct = EVENTS.get(event["type"])
    fields = () if struct is None else struct.__struct_fields__
    for name in [name for name in payload if f"{name}_omitted" in fields]:
        value = payload[name]
        data = value.encode() if isinstance(value, str) else msgspec.json.encode(value)
        if len(data) > max_bytes:
            payload.pop(name)
            payload |= {f"{name}_bytes": len(data), f"{name}_omitted": True}
            if name == "result":  # which the protocol requires
                payload["result"] = ""
    return msgspec.json.encode(event) + b"\n"


def _append_all(sink: TraceWriter, lines: Iterable[bytes]) -> None:
    """Append lines, many with one write."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size > _BATCH_BYTES:
            sink.append(b"".join(held))
            held, size = [], 0
    sink.append(b"".join(held))


def _verify(fixture: Path) -> None:
    """Replay an export.  One that lacks its context is never called identical; its lines were compared as they came."""
    report = replay_in_engine(fixture)
    lacks_context = report.verdict == "unverified" and read_header(fixture).missing_seams == ("context",)
    if report.verdict != "identical" and not lacks_context:
        raise NousError("verification_failed", f"the export does not replay: {report.verdict}: {report.reason or ''}")


# -- files


def _default_target(state: StateDir, run_id: str, format: Format) -> Path:  # noqa: A002 - its name on the wire
    try:
        state.exports.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise io_failure(error, str(state.exports)) from error
    return state.exports / f"{run_id}{SUFFIXES[format]}"


def _check_target(target: Path) -> None:
    """Refuse to replace what is no plain file: a device, a link, a directory."""
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise io_failure(error, str(target)) from error
    if not stat.S_ISREG(mode):
        raise NousError("unsafe_operation", f"{target} is not a regular file", hint="Type -o - for standard output.")


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Give a name beside ``target`` for a file under way; whatever is left under it is removed."""
    path = target.parent / f"{TEMP_PREFIX}export-{os.urandom(6).hex()}{TEMP_SUFFIX}"
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[TraceWriter]:
    """Give a writer of a new file, which is durable when this is left."""
    disk = Disk()
    try:
        fd = disk.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
    except OSError as error:
        raise io_failure(error, str(path.parent)) from error
    sink = TraceWriter(str(path), fd, disk)
    try:
        yield sink
        sink.sync()
    finally:
        sink.release()


def _rename(path: Path, target: Path) -> None:
    try:
        path.replace(target)
        Disk().sync_directory(str(target.parent))
    except OSError as error:
        raise io_failure(error, str(target)) from error
