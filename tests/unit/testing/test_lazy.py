"""nous.testing is loaded by every pytest where nous is installed, so it brings nothing along until it is used."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

import nous.testing
from tests.support.home import ROOT

HEAVY = ("anyio", "asyncio", "msgspec", "httpx2", "yaml", "structlog", "hypothesis", "nous.replay", "nous.client")

PROGRAM = """
import sys
{first}
before = set(sys.modules)
import nous.testing.pytest_plugin
print(*sorted(set(sys.modules) - before))
"""


def loaded_by(first: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first=first)],
        capture_output=True,
        check=True,
        encoding="utf-8",
        env={"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    return done.stdout.split()


def test_the_plugin_brings_nothing_along_that_pytest_has_not() -> None:
    assert loaded_by("import pytest") == ["nous", "nous.testing", "nous.testing.pytest_plugin"]
    assert not {name for name in loaded_by("import pytest") for heavy in HEAVY if name.startswith(heavy)}


def test_every_name_is_there() -> None:
    for name in nous.testing.__all__:
        assert getattr(nous.testing, name).__module__.startswith("nous.testing.")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(nous.testing, "nothing")  # noqa: B009 - a name that no checker knows


def test_the_package_tells_pytest_of_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"nous": "nous.testing.pytest_plugin"}
