"""protocol/v1/examples: valid, complete, consistent, and what a daemon of today says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest

from nous.protocol.codec import Refused, decode_command
from nous.protocol.commands import COMMANDS
from nous.protocol.events import EVENTS, FEATURE_EVENTS
from nous.protocol.responses import ANSWERS
from nous.protocol.schema import documents
from scripts.make_examples import EXAMPLES, main
from tests.support.home import bounded

NAMES: Final = ("commands", "responses", "events")

ALL_TYPES: Final = {
    "commands": set(COMMANDS),
    "responses": {*ANSWERS, "error"},
    "events": {*EVENTS, *FEATURE_EVENTS},
}

PENDING: Final = {
    "commands": set[str](),
    "responses": {"compaction", "extension_result"},
    "events": set[str](),
}
"""What no daemon says yet.  Whoever makes one say it takes it out here, and runs scripts/make_examples.py."""

Line = dict[str, Any]


def read(directory: Path, name: str) -> list[Line]:
    lines = (directory / f"{name}.ndjson").read_bytes().split(b"\n")
    assert lines.pop() == b""
    return [json.loads(line) for line in lines]


def types(lines: list[Line]) -> set[str]:
    return {line["type"] for line in lines}


@pytest.mark.parametrize("name", NAMES)
def test_every_line_fits_its_schema(name: str) -> None:
    schema = documents()[f"{name}.schema.json"]
    for line in read(EXAMPLES, name):
        line_schema = {**schema, "oneOf": [{"$ref": f"#/$defs/{line['type']}"}]}
        jsonschema.Draft202012Validator(line_schema).validate(line)


@pytest.mark.parametrize("name", NAMES)
def test_every_type_has_a_line(name: str) -> None:
    found = types(read(EXAMPLES, name))
    assert found == ALL_TYPES[name] - PENDING[name]


def test_every_command_is_one_to_the_codec() -> None:
    for line in (EXAMPLES / "commands.ndjson").read_bytes().split(b"\n")[:-1]:
        assert not isinstance(decode_command(line, strict=True), Refused)


def test_every_command_has_its_answer() -> None:
    asked = {line["id"] for line in read(EXAMPLES, "commands")}
    answered = [line["id"] for line in read(EXAMPLES, "responses")]
    assert asked <= set(answered)
    assert len(set(answered)) == len(answered)


def test_the_events_are_whole_runs() -> None:
    seqs: dict[str, list[int]] = {}
    for line in read(EXAMPLES, "events"):
        if "seq" in line:
            seqs.setdefault(line["payload"]["run_id"], []).append(line["seq"])
    assert seqs
    for found in seqs.values():
        assert found == list(range(1, len(found) + 1))


@pytest.mark.anyio
async def test_a_daemon_of_today_says_the_same(tmp_path: Path) -> None:
    with bounded():
        await main(tmp_path)
    for name in NAMES:
        fresh, committed = types(read(tmp_path, name)), types(read(EXAMPLES, name))
        assert fresh == committed, "run scripts/make_examples.py"
