"""``make test-hardening``: what it runs exists, and a broken requirement is a FAIL and an exit code."""

from __future__ import annotations

import pytest

from scripts import hardening
from tests.support.home import ROOT


def test_every_requirement_has_tests() -> None:
    for _, paths in hardening.REQUIREMENTS.values():
        assert paths
        assert all((ROOT / path).is_file() for path in paths)


def test_a_requirement_that_holds_passes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hardening.REQUIREMENTS, "H1", ("locks", ("tests/unit/store/test_disk.py",)))
    assert hardening.main(["--only", "H1"]) == 0
    assert capsys.readouterr().out.startswith("PASS H1 locks: (")


def test_a_requirement_that_does_not_hold_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hardening.REQUIREMENTS, "H1", ("nothing", ("tests/unit/store/absent.py",)))
    assert hardening.main(["--only", "H1"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("FAIL H1 nothing: ")
    assert "0 of 1 requirements hold" in said
