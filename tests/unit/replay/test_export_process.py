"""Exports in a process of their own: the same file as here, failures with their codes, and an end with its caller."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nous.errors import NousError
from nous.ports.model import TextDelta
from nous.replay import export_process
from nous.replay.export import export_trace
from nous.replay.export_process import export_apart
from nous.system.python import own_program
from tests.support.engine import Bench
from tests.support.home import SCALE, TEST_SECONDS
from tests.support.traced import TracedState

SECRET = "correct-horse-battery"


@pytest.fixture
def home(tmp_path: Path) -> TracedState:
    state = TracedState(tmp_path)
    bench = Bench(state.spec()).start(f"my word is {SECRET}")
    state.record(bench.answer(TextDelta(f"yes {SECRET}")).run_to_end())
    return state


def test_it_makes_the_same_file(home: TracedState, monkeypatch: pytest.MonkeyPatch) -> None:
    here = export_trace(home.root, "run-1", held_secrets=[SECRET]).read_bytes()
    monkeypatch.setattr(export_process, "SMALL_TRACE_BYTES", 0)
    path = export_apart(home.root, "run-1", "fixture", (SECRET,))
    assert path == home.root / "exports" / "run-1.trace.ndjson"
    assert path.read_bytes() == here
    assert SECRET.encode() not in here


def test_failures_keep_their_codes(home: TracedState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_process, "SMALL_TRACE_BYTES", 0)
    with pytest.raises(NousError, match="run-2") as caught:
        export_apart(home.root, "run-2", "fixture", ())
    assert caught.value.code == "run_not_found"
    trace = home.traces / "run-1.ndjson"
    trace.write_bytes(trace.read_bytes().replace(b"yes", b"no!"))
    with pytest.raises(NousError) as caught:
        export_apart(home.root, "run-1", "fixture", ())
    assert caught.value.code in ("verification_failed", "session_corrupt")


def test_the_process_ends_with_its_stdin(home: TracedState) -> None:
    """A caller that is killed leaves no process behind: here one that waits for what it never gets."""
    with subprocess.Popen(own_program("nous.replay.export_process"), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(TEST_SECONDS * SCALE) != 0
