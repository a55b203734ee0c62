"""The bare engine as a judge: what is the same is identical, what is not is shown where it begins to differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nous.engine.spec import ENGINE_VERSION
from nous.replay.engine_mode import replay_in_engine
from nous.replay.recording import context_digest, read_header
from nous.replay.report import Divergence, Report
from tests.support import recordings
from tests.support.recordings import FIXTURES, Json, cut, edited, fixture, position, write_sealed

Edit = Callable[[list[bytes]], list[bytes]]


def replayed(tmp_path: Path, name: str, edit: Edit) -> Report:
    """Replay a fixture after somebody changed its lines and sealed it anew."""
    return replay_in_engine(write_sealed(tmp_path / "x", edit(recordings.read_lines(fixture(name)))))


def diverged(tmp_path: Path, name: str, edit: Edit) -> Divergence:
    report = replayed(tmp_path, name, edit)
    assert report.verdict == "diverged", report
    assert report.exit_code == 5
    assert report.divergence is not None
    return report.divergence


def change(kind: str, edit: Callable[[Json], Any], nth: int = 0) -> Edit:
    """Change what the nth line of a type says."""

    def change_line(lines: list[bytes]) -> list[bytes]:
        at = position(lines, kind, nth)
        return [*lines[:at], edited(lines[at], edit), *lines[at + 1 :]]

    return change_line


def drop(kind: str, nth: int = 0) -> Edit:
    def drop_line(lines: list[bytes]) -> list[bytes]:
        at = position(lines, kind, nth)
        return lines[:at] + lines[at + 1 :]

    return drop_line


def counted(edit: Edit) -> Edit:
    """Make the inputs behind a change count on, and the end count what is there: so that only the engine can tell."""

    def count(lines: list[bytes]) -> list[bytes]:
        out: list[bytes] = []
        seq = inputs = 0
        for line in edit(lines):
            data = msgspec.json.decode(line)
            if data["type"] == "trace.input":
                inputs += 1
                out.append(msgspec.json.encode({**data, "n": inputs, "after_seq": seq}))
            else:
                out.append(line)
            seq = data.get("seq", seq)
        return out

    return count


# -- identical


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_a_recorded_run_is_identical(path: Path) -> None:
    report = replay_in_engine(path)
    assert (report.verdict, report.exit_code, report.reason, report.divergence) == ("identical", 0, None, None)
    assert report.run_id == read_header(path).run_id
    assert report.events == sum(b'"seq":' in line for line in recordings.read_lines(path)[1:])


@pytest.mark.parametrize("name", ["two-tools", "abort-in-tool", "error-in-stream", "changed-modes", "earlier-context"])
def test_a_run_cut_behind_any_line_is_identical_up_to_there(tmp_path: Path, name: str) -> None:
    *lines, _ = recordings.read_lines(fixture(name))
    for length in range(1, len(lines) + 1):
        report = replay_in_engine(write_sealed(tmp_path / "x", cut(lines[:length])))
        assert (report.verdict, report.status) == ("identical", "interrupted"), (length, report)


# -- diverged: every seam, each found where it shows


def test_a_changed_event_is_shown_with_the_five_before_it(tmp_path: Path) -> None:
    lines = recordings.read_lines(fixture("two-tools"))
    found = diverged(tmp_path, "two-tools", change("tool_execution_end", lambda d: d["payload"].update(result="no")))
    events = [line for line in lines if line.startswith(b'{"v"')]
    at = position(events, "tool_execution_end")
    assert (found.what, found.json_path) == ("event", "$.payload.result")
    assert found.seq == msgspec.json.decode(events[at])["seq"]
    assert found.actual == events[at].decode()
    assert found.expected is not None
    assert '"result":"no"' in found.expected
    assert len(found.before) == 5
    for event, shown in zip(events[at - 5 : at], found.before, strict=True):
        assert event.decode().startswith(shown.removesuffix("..."))


def test_a_changed_text_shows_in_what_is_stored(tmp_path: Path) -> None:
    # The deltas' inputs were left out, so their events are also what the engine is given.
    def other_text(lines: list[bytes]) -> list[bytes]:
        return [line.replace(b'"morning"', b'"evening"').replace(b"Good morning!", b"Good evening!") for line in lines]

    found = diverged(tmp_path, "plain-text", other_text)
    assert (found.what, found.json_path) == ("effect", "$.digest")


def test_another_leaf_shows_at_once(tmp_path: Path) -> None:
    def move(header: Json) -> None:
        header["leaf_id"] = header["spec"]["leaf_id"] = "m0"

    found = diverged(tmp_path, "earlier-context", change("trace.header", move))
    assert (found.what, found.seq, found.json_path) == ("event", 1, "$.payload.leaf_id")


def test_another_context_shows_in_the_request_even_if_the_answer_hides_it(tmp_path: Path) -> None:
    def forget(header: Json) -> None:
        context = header["context"]
        context["messages"] = context["messages"][1:]
        context["entries"] -= 1
        header["spec"]["context_digest"] = context["digest"] = recomputed(context["messages"])

    found = diverged(tmp_path, "earlier-context", change("trace.header", forget))
    assert (found.what, found.json_path) == ("effect", "$.digest")
    assert found.expected is not None
    assert '"kind":"call_model"' in found.expected


def recomputed(messages: list[Json]) -> str:
    header = read_header(fixture("earlier-context"))
    assert isinstance(header.context.messages, tuple)
    kind = type(header.context.messages[0])
    return context_digest(tuple(msgspec.convert(message, kind) for message in messages))


def test_another_system_prompt_shows_in_the_request(tmp_path: Path) -> None:
    found = diverged(tmp_path, "plain-text", change("trace.header", lambda d: d["spec"].update(system_digest="0" * 64)))
    assert (found.what, found.json_path) == ("effect", "$.digest")


def test_a_missing_tool_result_is_found(tmp_path: Path) -> None:
    found = diverged(tmp_path, "two-tools", counted(drop("tool_done")))
    assert found.expected is not None
    assert '"kind":"append_entry"' in found.expected
    assert found.actual is None


def test_a_changed_tool_argument_is_found_in_what_is_asked_for(tmp_path: Path) -> None:
    def other_path(data: Json) -> None:
        text = msgspec.json.encode(data["data"]).decode()
        assert "notes.txt" in text
        data["data"] = msgspec.json.decode(text.replace("notes.txt", "other.txt"))

    produced = [
        nth
        for nth in range(4)
        if b"notes.txt" in recordings.read_lines(fixture("two-tools"))[nth_of("two-tools", "model_produced", nth)]
    ]
    found = diverged(tmp_path, "two-tools", change("model_produced", other_path, produced[0]))
    assert found.json_path in ("$.payload.delta", "$.digest")

    # Also where the events hide it: nobody asked for the fragments, and the start was changed too.
    found = diverged(tmp_path, "two-tools", change("run_tool", lambda d: d.update(digest="0" * 64)))
    assert (found.what, found.json_path) == ("effect", "$.digest")


def nth_of(name: str, kind: str, nth: int) -> int:
    return position(recordings.read_lines(fixture(name)), kind, nth)


def test_effects_are_compared_even_where_the_events_are_the_same(tmp_path: Path) -> None:
    assert diverged(tmp_path, "plain-text", drop("append_entry")).what in ("input", "effect")
    for name, kind in (
        ("abort-in-model", "stop_model"),
        ("abort-in-tool", "stop_tool"),
        ("abort-in-tool", "start_timer"),
    ):
        found = diverged(tmp_path, name, drop(kind))
        assert found.actual is not None
        assert kind in found.actual


def test_what_the_engine_says_beyond_the_recording_is_shown(tmp_path: Path) -> None:
    report = replayed(tmp_path, "plain-text", counted(drop("agent_end")))
    assert report.verdict == "diverged"
    assert report.divergence is not None
    assert (report.divergence.what, report.divergence.expected) == ("end", None)
    assert report.divergence.actual is not None
    assert '"agent_end"' in report.divergence.actual


def test_a_run_that_ends_otherwise_has_diverged(tmp_path: Path) -> None:
    found = diverged(tmp_path, "plain-text", change("trace.end", lambda d: d.update(status="failed")))
    assert (found.what, found.expected, found.actual) == ("end", "failed", "completed")


def test_another_engine_version_is_named_as_the_likely_reason(tmp_path: Path) -> None:
    def older(lines: list[bytes]) -> list[bytes]:
        lines = change("trace.header", lambda d: d.update(engine_version=0))(lines)
        return change("turn_start", lambda d: d["payload"].update(turn_kind="steer"))(lines)

    report = replayed(tmp_path, "plain-text", older)
    assert report.verdict == "diverged"
    assert report.reason == f"recorded by engine version 0, replayed by {ENGINE_VERSION}"


# -- broken, unverified, no trace


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (counted(drop("message_start")), "grammar: event line 3: event.seq: 4 follows 2"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], "grammar: event line 2: event.seq: 1 follows 1"),
        (change("message_update", lambda d: d["payload"].update(delta="X"), 1), "grammar: event line 9: message.text"),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], "grammar: event line 1: "),
        (change("trace.end", lambda d: d["counts"].update(effects=9)), "trace.end: it counts "),
        (lambda lines: [*lines[:4], b"what?", *lines[4:]], "a line of unknown kind"),
        (change("trace.header", lambda d: d["context"].update(digest="0" * 64)), "header: two digests of the context"),
        (change("trace.header", lambda d: d.pop("context")), "header: Object missing required field `context`"),
    ],
)
def test_what_no_engine_wrote_is_broken(tmp_path: Path, edit: Edit, reason: str) -> None:
    report = replayed(tmp_path, "plain-text", edit)
    assert (report.verdict, report.exit_code) == ("broken", 2)
    assert report.reason is not None
    assert report.reason.startswith(reason)
    assert report.divergence is None


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda context: context["messages"].pop(), "header: the context lacks messages"),
        (
            lambda context: context["messages"][0].update(text="x"),
            "header: the context's messages do not fit its digest",
        ),
        (lambda context: context["messages"].reverse(), "header: the context's messages do not fit its digest"),
    ],
)
def test_a_context_that_does_not_fit_its_digest_is_broken(
    tmp_path: Path, edit: Callable[[Json], None], reason: str
) -> None:
    report = replayed(tmp_path, "earlier-context", change("trace.header", lambda d: edit(d["context"])))
    assert report.verdict == "broken"
    assert report.reason is not None
    assert report.reason.startswith(reason)


def test_a_missing_seam_is_named(tmp_path: Path) -> None:
    report = replayed(tmp_path, "plain-text", change("trace.header", lambda d: d["capture"].update(tools="missing")))
    assert (report.verdict, report.exit_code, report.reason) == ("unverified", 2, "missing: tools")


@pytest.mark.parametrize("content", [b"", b"hello\n", b'{"v":"1","id":"r1.1","type":"agent_start"}\n'])
def test_what_is_no_trace_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    report = replay_in_engine(path)
    assert (report.verdict, report.exit_code) == ("not_a_trace", 6)


def test_a_file_that_is_not_there_is_no_trace(tmp_path: Path) -> None:
    assert replay_in_engine(tmp_path / "absent").verdict == "not_a_trace"
    assert replay_in_engine(tmp_path).verdict == "not_a_trace"
