"""The schema of a configuration file says what the layers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nous.config.keys import KEYS
from nous.config.layers import read_file_layer
from nous.config.schema import settings_schema
from nous.config.yaml_file import parse_yaml
from nous.config.yaml_nodes import SourceFile
from nous.errors import NousError

FILES = [
    "{}",
    "provider: {name: mock}",
    "provider: {name: openai, model: m, api_key_env: MY_KEY, headers: {x-a: b}}",
    "tools: {active: [read], policy: {bash: deny}}",
    "daemon: {max_runs: 3}",
    "prompt: {system: null}",
    "provider: {name: nobody}",
    "provider: {api_key_env: sk-secret}",
    "provider: {modle: m}",
    "daemon: {max_runs: 0}",
    "daemon: {max_runs: '3'}",
    "daemon: {max_runs: null}",
    "tools: {active: read}",
    "tools: {policy: {bash: maybe}}",
    "[]",
    "daemon: 3",
    "unknown: 1",
]


def is_taken(text: str) -> bool:
    try:
        read_file_layer(SourceFile("file.yaml", text.encode()), {"HOME": "/nowhere"})
    except NousError:
        return False
    return True


@pytest.mark.parametrize("text", FILES)
def test_the_schema_takes_what_the_layers_take(text: str) -> None:
    value = parse_yaml(SourceFile("file.yaml", text.encode())).plain()
    schema = settings_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert jsonschema.Draft202012Validator(schema).is_valid(value) == is_taken(text)


def test_some_are_taken_and_some_are_not() -> None:
    assert {is_taken(text) for text in FILES} == {True, False}


def test_every_setting_stands_in_it_with_its_sentence() -> None:
    text = json.dumps(settings_schema())
    for key in KEYS.values():
        assert json.dumps(key.doc) in text, key.path


def test_it_can_be_written_as_json(tmp_path: Path) -> None:
    schema: dict[str, Any] = json.loads(json.dumps(settings_schema()))
    assert schema["$schema"].endswith("2020-12/schema")
