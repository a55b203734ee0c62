"""A trace as a recording: its header, what was left out made again, its seal."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nous.engine.inputs import ModelProduced
from nous.engine.machine import RunMachine
from nous.engine.spec import EMPTY_CONTEXT
from nous.errors import NousError
from nous.ports.model import TextDelta
from nous.protocol.messages import Message
from nous.replay.recording import (
    NotATraceError,
    Recorded,
    Said,
    check_seal,
    context_digest,
    parse_header,
    read_header,
    read_lines,
)
from nous.store.trace_lines import MAX_TRACE_LINE_BYTES, BrokenTraceError
from tests.support import recordings
from tests.support.recordings import FIXTURES, Json, edited, fixture, position, seal, write_sealed

HEADER = recordings.read_lines(fixture("plain-text"))[0]


def set_field(*path: str, to: Any) -> Callable[[Json], None]:
    def edit(data: Json) -> None:
        for name in path[:-1]:
            data = data[name]
        data[path[-1]] = to

    return edit


def remove_field(name: str) -> Callable[[Json], None]:
    def edit(data: Json) -> None:
        del data[name]

    return edit


# -- the header


def test_a_header_says_whose_run_it_is_and_what_it_lacks() -> None:
    header = parse_header("x", HEADER)
    assert header.run_id == header.spec.run_id
    assert header.missing_seams == ()
    lacking = edited(
        edited(HEADER, set_field("capture", "model", to="missing")), set_field("capture", "x", to="missing")
    )
    assert parse_header("x", lacking).missing_seams == ("model", "x")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\n", "it does not begin with a trace header"),
        (b"hello\n", "it does not begin with a trace header"),
        (b'{"type":"trace.header"}\n', "it does not begin with a trace header"),
        (b'{"type":"trace.header","trace_version":"1"}\n', "it does not begin with a trace header"),
        (b'{"type":"trace.header",\n', "it does not begin with a trace header"),
        (b'{"type":"trace.header","x":' + b"[" * 100_000 + b"\n", "it does not begin with a trace header"),
        (b'{"type":"trace.input"}\n', "it does not begin with a trace header"),
        (b'{"v":"1","id":"r.1","type":"agent_start"}\n', "it does not begin with a trace header"),
        (b'{"type":"trace.header","trace_version":2}\n', "trace version 2 is newer than this nous knows (1)"),
    ],
)
def test_what_is_no_trace_is_named_so(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(NotATraceError) as caught:
        read_header(path)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (remove_field("context"), "header: Object missing required field `context`"),
        (remove_field("spec"), "header: Object missing required field `spec`"),
        (remove_field("capture"), "header: Object missing required field `capture`"),
        (set_field("context", to={}), "header: Object missing required field `entries` - at `$.context`"),
        (set_field("run_id", to="../x"), "header: an id that is none"),
        (set_field("session_id", to=""), "header: an id that is none"),
        (set_field("session_id", to="another"), "header: two runs, sessions or leaves"),
        (set_field("leaf_id", to="another"), "header: two runs, sessions or leaves"),
    ],
)
def test_a_header_that_lacks_something_is_broken(edit: Callable[[Json], None], reason: str) -> None:
    with pytest.raises(BrokenTraceError) as caught:
        parse_header("x", edited(HEADER, edit))
    assert caught.value.reason == reason


def test_a_header_that_was_cut_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(HEADER[:100])
    with pytest.raises(BrokenTraceError, match="cut: the header has no end"):
        read_header(path)


def read_all(path: Path) -> None:
    read_header(path)
    for _ in read_lines(path):
        pass


@pytest.mark.parametrize("begin", [b"", b'{"type":"trace.header"', HEADER + b"\n"])
def test_a_line_of_a_gigabyte_is_not_held(tmp_path: Path, begin: bytes) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.write(begin)
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        with pytest.raises((NotATraceError, BrokenTraceError)):
            read_all(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_TRACE_LINE_BYTES
    finally:
        tracemalloc.stop()


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(NousError, match="There is no such run"):
        read_header(tmp_path / "absent")
    with pytest.raises(NousError, match="Reading or writing failed"):
        read_header(tmp_path)


# -- lines


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_every_line_comes_back_and_what_was_left_out_stands_before_its_event(path: Path) -> None:
    _, *lines, _ = recordings.read_lines(path)
    found = list(read_lines(path))
    assert [item.line for item in found if item.line is not None] == lines
    for item, following in pairwise(found):
        if isinstance(item, Recorded) and item.line is None:
            assert isinstance(item.item, ModelProduced)
            assert isinstance(following, Said)
            event = msgspec.json.decode(following.line)
            assert item.item.items == [TextDelta(event["payload"]["delta"])]
            assert item.stamp.ts == event["ts"]


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_what_was_left_out_could_be(path: Path) -> None:
    machine = RunMachine(read_header(path).spec)
    for item in read_lines(path):
        if isinstance(item, Recorded):
            if isinstance(item.item, ModelProduced):
                assert machine.elides(item.item.items) == (item.line is None)
            machine.receive(item.stamp, item.item)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda lines: [*lines[:3], b'{"type":"trace.other"}', *lines[3:]], "a line of unknown kind"),
        (lambda lines: [*lines[:3], lines[0], *lines[3:]], "a line of unknown kind"),
        (lambda lines: [*lines[:3], b"", *lines[3:]], "a line of unknown kind"),
        (lambda lines: [*lines[:3], lines[-1], *lines[3:]], "a line behind trace.end"),
        (lambda lines: [*lines, lines[-1]], "a line behind trace.end"),
        (lambda lines: [lines[0], *lines[2:]], "input 2 stands where input 1 should"),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], "input 1 stands where input 2 should"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "input 1 does not stand behind event 0"),
        (lambda lines: [lines[0], b'{"type":"trace.input","n":1}', *lines[2:]], "input: "),
        (lambda lines: [lines[0], lines[1].replace(b"run_started", b"run_stopped"), *lines[2:]], "input: "),
    ],
)
def test_a_line_that_is_not_at_its_place_is_broken(
    tmp_path: Path, edit: Callable[[list[bytes]], list[bytes]], reason: str
) -> None:
    lines = edit(recordings.read_lines(fixture("plain-text")))
    path = tmp_path / "x"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    with pytest.raises(BrokenTraceError) as caught:
        list(read_lines(path))
    assert caught.value.reason.startswith(reason)
    assert caught.value.offset in {sum(len(line) + 1 for line in lines[:n]) for n in range(len(lines))}


def test_an_update_without_a_delta_is_broken(tmp_path: Path) -> None:
    lines = recordings.read_lines(fixture("plain-text"))
    at = position(lines, "message_update", 2)
    lines[at] = edited(lines[at], lambda data: data["payload"].pop("delta"))
    with pytest.raises(BrokenTraceError, match="message_update: "):
        list(read_lines(write_sealed(tmp_path / "x", lines)))


# -- the seal


def test_a_seal_covers_every_byte(tmp_path: Path) -> None:
    lines = recordings.read_lines(fixture("plain-text"))
    path = write_sealed(tmp_path / "x", lines)
    assert path.read_bytes() == fixture("plain-text").read_bytes()
    assert check_seal(path).status == "completed"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda data: data[:-1], "cut: bytes without a line end stand at its end"),
        (lambda data: data + b" ", "cut: bytes without a line end stand at its end"),
        (lambda data: data[: data.rindex(b'{"type":"trace.end"')], "cut: there is no trace.end"),
        (lambda data: HEADER + b"\n", "cut: there is no trace.end"),
        (lambda data: data + b"\n", "cut: there is no trace.end"),
        (lambda data: data.replace(b"Good ", b"good ", 1), "changed: the sha256 does not fit the bytes before it"),
        (lambda data: data[:-3] + b' "}\n', "changed: the sha256 does not fit the bytes before it"),
        (lambda data: data.replace(b',"sha256":"', b',"sha255":"'), "changed: the sha256 does not fit"),
    ],
)
def test_a_cut_or_changed_trace_is_found(tmp_path: Path, content: Callable[[bytes], bytes], reason: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content(fixture("plain-text").read_bytes()))
    with pytest.raises(BrokenTraceError) as caught:
        check_seal(path)
    assert caught.value.reason.startswith(reason)


def test_an_end_that_says_too_little_is_broken(tmp_path: Path) -> None:
    *lines, end = recordings.read_lines(fixture("plain-text"))
    path = tmp_path / "x"
    path.write_bytes(seal([*lines, edited(end, remove_field("status"))]))
    with pytest.raises(BrokenTraceError, match=r"trace.end: Object missing required field `status`"):
        check_seal(path)


# -- the context


def test_the_digest_of_a_context_follows_every_message_and_their_order() -> None:
    one, two = (Message(id=name, role="user", text=name, created_at="") for name in ("m1", "m2"))
    digests = {context_digest(messages) for messages in ((), (one,), (two,), (one, two), (two, one))}
    assert len(digests) == 5
    assert context_digest(()) == EMPTY_CONTEXT
