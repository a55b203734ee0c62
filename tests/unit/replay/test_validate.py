"""Checking files by themselves: every rule of a trace, and event lists of other implementations."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nous.ports.model import TextDelta, ThinkingDelta
from nous.protocol.grammar import RULES as EVENT_RULES
from nous.replay.export import export_trace
from nous.replay.validate import MAX_FINDINGS, RULES, Validation, validate
from nous.store.trace_lines import MAX_TRACE_LINE_BYTES
from tests.support.engine import Bench, make_spec, tool_call
from tests.support.home import SCALE
from tests.support.traced import TracedState

V1_RUN = (
    "agent_start",
    "turn_start",
    "message_start",
    "message_update",
    "message_end",
    "tool_execution_start",
    "tool_execution_update",
    "tool_execution_end",
    "status",
    "turn_end",
    "agent_end",
)


def make_lines(root: Path) -> list[bytes]:
    """Return the lines of a trace with everything in it."""
    bench = Bench(make_spec()).start("hello").produce(ThinkingDelta("hm"), TextDelta("I "))
    bench.produce(TextDelta("will "), TextDelta("read")).call_tools(tool_call("read", '{"path":"a"}'))
    bench.allow().progress("x").progress("y").finish_tool("xy").store()
    trace = TracedState(root).record(bench.run_to_end())
    return trace.read_bytes().split(b"\n")[:-1]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return make_lines(tmp_path_factory.mktemp("state"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.ndjson"


def joined(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def seal(lines: Sequence[bytes]) -> bytes:
    """Return a file of lines with the digest of its last one made to fit."""
    body = joined(lines[:-1]) + lines[-1].partition(b',"sha256":"')[0] + b',"sha256":"'
    return body + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def check(file: Path, data: bytes) -> Validation:
    file.write_bytes(data)
    return validate(file)


def broken(file: Path, lines: Sequence[bytes]) -> list[tuple[int, str]]:
    """Return line and rule of what is found in a sealed trace."""
    found = check(file, seal(lines))
    assert (found.verdict, found.exit_code) == ("broken", 2)
    assert all(finding.rule in RULES and finding.detail for finding in found.findings)
    return [(finding.line, finding.rule) for finding in found.findings]


def number_of(lines: Sequence[bytes], part: bytes) -> int:
    """Return the index of the first line that holds ``part``."""
    return next(i for i, line in enumerate(lines) if part in line)


def replaced(lines: Sequence[bytes], index: int, old: bytes, new: bytes) -> list[bytes]:
    assert old in lines[index]
    return [*lines[:index], lines[index].replace(old, new, 1), *lines[index + 1 :]]


# -- traces


def test_a_whole_trace_is_valid(file: Path, lines: list[bytes]) -> None:
    found = check(file, joined(lines))
    events = sum(b'"seq":' in line for line in lines)
    assert found == Validation(
        path=str(file), verdict="valid", kind="trace", run_id="run-1", status="completed", events=events
    )
    assert found.exit_code == 0


def test_an_export_is_valid(tmp_path: Path) -> None:
    home = TracedState(tmp_path)
    home.record(Bench(home.spec()).start().run_to_end())
    assert [validate(export_trace(home.root, "run-1", f)).kind for f in ("fixture", "events")] == ["trace", "events"]


def test_two_events_that_changed_places(file: Path, lines: list[bytes]) -> None:
    at = number_of(lines, b'"delta":"will "')
    swapped = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
    assert broken(file, swapped)[0] == (at + 1, "event.seq")
    events = [line for line in swapped if line.startswith(b'{"v"')]
    found = check(file, joined(events))
    at = number_of(events, b'"delta":"read"')
    assert (found.verdict, found.findings[0].rule, found.findings[0].line) == ("broken", "event.seq", at + 1)


def test_an_event_that_is_missing(file: Path, lines: list[bytes]) -> None:
    for at, line in enumerate(lines):
        if b'"seq":' in line:
            found = broken(file, [*lines[:at], *lines[at + 1 :]])
            assert found[0][0] in range(at, at + 4)
            assert {rule for _, rule in found} & {"event.seq", "run.start_missing", "run.end_missing"}, line


def test_an_event_that_stands_twice(file: Path, lines: list[bytes]) -> None:
    for at, line in enumerate(lines):
        if b'"seq":' in line:
            found = broken(file, [*lines[: at + 1], *lines[at:]])
            assert found[0] == (at + 2, "run.after_end" if b"agent_end" in line else "event.seq")


def test_every_event_that_changed_places_with_the_next(file: Path, lines: list[bytes]) -> None:
    for at in range(len(lines) - 2):
        if b'"seq":' in lines[at] and b'"seq":' in lines[at + 1]:
            found = broken(file, [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]])
            assert found[0][0] == at + 1


Change = Callable[[list[bytes]], list[bytes]]


def change(part: bytes, old: bytes, new: bytes) -> Change:
    return lambda lines: replaced(lines, number_of(lines, part), old, new)


def behind(part: bytes, line: bytes) -> Change:
    return lambda lines: [*lines[: number_of(lines, part) + 1], line, *lines[number_of(lines, part) + 1 :]]


@pytest.mark.parametrize(
    ("made", "part", "offset", "rule"),
    [
        (
            change(b"trace.header", b'"trace_version":1,', b'"trace_version":1,"v":7,'),
            b"trace.header",
            0,
            "trace.header",
        ),
        (change(b"trace.header", b'"context":{"entries":0', b'"context":{"entries":"x"'), b"header", 0, "trace.header"),
        (
            change(b"trace.header", b'"entries":0,"digest":"f', b'"entries":0,"digest":"0'),
            b"header",
            0,
            "trace.context",
        ),
        (change(b"agent_start", b'"id":"run-1', b'"id":"run-2'), b"agent_start", 0, "trace.run_id"),
        (behind(b"agent_start", b'{"type":"trace.note"}'), b"trace.note", 0, "trace.line"),
        (behind(b"agent_start", b""), b"agent_start", 1, "trace.line"),
        (change(b'"kind":"entry_stored"', b'"n":2', b'"n":3'), b'"kind":"entry_stored"', 0, "trace.input"),
        (change(b'"kind":"entry_stored"', b'"after_seq":3', b'"after_seq":2'), b"entry_stored", 0, "trace.input"),
        (change(b'"kind":"entry_stored"', b'"entry_stored"', b'"entry_lost"'), b"entry_lost", 0, "trace.input"),
        (change(b"call_model", b'"n":2', b'"n":4'), b"call_model", 0, "trace.effect"),
        (change(b"call_model", b'"digest"', b'"digits"'), b"call_model", 0, "trace.effect"),
        (change(b"trace.end", b'"events":', b'"events":1'), b"trace.end", 0, "trace.counts"),
        (change(b"trace.end", b'"counts":', b'"count":'), b"trace.end", 0, "trace.seal"),
        (change(b"agent_end", b'"run_id":"run-1"', b'"run_id":7'), b"agent_end", 0, "event.run_id"),
    ],
)
def test_every_rule_of_a_trace(
    file: Path, lines: list[bytes], made: Change, part: bytes, offset: int, rule: str
) -> None:
    changed = made(list(lines))
    assert (number_of(changed, part) + offset + 1, rule) in broken(file, changed)


def test_every_rule_of_the_grammar_is_told_with_its_line(file: Path, lines: list[bytes]) -> None:
    at = number_of(lines, b'"text":"I will read"')
    assert (at + 1, "message.text") in broken(file, replaced(lines, at, b'"I will', b'"I shall'))
    assert set(EVENT_RULES) < set(RULES)


@pytest.mark.parametrize("rest", [b"\n", b"more", b'{"type":"trace.end"}\n', b"\x00"])
def test_nothing_follows_the_end(file: Path, lines: list[bytes], rest: bytes) -> None:
    found = check(file, joined(lines) + rest)
    assert [(f.line, f.rule) for f in found.findings] == [(len(lines) + 1, "trace.after_end")]


def test_a_changed_byte_is_found_wherever_it_is(file: Path, lines: list[bytes]) -> None:
    data = joined(lines)
    for at in [*range(0, len(data), 53), *range(len(data) - 80, len(data))]:
        found = check(file, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert found.verdict != "valid", at


def test_findings_are_bounded(file: Path, lines: list[bytes]) -> None:
    found = check(file, seal([lines[0], *[b"x"] * 50, *lines[1:]]))
    assert len(found.findings) == MAX_FINDINGS
    assert found.more_findings == 50 - MAX_FINDINGS


# -- cut traces


def test_a_cut_trace_is_read_up_to_the_cut(file: Path, lines: list[bytes]) -> None:
    data = joined(lines)
    header_begin = len(b'{"type":"trace.')
    for end in range(header_begin, len(data), 7):
        found = check(file, data[:end])
        whole = data[:end].split(b"\n")[:-1]
        assert (found.verdict, found.exit_code, found.findings) == ("cut", 2, ())
        assert found.events == sum(b'"seq":' in line for line in whole)
        assert found.reason == f"it has no end; its events were read up to line {len(whole)}"


def test_a_cut_trace_may_be_broken_too(file: Path, lines: list[bytes]) -> None:
    at = number_of(lines, b'"delta":"will "')
    found = check(file, joined([*lines[:at], *lines[at + 1 : -3]]))
    assert (found.verdict, found.findings[0].rule) == ("broken", "event.seq")


def test_an_interrupted_trace_is_valid_without_an_end_of_its_run(tmp_path: Path) -> None:
    home = TracedState(tmp_path)
    trace = home.record(Bench(home.spec()).start().produce(TextDelta("half")), end="interrupted")
    found = validate(trace)
    assert (found.verdict, found.status) == ("valid", "interrupted")


# -- event lists of any v1 implementation


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n \n"])
@pytest.mark.parametrize("flat", [False, True])
def test_a_plain_list_of_v1_is_valid(file: Path, end: str, flat: bool) -> None:
    events = [{"type": kind} if flat else {"type": kind, "payload": {"run_id": "r"}} for kind in V1_RUN]
    text = end.join(json.dumps(event) for event in events)
    for data in (text, text + end):
        found = check(file, data.encode())
        assert (found.verdict, found.kind, found.events, found.findings) == ("valid", "events", len(V1_RUN), ())


def test_rule_and_line_of_a_list(file: Path) -> None:
    events = [json.dumps({"type": kind}).encode() for kind in V1_RUN]
    cases: list[tuple[list[bytes], int, str]] = [
        ([*events[:3], events[4], events[3], *events[5:]], 5, "message.not_open"),
        ([*events[:4], *events[5:]], 9, "message.not_closed"),
        ([*events, events[-1]], 12, "run.after_end"),
        (events[1:], 1, "run.start_missing"),
        (events[:-1], 10, "run.end_missing"),
        ([*events[:2], b"garbage", *events[2:]], 3, "event.malformed"),
        ([*events[:2], events[1], *events[2:]], 3, "turn.already_open"),
        ([events[0], b"", b"", *events[:1], *events[1:]], 4, "run.start_repeated"),
    ]
    for changed, line, rule in cases:
        found = check(file, joined(changed))
        assert (found.verdict, found.exit_code) == ("broken", 2)
        assert (line, rule) in [(f.line, f.rule) for f in found.findings]


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    begin = b'{"type":"trace.header","trace_version":1'
    for content in (data, begin + data, b'{"type":"agent_start"}\n' + data, begin + b"}\n" + data):
        path = Path(os.environ["PYTEST_TMP_FILE"])
        assert check(path, content).verdict in ("broken", "cut", "not_a_trace")


@pytest.fixture(autouse=True)
def _scratch_file(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_TMP_FILE", str(tmp_path_factory.getbasetemp() / "scratch"))


# -- bad input


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"\n \n\r\n", "it is empty"),
        (b"hello\n", "neither a trace header nor an event"),
        (b"\x00" * 100, "neither a trace header nor an event"),
        (b'{"type":"session","format":1}\n', "neither a trace header nor an event"),
        (b"[" * 100_000, "neither a trace header nor an event"),
        (b'{"type":"trace.input","n":1}\n', "does not begin with a trace header"),
        (b'{"type":"trace.end","sha256":"x"}\n', "does not begin with a trace header"),
    ],
)
def test_what_is_no_trace(file: Path, data: bytes, reason: str) -> None:
    found = check(file, data)
    assert (found.verdict, found.exit_code) == ("not_a_trace", 6)
    assert reason in (found.reason or "")


def test_a_newer_version_is_named(file: Path, lines: list[bytes]) -> None:
    found = check(file, joined(replaced(lines, 0, b'"trace_version":1', b'"trace_version":2')))
    assert (found.verdict, found.reason) == ("not_a_trace", "trace version 2 is newer than this nous knows (1)")


def test_a_file_that_is_not_there_and_a_directory(tmp_path: Path) -> None:
    assert [validate(path).exit_code for path in (tmp_path / "none", tmp_path)] == [6, 6]


MEASURE = """
import json, resource, sys
from pathlib import Path
from nous.replay.validate import validate
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = [validate(Path(name)) for name in sys.argv[1:]]
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([[f.verdict, f.exit_code, [x.rule for x in f.findings], f.reason] for f in found] + [grown]))
"""


def test_a_line_of_a_gigabyte_is_refused_in_bounded_memory(tmp_path: Path, lines: list[bytes]) -> None:
    names = ("bare", "list", "header", "line")
    begins = (b"", b'{"type":"agent_start"}\n{"type":"', lines[0][:500], joined(lines[:5]) + b'{"v":"1","id":"')
    for name, begin in zip(names, begins, strict=True):
        (tmp_path / name).write_bytes(begin)
        os.truncate(tmp_path / name, 1 << 30)
    command = [sys.executable, "-c", MEASURE, *(str(tmp_path / name) for name in names)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60 * SCALE)
    *found, grown_kib = json.loads(done.stdout)
    too_long = f"a line is longer than {MAX_TRACE_LINE_BYTES} bytes"
    assert found == [
        ["not_a_trace", 6, [], too_long],
        ["broken", 2, ["trace.line"], None],
        ["broken", 2, ["trace.line"], None],
        ["broken", 2, ["trace.line"], None],
    ]
    assert grown_kib < 4 * MAX_TRACE_LINE_BYTES // 1024
