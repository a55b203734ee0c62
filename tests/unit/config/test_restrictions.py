"""What stays in force of a trusted project file that has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nous.config.keys import KEYS, flatten
from nous.config.layers import resolve
from nous.config.restrictions import PROJECT_SETTINGS
from nous.config.settings import Settings
from nous.config.yaml_nodes import SourceFile

TRUSTED = "project.yaml (as trusted)"


def in_force(home: Path, user: str, trusted: str, **flags: object) -> dict[str, Any]:
    """Return the settings that differ from the defaults beside a changed file that said ``trusted``."""
    config = home / ".config" / "nous" / "config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(user, encoding="utf-8")
    found = resolve(environ={"HOME": str(home)}, flags=flags, last_trusted=SourceFile(TRUSTED, trusted.encode()))
    defaults = flatten(Settings())
    return {path: value for path, value in flatten(found.settings).items() if defaults.get(path) != value}


def test_the_table_names_every_setting_that_a_project_may_give() -> None:
    """A new setting is in force or not after a change because somebody decided so."""
    assert PROJECT_SETTINGS.keys() == {path for path, key in KEYS.items() if not key.owner_only}


@pytest.mark.parametrize(
    ("user", "trusted", "expected"),
    [
        # Prohibitions.
        ("{}", "tools: {policy: {bash: deny, read: allow}}", {"tools.policy.bash": "deny"}),
        ("tools: {policy: {bash: allow}}", "tools: {policy: {bash: deny}}", {"tools.policy.bash": "deny"}),
        ("tools: {policy: {bash: deny}}", "tools: {policy: {bash: allow}}", {"tools.policy.bash": "deny"}),
        ("{}", "tools: {active: [read]}", {"tools.active": ("read",)}),
        ("tools: {active: [ls, read]}", "tools: {active: [read, bash]}", {"tools.active": ("read",)}),
        ("tools: {active: [ls]}", "tools: {active: [bash]}", {"tools.active": ()}),
        ("tools: {active: [ls]}", "tools: {active: null}", {"tools.active": ("ls",)}),
        ("{}", "prompt: {agents_md: false}", {"prompt.agents_md": False}),
        ("engine: {structured_output_tools: true}", "engine: {structured_output_tools: false}", {}),
        # Limits: the tighter one.
        ("{}", "tools: {memory_limit_mb: 64}", {"tools.memory_limit_mb": 64}),
        ("{}", "tools: {memory_limit_mb: 100000}", {}),
        ("tools: {memory_limit_mb: 32}", "tools: {memory_limit_mb: 64}", {"tools.memory_limit_mb": 32}),
        ("{}", "provider: {max_output_tokens: 100}", {"provider.max_output_tokens": 100}),
        ("provider: {max_output_tokens: 9}", "provider: {max_output_tokens: null}", {"provider.max_output_tokens": 9}),
        ("{}", "engine: {max_model_calls: 2}", {"engine.max_model_calls": 2}),
        ("{}", "retry: {max_retries: 0}", {"retry.max_retries": 0}),
        ("{}", "daemon: {on_eof: abort}", {"daemon.on_eof": "abort"}),
        ("trace: {fsync: 'off'}", "trace: {fsync: run}", {"trace.fsync": "run"}),
        ("{}", "trace: {fsync: 'off'}", {}),
        # Choices count no more.
        ("{}", "provider: {name: openai, model: m}\nprompt: {system: text}", {}),
    ],
)
def test_what_forbade_or_limited_stays(tmp_path: Path, user: str, trusted: str, expected: dict[str, Any]) -> None:
    assert in_force(tmp_path, user, trusted) == expected


def test_flags_win_over_what_stays(tmp_path: Path) -> None:
    flags = {"tools.active": ("bash",)}
    assert in_force(tmp_path, "{}", "tools: {active: [read]}", **flags) == {"tools.active": ("bash",)}


def test_the_source_of_what_stays_is_the_trusted_file(tmp_path: Path) -> None:
    source = SourceFile(TRUSTED, b"\n\ntools: {memory_limit_mb: 64}")
    found = resolve(environ={"HOME": str(tmp_path)}, last_trusted=source)
    assert found.sources["tools.memory_limit_mb"] == f"{TRUSTED}:3"
