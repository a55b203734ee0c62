"""Beside another distribution that installs a package ``nous``, nous refuses: whose modules it has is unknown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.daemon import run_nous
from tests.support.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def beside(home: Home, name: str) -> dict[str, str]:
    """Return an environment in which a distribution is installed."""
    place = home.root / "site-packages"
    (place / name).mkdir(parents=True)
    return {"PYTHONPATH": str(place)}


@pytest.mark.parametrize("name", ["nous-0.7.0.dist-info", "nous-0.7.0-py3.11.egg-info", "Nous-1.dist-info"])
@pytest.mark.parametrize("arguments", [["--version"], ["serve"], ["prompt", "hello", "--provider", "mock"]])
def test_every_command_refuses_beside_it(home: Home, name: str, arguments: list[str]) -> None:
    done = run_nous(home, *arguments, "--json", environ=beside(home, name))
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["error_code"]) == (6, "invalid_usage")
    assert name.rpartition(".")[0] in answer["cause"]
    assert "nous-core alone" in answer["hint"]
    assert not list(Path(home.state).glob("*"))


@pytest.mark.parametrize("name", ["nous_core-0.2.0.dist-info", "nousd-1.0.dist-info", "nous_client-1.dist-info"])
def test_a_name_that_only_begins_alike_is_another_matter(home: Home, name: str) -> None:
    assert run_nous(home, "--version", environ=beside(home, name)).returncode == 0
