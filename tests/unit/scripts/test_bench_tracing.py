"""What stands in for a trace in the benchmark fits where a trace goes."""

from __future__ import annotations

from scripts.bench.tracing import tracing_ratio


def test_runs_with_and_without_a_trace_can_be_compared() -> None:
    assert tracing_ratio(1) > 0
