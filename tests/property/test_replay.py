"""Whatever happens to a run, its trace replays: through a fresh engine, and through a daemon driven by a client.

And nothing else does: a trace of which a byte was changed is never identical.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from nous.replay.describe import failure_text
from nous.replay.engine_mode import replay_in_engine
from nous.replay.update import update_recording
from tests.support.recordings import FIXTURES, fixture
from tests.support.scenarios import Scenario, record, replay_in_memory, scenarios

EXAMPLES: Final = max(2000, settings().max_examples)
"""At least so many, more with --hypothesis-profile=deep or replay-deep."""


@pytest.fixture(scope="module")
def recorded_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_state(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="module")
def replayed_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_state(tmp_path_factory.mktemp("replayed"))


def make_state(root: Path) -> Path:
    for name in ("sessions", "traces", "outputs"):
        (root / name).mkdir()
    return root


def forget(state: Path) -> None:
    """Remove what one example left: thousands of files in a directory make it slow."""
    for name in ("sessions", "traces"):
        for path in (state / name).rglob("*"):
            if path.is_file():
                path.unlink()


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(scenario=scenarios)
def test_a_recorded_run_replays_identical(scenario: Scenario, recorded_at: Path, replayed_at: Path) -> None:
    path = record(scenario, recorded_at)
    report = replay_in_engine(path)
    assert report.verdict == "identical", failure_text(report)
    divergence = replay_in_memory(path, replayed_at)
    assert divergence is None, divergence
    assert not update_recording(path).changed
    event(report.status)
    forget(recorded_at)
    forget(replayed_at)


# -- one byte


def test_no_byte_of_a_recording_can_be_changed(tmp_path: Path) -> None:
    data = fixture("error-before-stream").read_bytes()
    path = tmp_path / "x"
    for at, byte in enumerate(data):
        # Another bit, another case, a line more, a line less.
        for other in {byte ^ 1, byte ^ 0x20, 0x0A, 0x20} - {byte}:
            path.write_bytes(data[:at] + bytes([other]) + data[at + 1 :])
            assert replay_in_engine(path).verdict != "identical", (at, other)


@given(source=st.sampled_from(FIXTURES), data=st.data())
def test_no_byte_of_any_recording_can_be_changed_removed_or_added(
    source: Path, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = source.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    instead = data.draw(st.sampled_from([b"", b"\n", whole[at : at + 1] * 2]) | st.binary(min_size=1, max_size=1))
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(whole[:at] + instead + whole[at + 1 :])
    report = replay_in_engine(path)
    assert (report.verdict == "identical") == (instead == whole[at : at + 1])
