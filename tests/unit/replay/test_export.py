"""Exports: what is in them, when there is one, and where it goes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import msgspec
import pytest

from nous.errors import NousError
from nous.ports.model import TextDelta, ThinkingDelta
from nous.protocol.entries import Compaction
from nous.protocol.messages import Message
from nous.replay.engine_mode import replay_in_engine
from nous.replay.export import export, export_trace
from nous.replay.recording import Header, check_seal, context_digest, read_header
from nous.replay.validate import validate
from nous.store.sessions import SessionStore
from nous.system.state_dir import EpochLock
from tests.support.engine import Bench, tool_call
from tests.support.traced import CREATED_AT, EPOCH, TracedState

SECRET = "sk-abcdefghijklmnop"


@pytest.fixture
def home(tmp_path: Path) -> TracedState:
    return TracedState(tmp_path / "state")


def said(home: TracedState, *texts: str) -> Bench:
    """Return a run whose model says ``texts``, one delta each, and is then done."""
    bench = Bench(home.spec()).start("hello")
    for text in texts:
        bench.produce(TextDelta(text))
    return bench.run_to_end()


def entry(number: int, text: str, *, role: str = "user") -> Message:
    parent = f"e{number - 1}" if number > 1 else ""
    return msgspec.convert(
        {"type": "message", "id": f"e{number}", "parent_id": parent, "role": role, "text": text, "created_at": "t"},
        Message,
    )


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


def seal(lines: list[bytes]) -> bytes:
    """Return a file of lines with the digest of its last one made to fit."""
    head = lines[-1].partition(b',"sha256":"')[0] + b',"sha256":"'
    body = b"".join(line + b"\n" for line in lines[:-1]) + head
    return body + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def context_messages(header: Header) -> tuple[Message, ...]:
    assert isinstance(header.context.messages, tuple)
    return header.context.messages


def refused(home: TracedState, code: str, run_id: str = "run-1", out: Path | None = None) -> str:
    """Export, which must fail and leave nothing behind; return why."""
    before = sorted(home.root.parent.rglob("*"))
    with pytest.raises(NousError) as caught:
        export(home.root, run_id, out=out)
    assert caught.value.code == code
    assert [p for p in sorted(home.root.parent.rglob("*")) if p not in before] in ([], [home.root / "exports"])
    return caught.value.cause or ""


# -- what is in it


def test_an_export_is_the_run_with_another_header_and_seal(home: TracedState) -> None:
    trace = home.record(said(home, "one ", "two ", "three"))
    path = export_trace(home.root, "run-1")
    assert path == home.root / "exports" / "run-1.trace.ndjson"
    assert path.stat().st_mode & 0o777 == 0o600
    assert lines_of(path)[1:-1] == lines_of(trace)[1:-1]
    assert check_seal(path) == check_seal(trace)
    assert read_header(path).redaction == "default"
    assert replay_in_engine(path).verdict == "identical"
    assert validate(path).verdict == "valid"


def test_inputs_that_were_left_out_stay_out(home: TracedState) -> None:
    home.record(said(home, f"a {SECRET[:5]}", f"{SECRET[5:]} b", "c"))
    kinds = [json.loads(line).get("kind") for line in lines_of(export_trace(home.root, "run-1"))]
    # The first delta opens the message, "fine" closes it; the two in between stand in their events only.
    assert kinds.count("model_produced") == 2


def test_events_are_the_envelopes_alone(home: TracedState) -> None:
    bench = Bench(home.spec()).start(f"say {SECRET}").produce(ThinkingDelta("hm"))
    trace = home.record(bench.run_to_end())
    done = export(home.root, "run-1", "events", redact=False)
    assert done.path == home.root / "exports" / "run-1.events.ndjson"
    assert lines_of(done.path) == [line for line in lines_of(trace) if line.startswith(b'{"v"')]
    assert validate(done.path).verdict == "valid"
    path = export_trace(home.root, "run-1", "events")
    assert SECRET.encode() not in path.read_bytes()
    assert len(lines_of(path)) == done.events + 1


def test_without_redaction_everything_stands_as_it_was(home: TracedState) -> None:
    trace = home.record(said(home, f"it is {SECRET}"))
    done = export(home.root, "run-1", redact=False, held_secrets=["hello there"])
    assert lines_of(done.path)[1:-1] == lines_of(trace)[1:-1]
    assert (read_header(done.path).redaction, done.secrets) == ("none", 0)


def test_an_export_says_what_it_did(home: TracedState) -> None:
    home.record(said(home, f"it is {SECRET}, really ", SECRET))
    done = export(home.root, "run-1")
    assert (done.status, done.secrets, done.context) == ("completed", 2, "recorded")
    assert done.events == check_seal(done.path).counts.events


# -- the context


def test_the_context_is_inlined_and_redacted(home: TracedState) -> None:
    messages = [entry(1, f"my key is {SECRET}"), entry(2, "thanks", role="assistant")]
    home.record(Bench(home.spec(messages)).start().run_to_end(), context=2)
    header = read_header(export_trace(home.root, "run-1"))
    assert [m.text for m in context_messages(header)] == ["my key is [REDACTED*********]", "thanks"]
    assert header.context.digest == header.spec.context_digest == context_digest(context_messages(header))
    assert header.capture["context"] == "recorded"


def test_a_redacted_context_changes_the_digest_of_requests_and_nothing_else(home: TracedState) -> None:
    trace = home.record(Bench(home.spec([entry(1, SECRET)])).start().run_to_end(), context=1)
    path = export_trace(home.root, "run-1")
    differing = [json.loads(b) for a, b in zip(lines_of(trace), lines_of(path), strict=True) if a != b]
    assert [line.get("kind") for line in differing] == [None, "call_model", None]
    assert replay_in_engine(path).verdict == "identical"


def test_a_context_that_is_gone_is_missing(home: TracedState) -> None:
    trace = home.record(Bench(home.spec([entry(1, "hello")])).start().run_to_end(), context=1)
    (home.sessions / "session-1.ndjson").unlink()
    done = export(home.root, "run-1")
    assert done.context == read_header(done.path).capture["context"] == "missing"
    assert lines_of(done.path)[1:-1] == lines_of(trace)[1:-1]
    report = replay_in_engine(done.path)
    assert (report.verdict, report.reason) == ("unverified", "missing: context")


@pytest.mark.parametrize("damage", [b"no session\n", b"", b'{"type":"session","format":99}\n'])
def test_a_session_that_cannot_be_read_counts_as_gone(home: TracedState, damage: bytes) -> None:
    home.record(Bench(home.spec([entry(1, "hello")])).start().run_to_end(), context=1)
    (home.sessions / "session-1.ndjson").write_bytes(damage)
    assert export(home.root, "run-1").context == "missing"


def test_a_session_that_says_something_else_counts_as_gone(home: TracedState) -> None:
    home.record(Bench(home.spec([entry(1, "hello")], context_digest="f" * 64)).start().run_to_end(), context=1)
    assert export(home.root, "run-1").context == "missing"


def test_the_context_is_the_one_of_the_compaction_that_was_in_force(home: TracedState) -> None:
    spec = home.spec([entry(1, "one"), entry(2, "two"), entry(3, "three")])
    session = SessionStore(home.sessions).get("session-1")
    for number in (1, 2):
        assert session.try_append(
            Compaction(
                id=f"c{number}",
                parent_id="e3",
                summary=f"summary {number}",
                first_kept_entry_id="e3",
                tokens_before=9,
                trigger="manual",
                by="deterministic",
                created_at=CREATED_AT,
            )
        )
    for compaction_id, last in (("c1", "summary 1"), ("c2", "summary 2"), ("", "one")):
        context = tuple(known.message for known in session.path("e3", compaction_id))
        run_id = f"run-{compaction_id}x"
        changed = msgspec.structs.replace(spec, run_id=run_id, context_digest=context_digest(context))
        home.record(Bench(changed).start().run_to_end(), context=len(context), compaction_id=compaction_id)
        header = read_header(export_trace(home.root, run_id))
        assert context_messages(header) == context
        assert context_messages(header)[0].text.endswith(last)


# -- which runs


def test_an_active_run_is_refused(home: TracedState) -> None:
    home.record(Bench(home.spec()).start(), end=None)
    lock = EpochLock.acquire(home.root / "daemons", EPOCH)
    try:
        assert refused(home, "command_rejected") == "run_in_progress"
    finally:
        lock.release()
    assert export(home.root, "run-1").status == "interrupted"


def test_a_run_of_a_living_daemon_that_has_ended_is_exported(home: TracedState) -> None:
    home.record(said(home, "done"))
    lock = EpochLock.acquire(home.root / "daemons", EPOCH)
    try:
        assert export(home.root, "run-1").status == "completed"
    finally:
        lock.release()


def test_a_run_that_was_cut_anywhere_is_exported_as_far_as_it_goes(home: TracedState) -> None:
    bench = Bench(home.spec()).start(f"hello {SECRET}")
    bench.call_tools(tool_call("read", '{"path":"a"}')).run_tool(f"it says {SECRET}")
    trace = home.record(bench.produce(TextDelta("so ")).produce(TextDelta("be it")), end=None)
    whole = trace.read_bytes()
    header_end = whole.index(b"\n") + 1
    redacted = lines_of(export_trace(home.root, "run-1"))[1:-1]
    assert len(redacted) == whole.count(b"\n") - 1
    for end in [*range(header_end, len(whole), 97), len(whole) - 1]:
        trace.write_bytes(whole[:end])
        done = export(home.root, "run-1")
        told = lines_of(done.path)
        assert told[1:-1] == redacted[: whole.count(b"\n", header_end, end)]
        assert done.status == check_seal(done.path).status == "interrupted"
        assert replay_in_engine(done.path).verdict == "identical"
        assert SECRET.encode() not in done.path.read_bytes()


def test_a_run_that_was_closed_as_interrupted_is_exported_the_same(home: TracedState) -> None:
    bench = Bench(home.spec()).start().produce(TextDelta("half"))
    trace = home.record(bench, end="interrupted")
    done = export(home.root, "run-1")
    assert lines_of(done.path)[1:-1] == lines_of(trace)[1:-1]
    assert check_seal(done.path) == check_seal(trace)


@pytest.mark.parametrize("run_id", ["run-2", "../traces/run-1", "", "a" * 200, "run-1.ndjson"])
def test_a_run_that_does_not_exist(home: TracedState, run_id: str) -> None:
    home.record(said(home, "x"))
    refused(home, "run_not_found", run_id)


def test_an_absent_state_directory_has_no_runs(tmp_path: Path) -> None:
    with pytest.raises(NousError) as caught:
        export(tmp_path / "nowhere", "run-1")
    assert caught.value.code == "run_not_found"
    assert not (tmp_path / "nowhere").exists()


# -- what is not exported


def test_a_trace_that_was_changed_is_refused(home: TracedState) -> None:
    trace = home.record(said(home, "done"))
    trace.write_bytes(trace.read_bytes().replace(b'"done"', b'"gone"'))
    assert "sha256" in refused(home, "verification_failed")


def test_a_run_that_does_not_replay_is_refused(home: TracedState) -> None:
    trace = home.record(said(home, "one", "two"))
    lines = lines_of(trace)
    for change in (
        [line.replace(b'"stop_reason":"stop"', b'"stop_reason":"length"') for line in lines],
        [line for line in lines if b"turn_end" not in line],
        [*lines[:-2], lines[-1]],
        [line.replace(b'"digest":"', b'"digest":"0') if b"call_model" in line else line for line in lines],
    ):
        trace.write_bytes(seal(change))
        assert "does not replay" in refused(home, "verification_failed")
    trace.write_bytes(seal(lines))
    assert export(home.root, "run-1").status == "completed"


def test_what_cannot_be_redacted_without_changing_the_run_is_refused(home: TracedState) -> None:
    # Two names in one object that get the same placeholder: the object would lose one.
    arguments = '{"sk-abcdefgh":1,"sk-ABCDEFGH":2}'
    home.record(Bench(home.spec()).start().call_tools(tool_call("read", arguments)).run_to_end())
    assert "cannot be redacted" in refused(home, "verification_failed")
    assert export(home.root, "run-1", redact=False).status == "completed"


# -- where to


def test_an_older_export_is_replaced_and_no_other_file_is_left(home: TracedState, tmp_path: Path) -> None:
    home.record(said(home, "done"))
    out = tmp_path / "deep" / "bug.trace.ndjson"
    out.parent.mkdir()
    out.write_text("old", encoding="utf-8")
    out.chmod(0o644)
    assert export(home.root, "run-1", out=out).path == out
    assert replay_in_engine(out).verdict == "identical"
    assert out.stat().st_mode & 0o777 == 0o600
    assert list(out.parent.iterdir()) == [out]
    export(home.root, "run-1", "events", out=out)
    assert list(out.parent.iterdir()) == [out]


def test_what_is_no_plain_file_is_not_replaced(home: TracedState, tmp_path: Path) -> None:
    home.record(said(home, "done"))
    file, link, pipe = tmp_path / "file", tmp_path / "link", tmp_path / "pipe"
    file.write_text("mine", encoding="utf-8")
    link.symlink_to(file)
    os.mkfifo(pipe)
    for target in (link, pipe, tmp_path):
        assert "not a regular file" in refused(home, "unsafe_operation", out=target)
    assert file.read_text(encoding="utf-8") == "mine"


def test_a_directory_that_is_not_there_is_an_io_failure(home: TracedState, tmp_path: Path) -> None:
    home.record(said(home, "done"))
    refused(home, "io_failure", out=tmp_path / "none" / "x")


def test_a_structured_output_is_redacted_and_stays_json_of_the_same_shape(home: TracedState) -> None:
    pem = "-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkq\\n-----END PRIVATE KEY-----"
    for number, text in enumerate((f'["{SECRET}", 1.50]', f'{{ "a": "{pem}" }}', f'"{SECRET}"')):
        schema = {"enum": [[SECRET, 1.5]]}
        bench = Bench(home.spec(run_id=f"run-{number}", output_schema=schema, answer_form=2)).start(f"use {SECRET}")
        bench.produce(TextDelta(text[:9]), TextDelta(text[9:])).answer().store().check_output()
        home.record(bench)
        out = export(home.root, f"run-{number}")
        data = out.path.read_bytes()
        assert SECRET.encode() not in data
        assert b"MIIEvQ" not in data
        assert out.secrets >= 3
        end = json.loads(lines_of(out.path)[-2])["payload"]
        assert end["status"] == "completed"
        assert type(end["output"]) is type(json.loads(text))
        assert replay_in_engine(out.path).verdict == "identical"
