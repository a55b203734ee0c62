"""Totals of a session outlive the process that spent them, and are never a guess."""

from __future__ import annotations

from pathlib import Path

from nous.protocol.messages import Usage
from nous.store.spent import NOTHING_SPENT, Spent, UsageLog

ONE = Spent(Usage(input_tokens=10, output_tokens=2), 0.5)


def test_totals_survive_and_add_up_over_processes(tmp_path: Path) -> None:
    first, second = UsageLog(tmp_path), UsageLog(tmp_path)
    assert first.total("s1") is NOTHING_SPENT
    first.add("s1", "r1", ONE)
    assert second.total("s1") == ONE
    second.add("s1", "r2", ONE)
    for log in (first, second, UsageLog(tmp_path)):
        assert log.total("s1") == Spent(Usage(input_tokens=20, output_tokens=4), 1.0)
    assert first.total("s2") is NOTHING_SPENT


def test_an_unknown_cost_stays_unknown(tmp_path: Path) -> None:
    log = UsageLog(tmp_path)
    log.add("s1", "r1", ONE)
    log.add("s1", "r2", Spent(Usage(input_tokens=1), None))
    log.add("s1", "r3", ONE)
    assert UsageLog(tmp_path).total("s1") == Spent(Usage(input_tokens=21, output_tokens=4), None)


def test_a_row_that_was_cut_makes_the_cost_unknown_and_spoils_no_other(tmp_path: Path) -> None:
    log = UsageLog(tmp_path)
    log.add("s1", "r1", ONE)
    with (tmp_path / "s1.usage").open("ab") as file:
        file.write(b'\n{"run_id":"r2","us')
    assert UsageLog(tmp_path).total("s1") == ONE, "its writer may still be at it"
    log.add("s1", "r3", ONE)
    assert log.total("s1") == UsageLog(tmp_path).total("s1") == Spent(Usage(input_tokens=20, output_tokens=4), None)


def test_nothing_spent_changes_no_sum() -> None:
    assert NOTHING_SPENT.plus(ONE) == ONE == ONE.plus(NOTHING_SPENT)
    assert Spent(Usage(), None).plus(ONE).cost_usd is None
