"""The seeded plan of faults: the same seed draws the same, and each part fails the way a real one does."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.config.faults import ClientFaults, DiskFaults, FaultPlan, ProviderFaults, ToolFaults, read_fault_plan
from nous.errors import NousError
from nous.runtime.faults import FaultDraw, Part

PARTS: tuple[Part, ...] = ("provider", "tool", "disk", "client")

rates = st.floats(0, 1)
plans = st.builds(
    FaultPlan,
    seed=st.integers(0, 1 << 62),
    provider=st.builds(ProviderFaults, rate=rates),
    tool=st.builds(ToolFaults, rate=rates),
    disk=st.builds(DiskFaults, rate=rates),
    client=st.builds(ClientFaults, rate=rates),
)


@given(plans, st.lists(st.sampled_from(PARTS), max_size=60))
def test_what_one_part_draws_does_not_depend_on_the_others(plan: FaultPlan, order: list[Part]) -> None:
    mixed, alone = FaultDraw(plan), FaultDraw(plan)
    drawn = [(part, mixed.next(part)) for part in order]
    for part in PARTS:
        mine = [kind for other, kind in drawn if other == part]
        assert mine == [alone.next(part) for _ in mine]
        assert set(mine) <= {None, *getattr(plan, part).kinds}


@given(st.integers(0, 1 << 62))
def test_a_rate_of_one_always_fails_and_of_nought_never(seed: int) -> None:
    draw = FaultDraw(FaultPlan(seed=seed, tool=ToolFaults(rate=1.0, kinds=("crash",))))
    assert {draw.next("tool") for _ in range(50)} == {"crash"}
    assert {draw.next("disk") for _ in range(50)} == {None}


def test_a_rate_is_how_often_it_happens() -> None:
    draw = FaultDraw(FaultPlan(seed=1, provider=ProviderFaults(rate=0.25)))
    drawn = [draw.next("provider") for _ in range(4000)]
    assert 900 < sum(kind is not None for kind in drawn) < 1100
    assert set(drawn) == {None, *ProviderFaults().kinds}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_plan_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "seed: 7\nprovider: {rate: 0.5, kinds: [cut]}\ndisk: {rate: 1}\n")
    assert read_fault_plan(path) == FaultPlan(
        seed=7, provider=ProviderFaults(rate=0.5, kinds=("cut",)), disk=DiskFaults(rate=1)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("provider: {rate: 1}\n", "seed"),
        ("seed: -1\n", "seed"),
        ("seed: 1\nnetwork: {rate: 1}\n", "network"),
        ("seed: 1\ntool: {rate: 2}\n", "rate"),
        ("seed: 1\ntool: {rate: 1, kinds: [cut]}\n", "kinds"),
        ("seed: 1\ntool: {rate: 1, kinds: []}\n", r"tool\.kinds"),
        ("- seed\n", "plan"),
    ],
)
def test_a_plan_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(NousError, match=said) as caught:
        read_fault_plan(write(tmp_path, text))
    assert caught.value.code == "invalid_config"
    assert "plan.yaml" in (caught.value.cause or "")


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NousError, match="no such file"):
        read_fault_plan(tmp_path / "absent.yaml")
