"""``nous serve --faults FILE``: a real daemon among faults of every sort; each run ends in order and replays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nous.config.faults import FaultPlan, read_fault_plan
from nous.replay.engine_mode import replay_in_engine
from tests.support.answers import answer
from tests.support.daemon import run_nous
from tests.support.harness import open_peer
from tests.support.home import ROOT, Home, Setup
from tests.support.lines import Line, of_type
from tests.support.pages import read_blocks

pytestmark = pytest.mark.anyio

RUNS = 40
PLAN: dict[str, Any] = {
    "seed": 11,
    "provider": {"rate": 0.3},
    "tool": {"rate": 0.4},
    "disk": {"rate": 0.05},
    "client": {"rate": 0.1},
}
ROUND = [
    [{"text": "Let me see."}, {"tool_call": {"name": "ls", "arguments": {}}}],
    [{"text": ["All ", "done."]}],
]
HASTY = {"retry": {"first_delay_ms": 1, "max_retries": 2}}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def faulty(home: Home, plan: dict[str, Any], **config: object) -> Setup:
    path = home.root / "plan.yaml"
    path.write_text(json.dumps(plan), encoding="utf-8")
    return Setup(script=ROUND * 3 * RUNS, config={**HASTY, **config}, flags=("--faults", str(path)))


async def live_through(home: Home, setup: Setup) -> list[list[Line]]:
    async with open_peer("stdio", home, setup) as peer:
        runs = []
        for number in range(RUNS):
            await peer.ok("new_session")
            runs.append(await peer.run(f"run {number}"))
        state = await peer.ok("get_state")
        assert (state["run_state"], state["runs"]) == ("idle", [])
    return runs


def outcomes(runs: list[list[Line]]) -> list[tuple[str, list[str]]]:
    return [(run[-1].payload["status"], [w.payload["code"] for w in of_type(run, "warning")]) for run in runs]


async def test_every_run_ends_in_order_and_every_trace_replays(home: Home, tmp_path: Path) -> None:
    runs = await live_through(home, faulty(home, PLAN))
    assert all(len(of_type(run, "agent_end")) == 1 for run in runs)
    assert {run[-1].payload["status"] for run in runs} == {"completed", "failed", "aborted"}
    said = {code for _, codes in outcomes(runs) for code in codes}
    assert {"provider_retry", "tool_execution_error", "provider_aborted"} <= said
    errors = {e.payload["code"] for run in runs for e in of_type(run, "error")}
    assert {"provider_error", "provider_unavailable", "io_failure"} <= errors
    causes = [e.payload["cause"] for run in runs for e in of_type(run, "error")]
    assert all(cause.startswith("injected: ") for cause in causes), causes
    traces = sorted((home.state / "traces").glob("*.ndjson"))
    assert len(traces) == RUNS
    for trace in traces:
        header = json.loads(trace.read_bytes().split(b"\n", 1)[0])
        assert (header["faults"]["seed"], header["capabilities"]) == (11, ["fault_injection"])
        assert replay_in_engine(trace).verdict == "identical"

    again = tmp_path / "again"
    again.mkdir()
    other = Home(again)
    assert outcomes(await live_through(other, faulty(other, PLAN))) == outcomes(runs)


def test_the_plan_that_the_page_shows_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    [shown] = [block for block in read_blocks(page) if block.language == "yaml"]
    path = tmp_path / "plan.yaml"
    path.write_text(shown.text, encoding="utf-8")
    assert read_fault_plan(path).seed == 7
    for part in ("provider", "tool", "disk", "client"):
        [row] = [line for line in page.split("\n") if line.startswith(f"| `{part}` |")]
        kinds = getattr(FaultPlan(seed=0), part).kinds
        assert all(f"`{kind}`" in row for kind in kinds), part


async def test_without_a_plan_a_trace_speaks_of_none(home: Home) -> None:
    async with open_peer("stdio", home) as peer:
        await peer.run("hello")
    [trace] = (home.state / "traces").glob("*.ndjson")
    header = json.loads(trace.read_bytes().split(b"\n", 1)[0])
    assert ("faults" in header, header["capabilities"]) == (False, [])


@pytest.mark.parametrize("profile", ["production", "standard"])
def test_a_plan_is_refused_where_it_must_not_be(home: Home, profile: str) -> None:
    plan = home.root / "plan.yaml"
    plan.write_text("seed: 1\n" if profile == "production" else "rate: 1\n", encoding="utf-8")
    config = home.root / "config.yaml"
    config.write_text(f"daemon: {{profile: {profile}}}\n", encoding="utf-8")
    provider = ("--provider", "ollama", "--model", "m")
    where = ("--config", str(config), "--state-dir", str(home.state))
    assert run_nous(home, "init", "--state-dir", str(home.state)).returncode == 0
    done = run_nous(home, "serve", *provider, *where, "--faults", str(plan), "--json")
    refused = answer(done)
    assert (done.returncode, refused["error_code"]) == (6, "invalid_config")
    assert ("daemon.faults" if profile == "production" else "plan.yaml") in refused["error"]
