"""Each row of docs/compatibility.md, seen by a client of the original v1 implementation, is a check of the gate."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import anyio
import pytest

from scripts.gate.__main__ import perform
from scripts.gate.checks import ROOT
from scripts.gate.compat import CHECKS
from scripts.gate.mutations import MUTATIONS


@pytest.mark.parametrize("name", CHECKS)
def test_a_row_holds(name: str) -> None:
    # A socket's path has to be short, which pytest's own directories are not.
    with tempfile.TemporaryDirectory(prefix="nous-compat-") as place:
        root = Path(place).resolve()
        (root / "check").mkdir()
        anyio.run(perform, CHECKS[name][1], root / "check", root / "violations")
        assert not (root / "violations").exists()


def test_every_row_of_the_page_has_a_check_and_a_breakage() -> None:
    page = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|", page, re.MULTILINE)
    assert [f"compat.{int(row):02}" for row in rows] == list(CHECKS)
    assert {found.check for found in MUTATIONS} >= set(CHECKS)
