"""``--update``: what a recording expects is written anew, its inputs stay, and what cannot be trusted is left alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from nous.engine.spec import ENGINE_VERSION
from nous.errors import NousError
from nous.protocol.digest import SCHEMA_DIGEST
from nous.replay.describe import describe_update
from nous.replay.engine_mode import replay_in_engine
from nous.replay.update import update_recording
from tests.support import recordings
from tests.support.recordings import FIXTURES, Json, cut, edited, fixture, position, write_sealed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.trace.ndjson"


def change(lines: list[bytes], kind: str, edit: Callable[[Json], object], nth: int = 0) -> list[bytes]:
    at = position(lines, kind, nth)
    return [*lines[:at], edited(lines[at], edit), *lines[at + 1 :]]


def inputs_of(path: Path) -> list[bytes]:
    return [line for line in recordings.read_lines(path) if line.startswith(b'{"type":"trace.input"')]


@pytest.mark.parametrize("source", FIXTURES, ids=lambda source: source.name)
def test_what_is_identical_stays_byte_for_byte(path: Path, source: Path) -> None:
    path.write_bytes(source.read_bytes())
    stamp = path.stat().st_mtime_ns
    found = update_recording(path)
    assert (found.changed, found.refused, describe_update(found)) == (False, False, "unchanged")
    assert path.read_bytes() == source.read_bytes()
    assert path.stat().st_mtime_ns == stamp


WITH_TURNS = [source for source in FIXTURES if source.name != "compaction.trace.ndjson"]


@pytest.mark.parametrize("source", WITH_TURNS, ids=lambda source: source.name)
def test_what_was_expected_otherwise_becomes_what_the_engine_says(path: Path, source: Path) -> None:
    lines = recordings.read_lines(source)
    lines = change(lines, "turn_start", lambda data: data["payload"].update(command_id="other"))
    lines = change(lines, "append_entry", lambda data: data.update(digest="0" * 64))
    write_sealed(path, lines)
    assert replay_in_engine(path).verdict == "diverged"
    found = update_recording(path)
    assert found.changed
    assert found.before.divergence is not None
    assert found.before.divergence.json_path == "$.payload.command_id"
    assert replay_in_engine(path).verdict == "identical"
    assert recordings.read_lines(path)[1:-1] == recordings.read_lines(source)[1:-1]
    assert list(path.parent.iterdir()) == [path]


def test_events_and_effects_that_were_missing_or_too_many_are_counted(path: Path) -> None:
    lines = recordings.read_lines(fixture("abort-in-tool"))
    at = position(lines, "stop_tool")
    write_sealed(path, lines[:at] + lines[at + 1 :])
    found = update_recording(path)
    assert found.effects[1] == found.effects[0]  # the end had counted the line that was taken out
    assert describe_update(found).startswith(
        f"updated: events {found.events[0]}, effects {found.effects[0]}; first at "
    )
    assert recordings.read_lines(path)[1:-1] == lines[1:-1]


def test_the_header_names_the_engine_that_says_it_now(path: Path) -> None:
    lines = recordings.read_lines(fixture("plain-text"))

    def older(header: Json) -> None:
        header.update(engine_version=0, schema_digest="0" * 64, server_version="0.0.1", note="kept")

    write_sealed(path, change(lines, "trace.header", older))
    found = update_recording(path)
    assert describe_update(found).endswith("the header only")
    header = msgspec.json.decode(recordings.read_lines(path)[0])
    assert (header["engine_version"], header["schema_digest"]) == (ENGINE_VERSION, SCHEMA_DIGEST)
    assert (header["server_version"], header["note"]) == ("0.0.1", "kept")


def test_a_header_is_left_alone_where_the_engine_says_the_same(path: Path) -> None:
    lines = change(recordings.read_lines(fixture("plain-text")), "trace.header", lambda h: h.update(schema_digest="0"))
    write_sealed(path, lines)
    assert not update_recording(path).changed


def test_what_may_be_left_out_is_left_out_anew(path: Path) -> None:
    """A recorder that leaves nothing out writes the same run; an update makes it as short as ours."""
    lines = recordings.read_lines(fixture("plain-text"))
    at = position(lines, "message_update", 1)
    event = msgspec.json.decode(lines[at])
    written = {
        "type": "trace.input",
        "n": sum(b"trace.input" in line for line in lines[:at]) + 1,
        "after_seq": event["seq"] - 1,
        "ts": event["ts"],
        "mono_ns": 0,
        "kind": "model_produced",
        "data": {"call": 1, "items": [{"type": "text", "text": event["payload"]["delta"]}]},
    }

    def count_on(line: bytes) -> bytes:
        if b'"type":"trace.input"' in line:
            return edited(line, lambda data: data.update(n=data["n"] + 1))
        if b'"type":"trace.end"' in line:
            return edited(line, lambda data: data["counts"].update(inputs=data["counts"]["inputs"] + 1))
        return line

    write_sealed(path, [*lines[:at], msgspec.json.encode(written), *map(count_on, lines[at:])])
    assert replay_in_engine(path).verdict == "identical"
    assert update_recording(path).changed
    assert path.read_bytes() == fixture("plain-text").read_bytes()


def test_a_run_that_was_cut_stays_cut(path: Path) -> None:
    lines = recordings.read_lines(fixture("two-tools"))
    lines = change(lines[: position(lines, "run_tool")], "turn_start", lambda d: d["payload"].update(command_id="x"))
    write_sealed(path, cut(lines))
    assert update_recording(path).changed
    report = replay_in_engine(path)
    assert (report.verdict, report.status) == ("identical", "interrupted")


def test_mode_and_link_are_kept(path: Path) -> None:
    lines = change(
        recordings.read_lines(fixture("plain-text")), "turn_start", lambda d: d["payload"].update(command_id="x")
    )
    target = path.with_name("target.trace.ndjson")
    write_sealed(target, lines)
    target.chmod(0o640)
    path.symlink_to(target)
    assert update_recording(path).changed
    assert path.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert replay_in_engine(target).verdict == "identical"


# -- refused


def test_a_run_that_its_inputs_do_not_end_any_more_is_refused(path: Path) -> None:
    lines = recordings.read_lines(fixture("two-tools"))
    at = position(lines, "model_done", 1)
    rest = [line for line in lines[at + 1 :] if b'"type":"trace.input"' not in line]
    write_sealed(path, [*lines[:at], *rest])
    before = path.read_bytes()
    found = update_recording(path)
    assert found.refused
    assert "record it anew" in describe_update(found)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        (lambda data: data[:-1], "broken"),
        (lambda data: data.replace(b"Good ", b"good ", 1), "broken"),
        (lambda data: b"", "not_a_trace"),
        (lambda data: b"hello\n", "not_a_trace"),
    ],
)
def test_what_cannot_be_trusted_is_left_alone(path: Path, content: Callable[[bytes], bytes], verdict: str) -> None:
    path.write_bytes(content(fixture("plain-text").read_bytes()))
    before = path.read_bytes()
    found = update_recording(path)
    assert found.refused
    assert found.before.verdict == verdict
    assert describe_update(found).startswith(f"refused: {verdict}: ")
    assert path.read_bytes() == before


def test_a_recording_without_a_seam_is_left_alone(path: Path) -> None:
    lines = change(
        recordings.read_lines(fixture("plain-text")), "trace.header", lambda h: h["capture"].update(store="missing")
    )
    write_sealed(path, lines)
    assert update_recording(path).reason == "unverified: missing: store"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written_is_an_io_failure(path: Path) -> None:
    path.write_bytes(fixture("plain-text").read_bytes())
    path.parent.chmod(0o500)
    try:
        with pytest.raises(NousError) as caught:
            update_recording(path)
    finally:
        path.parent.chmod(0o700)
    assert caught.value.code == "io_failure"
