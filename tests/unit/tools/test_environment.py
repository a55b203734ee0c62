"""What a command may know of the environment."""

from __future__ import annotations

import pytest

from nous.tools.environment import open_environment


def test_everything_but_what_is_closed() -> None:
    environ = {"PATH": "/bin", "MY_VAR": "1", "PROVIDER": "named by a setting"}
    assert open_environment(environ, {"PROVIDER"}) == {"PATH": "/bin", "MY_VAR": "1"}


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "GITHUB_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "PGPASSWORD",
        "my_api_key",
        "Token",
        "MONKEY",
        "XTOKENX",
    ],
)
def test_names_that_say_secret(name: str) -> None:
    assert open_environment({name: "value"}, ()) == {}
