"""Whatever happens to a run, its trace replays: through a fresh engine, and through a daemon driven by a client."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, event, given, settings

from nous.replay.engine_mode import replay_in_engine
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


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(scenario=scenarios)
def test_a_recorded_run_replays_identical(scenario: Scenario, recorded_at: Path, replayed_at: Path) -> None:
    path = record(scenario, recorded_at)
    report = replay_in_engine(path)
    assert report.verdict == "identical", report
    divergence = replay_in_memory(path, replayed_at)
    assert divergence is None, divergence
    event(report.status)
