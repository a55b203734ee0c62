"""The schemas: valid JSON Schema, in step with the structs, the codec and the protocol's tables."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nous.errors import WIRE_CODES, NousError
from nous.protocol.codec import decode_command
from nous.protocol.commands import COMMANDS, Command
from nous.protocol.events import (
    EVENTS,
    FEATURE_EVENTS,
    StatusEvent,
    daemon_line,
    event_line,
    feature_line,
    untraced_line,
)
from nous.protocol.responses import ANSWERS, Accepted, Result, encode_answer, error_line, mark_duplicate, success_line
from nous.protocol.schema import Schema, documents, render, schema_digest
from scripts.check_drift import ROOT, all_documents, drifted, write
from tests.unit.protocol.samples import as_json, sample

DOCUMENTS = documents()
COMMAND_SCHEMA, RESPONSE_SCHEMA, EVENT_SCHEMA = (
    DOCUMENTS[f"{n}.schema.json"] for n in ("commands", "responses", "events")
)
TS = b"2026-01-02T03:04:05.678Z"

FEATURE_TYPES = {name: cls for name, (_, cls) in FEATURE_EVENTS.items()}
EVENT_TYPES = {**EVENTS, **FEATURE_TYPES}


def errors(document: Schema, line: Any, definition: str | None = None) -> list[str]:
    """Return what is wrong with a line, against the whole document or one definition of it."""
    schema = document if definition is None else {**document, "oneOf": [{"$ref": f"#/$defs/{definition}"}]}
    return [e.message for e in jsonschema.Draft202012Validator(schema).iter_errors(line)]


def command(kind: str, payload: Any) -> dict[str, Any]:
    return {"v": "1", "id": "c1", "type": kind, "payload": payload}


def answer(kind: str, *, full: bool) -> Any:
    instance = sample(ANSWERS[kind], full=full)
    if isinstance(instance, Result):
        instance.events[:] = [{"type": "agent_start", "ts": TS.decode(), "turn": 1, "run_id": "r"}]
    return json.loads(success_line("c1", *encode_answer(instance)))


def event(kind: str, *, full: bool) -> Any:
    payload = sample(EVENT_TYPES[kind], full=full)
    if kind == "error":
        payload = type(payload)(run_id="r", code="timeout", message="m", category="internal_failure", retryable=False)
    if kind in FEATURE_TYPES:
        return json.loads(feature_line(b"r", 3, 1, TS, payload))
    return json.loads(event_line(b"r", 3, TS, payload))


WIRE_ERROR = NousError("provider_unavailable", "503", hint="Wait.", retry_after_ms=5, data={"run_id": "r"})
ERROR_RESPONSE = json.loads(error_line("c1", WIRE_ERROR))

LINES: list[tuple[str, Schema, Any]] = [
    *((k, COMMAND_SCHEMA, command(k, as_json(sample(c, full=True)))) for k, c in COMMANDS.items()),
    *((k, RESPONSE_SCHEMA, answer(k, full=True)) for k in ANSWERS),
    ("error", RESPONSE_SCHEMA, ERROR_RESPONSE),
    *((k, EVENT_SCHEMA, event(k, full=True)) for k in EVENT_TYPES),
]
LINE_IDS = [f"{document['$id'].rpartition(':')[2]}-{kind}" for kind, document, _ in LINES]
each_line = pytest.mark.parametrize(("kind", "document", "line"), LINES, ids=LINE_IDS)


def subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for child in schema.values():
            yield from subschemas(child)
    elif isinstance(schema, list):
        for child in schema:
            yield from subschemas(child)


def resolve(document: Schema, schema: Schema) -> Schema:
    return resolve(document, document["$defs"][schema["$ref"].rpartition("/")[2]]) if "$ref" in schema else schema


# --- the documents themselves


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_every_document_is_valid_draft_2020_12(document: Schema) -> None:
    assert document["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]
    jsonschema.Draft202012Validator.check_schema(document)


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_every_reference_leads_somewhere(document: Schema) -> None:
    references = {schema["$ref"] for schema in subschemas(document) if isinstance(schema.get("$ref"), str)}
    assert references <= {f"#/$defs/{name}" for name in document["$defs"]}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_every_shared_part_is_used(document: Schema) -> None:
    references = {schema["$ref"] for schema in subschemas(document) if isinstance(schema.get("$ref"), str)}
    assert references == {f"#/$defs/{name}" for name in document["$defs"]}


def test_the_union_names_every_type_of_the_wire() -> None:
    names = [[ref["$ref"].rpartition("/")[2] for ref in document["oneOf"]] for document in DOCUMENTS.values()]
    assert names == [list(COMMANDS), [*ANSWERS, "error"], list(EVENT_TYPES)]


def test_a_definition_of_the_wire_is_not_mistaken_for_a_part() -> None:
    for document in DOCUMENTS.values():
        lines = {ref["$ref"].rpartition("/")[2] for ref in document["oneOf"]}
        assert all(name in lines or name[0].isupper() for name in document["$defs"])


def test_unknown_fields_are_allowed_everywhere() -> None:
    for document in DOCUMENTS.values():
        assert not [s for s in subschemas(document) if s.get("additionalProperties", True) is not True]


def test_descriptions_are_one_line_of_plain_text() -> None:
    for document in DOCUMENTS.values():
        texts = [s["description"] for s in subschemas(document) if isinstance(s.get("description"), str)]
        assert texts
        assert not [text for text in texts if "\n" in text or "``" in text or "  " in text]


def test_fields_younger_than_the_freeze_are_not_required() -> None:
    marked = 0
    for document in DOCUMENTS.values():
        for schema in subschemas(document):
            for name, child in schema.get("properties", {}).items():
                if isinstance(child, dict) and child.get("x-nous-always"):
                    marked += 1
                    assert name not in schema["required"]
    assert marked > 20


def test_null_is_never_sent() -> None:
    for document in (RESPONSE_SCHEMA, EVENT_SCHEMA):
        assert not [s for s in subschemas(document) if s.get("type") == "null" or "default" in s]


def test_rendering_is_stable_and_readable() -> None:
    for document in DOCUMENTS.values():
        data = render(document)
        assert data == (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    assert documents() == DOCUMENTS


def test_the_digest_covers_names_and_bytes() -> None:
    data = b"".join(name.encode() + b"\n" + render(document) for name, document in DOCUMENTS.items())
    assert schema_digest() == hashlib.sha256(data).hexdigest()


def test_drift_is_seen_and_mended(tmp_path: Path) -> None:
    pages = {Path("docs") / name for name in ("configuration.md", "codes.md", "errors.md", "front-end.md")}
    names = {Path("protocol/v1") / name for name in all_documents()} | pages | {Path("nous/protocol/digest.py")}
    assert set(drifted(tmp_path)) == names
    write(tmp_path)
    assert drifted(tmp_path) == []
    changed = tmp_path / "protocol/v1/events.schema.json"
    changed.write_bytes(changed.read_bytes() + b"\n")
    assert drifted(tmp_path) == [Path("protocol/v1/events.schema.json")]


def test_the_readme_s_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "protocol/v1")
    code = Path("README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["line"]["type"] == "message_update"


# --- what nous says and accepts fits


@each_line
def test_a_line_with_every_field_fits(kind: str, document: Schema, line: Any) -> None:
    assert errors(document, line, kind) == []
    assert errors(document, line) == []


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_command_with_required_fields_only_fits(kind: str) -> None:
    cls = COMMANDS[kind]
    smallest = cls(session_id="s") if kind == "branch_session" else sample(cls, full=False)
    assert errors(COMMAND_SCHEMA, command(kind, as_json(smallest))) == []


@pytest.mark.parametrize("kind", [k for k, c in COMMANDS.items() if not c.__struct_fields__ or k in ("hello", "abort")])
def test_a_command_that_needs_nothing_needs_no_payload(kind: str) -> None:
    assert errors(COMMAND_SCHEMA, {"id": "c1", "type": kind}) == []


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_with_required_fields_only_fits(kind: str) -> None:
    assert errors(RESPONSE_SCHEMA, answer(kind, full=False)) == []


def test_a_repeated_answer_fits() -> None:
    repeated = mark_duplicate(encode_answer(Accepted(command="abort", run_id="r"))[1])
    assert errors(RESPONSE_SCHEMA, json.loads(success_line("c1", "accepted", repeated))) == []


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_an_event_with_required_fields_only_fits(kind: str) -> None:
    assert errors(EVENT_SCHEMA, event(kind, full=False)) == []


@pytest.mark.parametrize("code", WIRE_CODES)
def test_an_error_of_every_code_fits(code: str) -> None:
    assert errors(RESPONSE_SCHEMA, json.loads(error_line("", NousError(code)))) == []


def test_events_outside_a_run_or_a_trace_fit() -> None:
    ready = daemon_line(
        1, TS.decode(), StatusEvent(message="ready", protocol="1", server="nous", features=("events",)), 1 << 20
    )
    untraced = untraced_line("r", 1, TS.decode(), sample(EVENTS["agent_end"], full=True))
    for line in (ready, untraced):
        assert b'"seq"' not in line
        assert errors(EVENT_SCHEMA, json.loads(line)) == []


def test_lines_of_an_earlier_v1_fit() -> None:
    update = command("message_update", {"run_id": "r", "turn_id": "1", "message_id": "m", "delta": "d"})
    assert errors(EVENT_SCHEMA, {**update, "id": "evt-3"}) == []
    refusal = {**command("error", {}), "ok": False, "error": {"code": "timeout", "message": "m"}}
    assert errors(RESPONSE_SCHEMA, refusal) == []


def test_the_integer_1_is_a_version_and_what_is_ignored_may_be_anything() -> None:
    line = {"v": 1, "id": "c1", "type": "ping", "ts": None, "meta": [1], "new": {}}
    assert errors(COMMAND_SCHEMA, line) == []


# --- what is wrong does not fit

Steps = tuple[str | int, ...]


@each_line
def test_an_unknown_type_or_version_does_not_fit(kind: str, document: Schema, line: Any) -> None:
    assert errors(document, {**line, "type": "no_such_type"})
    assert errors(document, {**line, "v": "2"})
    assert errors(document, {**line, "v": "2"}, kind)


@each_line
def test_no_line_fits_without_what_it_requires(kind: str, document: Schema, line: Any) -> None:
    removals = 0
    for path, schema in objects(document, {"$ref": f"#/$defs/{kind}"}, line):
        for name in schema.get("required", ()):
            smaller = copy.deepcopy(line)
            del at(smaller, path)[name]
            assert errors(document, smaller, kind), (path, name)
            removals += 1
    assert removals >= 2


@each_line
def test_no_field_takes_a_value_of_another_type(kind: str, document: Schema, line: Any) -> None:
    for path, schema in objects(document, {"$ref": f"#/$defs/{kind}"}, line):
        for name, child in schema["properties"].items():
            if name not in at(line, path) or set(resolve(document, child)) <= {"description"}:
                continue
            wrong = copy.deepcopy(line)
            at(wrong, path)[name] = 1.5 if not isinstance(at(line, path)[name], float) else "text"
            assert errors(document, wrong, kind), (path, name)


def objects(document: Schema, schema: Schema, value: Any, path: Steps = ()) -> Iterator[tuple[Steps, Schema]]:
    """Yield path and schema of every object in a line that fits."""
    schema = resolve(document, schema)
    for option in schema.get("anyOf", ()):
        if "type" in resolve(document, option) and not errors({**option, "$defs": document["$defs"]}, value):
            yield from objects(document, option, value, path)
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from objects(document, schema.get("items", {}), item, (*path, index))
    if not isinstance(value, dict) or "properties" not in schema:
        return
    yield path, schema
    for name, child in schema["properties"].items():
        if name in value:
            yield from objects(document, child, value[name], (*path, name))


def at(line: Any, path: Steps) -> Any:
    for step in path:
        line = line[step]
    return line


@pytest.mark.parametrize(
    ("document", "line"),
    [
        (COMMAND_SCHEMA, {"type": "ping"}),
        (COMMAND_SCHEMA, {"id": "", "type": "ping"}),
        (COMMAND_SCHEMA, {"id": 1, "type": "ping"}),
        (COMMAND_SCHEMA, {"id": "c", "type": "ping", "payload": None}),
        (COMMAND_SCHEMA, {"id": "c", "type": "ping", "payload": []}),
        (COMMAND_SCHEMA, {"id": "c", "type": "prompt"}),
        (COMMAND_SCHEMA, command("prompt", {"text": ""})),
        (COMMAND_SCHEMA, command("branch_session", {"leaf_id": "x"})),
        (COMMAND_SCHEMA, command("branch_session", {"session_id": None})),
        (COMMAND_SCHEMA, command("set_steering_mode", {"mode": "some"})),
        (COMMAND_SCHEMA, command("get_events", {"run_id": "r", "after_seq": -1})),
        (COMMAND_SCHEMA, command("get_events", {"run_id": "r", "limit": 0})),
        (COMMAND_SCHEMA, []),
        (RESPONSE_SCHEMA, {**answer("pong", full=True), "ok": False}),
        (RESPONSE_SCHEMA, {**ERROR_RESPONSE, "ok": True}),
        (RESPONSE_SCHEMA, {**ERROR_RESPONSE, "error": {**ERROR_RESPONSE["error"], "code": "bad_luck"}}),
        (RESPONSE_SCHEMA, {**ERROR_RESPONSE, "error": {**ERROR_RESPONSE["error"], "category": "bad_luck"}}),
        (RESPONSE_SCHEMA, {**ERROR_RESPONSE, "error": {**ERROR_RESPONSE["error"], "cause": None}}),
        (EVENT_SCHEMA, {**event("turn_start", full=True), "seq": 0}),
        (EVENT_SCHEMA, {**event("turn_start", full=True), "ts": "2026-01-02 03:04:05"}),
        (EVENT_SCHEMA, {**event("turn_start", full=True), "ts": "2026-01-02T03:04:05+01:00"}),
        (EVENT_SCHEMA, {**event("thinking_update", full=True), "after_seq": -1}),
        (EVENT_SCHEMA, ERROR_RESPONSE),
        (RESPONSE_SCHEMA, event("error", full=True)),
    ],
)
def test_wrong_lines_do_not_fit(document: Schema, line: Any) -> None:
    assert errors(document, line)


@pytest.mark.parametrize("kind", COMMANDS)
def test_the_codec_and_the_schema_refuse_the_same_payloads(kind: str) -> None:
    whole = as_json(sample(COMMANDS[kind], full=True))
    odd_values: list[Any] = [None, True, 0, -1, 1.5, "", "text", "all", "events", [], ["a"], [1], [None], {}, {"a": 1}]
    variants = [{n: v for n, v in whole.items() if n != left_out} for left_out in (None, *whole)]
    variants += [{**whole, name: value} for name in whole for value in odd_values]
    for payload in variants:
        line = command(kind, payload)
        accepted = isinstance(decode_command(json.dumps(line).encode()), Command)
        assert accepted == (errors(COMMAND_SCHEMA, line, kind) == []), payload
