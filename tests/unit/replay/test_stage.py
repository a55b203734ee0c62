"""A place for a replaying daemon: nothing of the user's is within its reach, and nothing is left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import nous
from nous.errors import NousError
from nous.replay.stage import PASSED_VARIABLES, SCALE_VARIABLE, Stage, open_stage, scaled

SECRETS = {
    "OPENAI_API_KEY": "sk-secret",
    "ANTHROPIC_API_KEY": "secret",
    "MY_TOKEN": "secret",
    "XDG_CONFIG_HOME": "/secret",
    "XDG_STATE_HOME": "/secret",
    "NOUS_PROVIDER": "openai",
    "HTTP_PROXY": "http://secret",
    "SSH_AUTH_SOCK": "/secret",
}


def test_no_key_and_no_configuration_is_handed_on() -> None:
    given = {**SECRETS, "PATH": "/bin", "TZ": "Asia/Tokyo", "HOME": "/home/me", "PYTHONPATH": "/else"}
    found = Stage(Path("/stage")).environment(given)
    assert "secret" not in repr(found)
    assert found["HOME"] == "/stage"
    assert found["TZ"] == "Asia/Tokyo"
    code = str(Path(nous.__file__).parents[1])
    assert found["PYTHONPATH"] == f"{code}:/else"
    assert set(found) <= {*PASSED_VARIABLES, "HOME", "PYTHONPATH"}


def test_a_stage_is_made_and_removed() -> None:
    with open_stage() as stage:
        assert stage.workdir.is_dir()
        assert (stage.state / "bootstrap.json").is_file()
        arguments = stage.arguments(Path("x.trace.ndjson"), drive="client", speed="full")
        (stage.state / "file").touch()
    assert not stage.root.exists()
    assert arguments[arguments.index("--replay-from") + 1] == str(Path.cwd() / "x.trace.ndjson")
    assert arguments[arguments.index("--state-dir") + 1].startswith(str(stage.root))


def test_one_variable_stretches_every_wait() -> None:
    assert scaled(10.0, {}) == 10.0
    assert scaled(10.0, {SCALE_VARIABLE: "2.5"}) == 25.0


@pytest.mark.parametrize("text", ["", "0", "-1", "much", "nan", "inf"])
def test_a_scale_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(NousError) as caught:
        scaled(10.0, {SCALE_VARIABLE: text})
    assert caught.value.code == "invalid_config"
