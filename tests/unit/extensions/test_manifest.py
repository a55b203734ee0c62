"""Manifests: strict, and exact about what is wrong where."""

from __future__ import annotations

from pathlib import Path

import pytest

from nous.config.settings import ExtensionsSettings
from nous.errors import NousError
from nous.extensions.manifest import Manifest, read_manifest
from nous.extensions.policy import KEYS, Policy, default_on_failure, policy_in_force
from nous.ports.extensions import HOOKS
from tests.support.extension_programs import FIXTURES

SMALL = "name: one\ncommand: [true]\n".replace("true", '"true"')


def read(tmp_path: Path, text: str) -> Manifest:
    (tmp_path / "extension.yaml").write_text(text, encoding="utf-8")
    return read_manifest(tmp_path)


def test_the_smallest(tmp_path: Path) -> None:
    manifest = read(tmp_path, SMALL)
    assert manifest == Manifest(name="one", command=("true",))
    assert (manifest.priority, manifest.hooks, manifest.hook_timeout_ms) == (100, (), 5000)


def test_everything(tmp_path: Path) -> None:
    manifest = read(
        tmp_path,
        SMALL
        + "description: d\npriority: -5\nhooks: [tool_call, input]\non_failure: {tool_call: warn, input: block}\n"
        + "env: [GITHUB_TOKEN]\nhook_timeout_ms: 1\ntool_timeout_ms: 2\nstart_timeout_ms: 3\nmax_output_bytes: 1024\n"
        + "memory_mb: 16\nmax_processes: 4\ncpu_seconds: 5\nmax_concurrency: 6\ncooldown_ms: 7\n",
    )
    assert manifest.on_failure == {"tool_call": "warn", "input": "block"}
    assert [getattr(manifest, key) for key in KEYS] == [1, 2, 3, 1024, 16, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "extension.yaml:1: expected a mapping"),
        ("- a\n", "extension.yaml:1: expected a mapping"),
        ("name: one\n", "extension.yaml:1: command: is missing"),
        ("command: [a]\n", "extension.yaml:1: name: is missing"),
        (SMALL + "timeout: 5\n", "extension.yaml:3: timeout: unknown key; known are"),
        (SMALL + "hooks: [tool_call, tool_cal]\n", "extension.yaml:3: hooks[1]: Invalid enum value 'tool_cal'"),
        (SMALL + "hooks:\n  - input\n  - input\n", "extension.yaml:3: hooks: a hook is named twice"),
        (SMALL + "hooks:\n  - input\n  - inputt\n", "extension.yaml:5: hooks[1]: Invalid enum value"),
        (SMALL + "on_failure: {input: warn}\n", "extension.yaml:3: on_failure.input: this hook is not among `hooks`"),
        (SMALL + "hooks: [input]\non_failure: {input: stop}\n", "extension.yaml:4: on_failure: Invalid enum value"),
        (SMALL + "hook_timeout_ms: 0\n", "extension.yaml:3: hook_timeout_ms: Expected `int` >= 1"),
        (SMALL + 'hook_timeout_ms: "5"\n', "extension.yaml:3: hook_timeout_ms: Expected `int`, got `str`"),
        (SMALL + "priority: 1.5\n", "extension.yaml:3: priority: Expected `int`, got `float`"),
        (SMALL + "env: [A-B]\n", "extension.yaml:3: env[0]: Expected `str` matching regex"),
        (SMALL + "name: two\n", "extension.yaml:3: name: duplicate key"),
        ("name: One\ncommand: [a]\n", "extension.yaml:1: name: Expected `str` matching regex"),
        ("name: one\ncommand: []\n", "extension.yaml:2: command: Expected `array` of length >= 1"),
        ("name: one\ncommand: a\n", "extension.yaml:2: command: Expected `array`, got `str`"),
        ("name: [\n", "extension.yaml:2: not YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, cause: str) -> None:
    with pytest.raises(NousError) as caught:
        read(tmp_path, text)
    assert (caught.value.code, caught.value.exit_code) == ("invalid_config", 6)
    assert cause in (caught.value.cause or "")


def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(NousError) as caught:
        read_manifest(tmp_path)
    assert (caught.value.code, caught.value.exit_code) == ("invalid_usage", 6)


@pytest.mark.parametrize("path", sorted(FIXTURES.iterdir()), ids=lambda path: path.name)
def test_the_examples(path: Path) -> None:
    assert read_manifest(path).name == path.name


def test_the_configuration_overrides_the_manifest(tmp_path: Path) -> None:
    manifest = read(tmp_path, SMALL + "memory_mb: 100\ncpu_seconds: 9\n")
    settings = ExtensionsSettings(memory_mb={"one": 50, "other": 16}, hook_timeout_ms={"other": 1})
    assert policy_in_force("one", manifest, settings) == Policy(memory_mb=50, cpu_seconds=9)


def test_each_key_of_the_policy_is_a_setting() -> None:
    assert set(KEYS) <= set(ExtensionsSettings.__struct_fields__)


def test_only_who_guards_tool_calls_fails_closed() -> None:
    assert {hook for hook in HOOKS if default_on_failure(hook) == "block"} == {"tool_call"}
